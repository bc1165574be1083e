from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config

from labeldrop_bench import losses, metrics, records, train
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.errors import TrainingError
from labeldrop_bench.records import RunConfig, RunResult

FULL = {"name": "full", "loss": "ce", "full_labels": True}


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


def _train(config: RunConfig, dataset: Dataset, directory: Path, fabric: Fabric, **options: Any) -> RunResult:
    result = train.train(config, dataset, directory, fabric=fabric, **options)
    assert result is not None
    return result


def test_a_run_learns_and_leaves_its_files(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset, seen = run_config(training={"epochs": 24}), discs(), []
    result = _train(config, dataset, tmp_path, fabric, on_epoch=seen.append)

    # Dark discs (level -2, noise 0.3) are easily told apart, in B too, where the adaptive loss leaves them open.
    # 24 epochs give 0.9; without training it is below 0.3.
    assert all(row.value is not None and row.value > 0.7 for row in result.rows if row.class_ == "dark")

    history = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert list(history[0]) == ["epoch", "loss", "validation_dice", "lr", "seconds"]
    assert [int(row["epoch"]) for row in history] == list(range(1, 25)) == [epoch.epoch for epoch in seen]
    dice = [float(row["validation_dice"]) for row in history]
    assert result.best_epoch == 1 + dice.index(max(dice))
    assert result.validation_dice == max(dice)
    assert float(history[-1]["loss"]) < float(history[0]["loss"])

    assert records.RunResult.model_validate_json((tmp_path / "result.json").read_text()) == result
    assert result.environment["precision"] == "32-true"
    assert result.environment["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("smile", {}),
        ("adaptive_bce_focal", {"gamma": 1.0}),
        ("label_flip", {"rule": "adaptive"}),
        ("predictive_variance", {"samples": 4}),
        ("marginal_dice", {"batch": True}),
        ("marginal_ce+marginal_dice", {"weights": [1.0, 0.5]}),
    ],
)
def test_every_family_trains(loss: str, options: dict[str, Any], tmp_path: Path, fabric: Fabric) -> None:
    """The network gets the channels that the loss asks for, learns from it, and is scored by its predictions."""
    strategy = {"name": "it", "loss": loss, "loss_options": options}
    training = {"epochs": 60, "learning_rate": 0.3}  # focal losses have small gradients
    result = _train(run_config(strategy, training=training), discs(), tmp_path, fabric)
    # Drawn in both domains. Predicted nowhere it scores 0, everywhere 0.2: 29 of 256 pixels.
    bright = [row.value for row in result.rows if row.class_ == "bright"]
    assert len(bright) == 2
    assert all(value is not None and value > 0.3 for value in bright), bright


def test_the_checkpoint_holds_the_weights_that_were_scored(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset = run_config(), discs()
    result = _train(config, dataset, tmp_path, fabric)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == result.best_epoch
    assert RunConfig.model_validate_json(checkpoint["config"]) == config

    loss = train.make_loss(config.strategy, dataset.label_space)
    network = train.make_network(config, dataset, loss)
    network.load_state_dict(checkpoint["weights"])
    assert train.score(network, loss, dataset, config, fabric) == result.rows
    assert train.validate(network, loss, dataset.validation, fabric) == result.validation_dice


def test_a_run_repeats_itself_and_the_seed_changes_it(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset = run_config(augmentation={"probability": 0.5}), discs()
    first, second = (_train(config, dataset, tmp_path / name, fabric) for name in "ab")
    assert first.rows == second.rows
    weights = [torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["weights"] for n in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    other = _train(config.model_copy(update={"seed": 1}), dataset, tmp_path / "c", fabric)
    assert [row.value for row in other.rows] != [row.value for row in first.rows]


def test_full_trains_and_validates_on_all_ground_truth(tmp_path: Path, fabric: Fabric) -> None:
    dataset = discs()
    result = _train(run_config(FULL), dataset, tmp_path / "full", fabric)
    assert all(row.annotated for row in result.rows)
    partly = _train(run_config({"name": "standard", "loss": "ce"}), dataset, tmp_path / "standard", fabric)
    assert [(row.domain, row.class_) for row in partly.rows if not row.annotated] == [("B", "dark")]
    # Nothing but the labels differs, so where everything is drawn anyway "full" and "standard" are one run
    drawn = train.everything_drawn(dataset)
    assert torch.equal(drawn.train.target, dataset.train.truth)
    same = _train(run_config({"name": "standard", "loss": "ce"}), drawn, tmp_path / "same", fabric)
    assert [row.value for row in same.rows] == [row.value for row in result.rows]
    assert same.validation_dice == result.validation_dice


def test_rows_average_only_what_is_defined(fabric: Fabric) -> None:
    dataset, config = discs(n=3), run_config()
    test = dataset.test
    truth, known = test.truth.clone(), test.truth_annotated.clone()
    truth[0][truth[0] == 2] = 0  # no "dark" in the first image of A, and none predicted: not a number
    known[2, 2] = False  # no ground truth of "dark" in the third image of A: not counted
    known[3:, 2] = False  # nor in any of B: no row
    dataset = dataclasses.replace(dataset, test=dataclasses.replace(test, truth=truth, truth_annotated=known))
    prediction = truth.long().clone()
    prediction[1] = 0  # everything missed in the second image of A

    class Given(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(prediction, 3).movedim(-1, 1).float()

    loss = train.make_loss(config.strategy, dataset.label_space)
    rows = {(r.domain, r.class_): (r.value, r.n) for r in train.score(Given(), loss, dataset, config, fabric)}
    assert rows == {("A", "bright"): (pytest.approx(2 / 3), 3), ("A", "dark"): (0.0, 1), ("B", "bright"): (1.0, 3)}


def test_a_class_that_is_never_defined_has_a_row_without_a_value(fabric: Fabric) -> None:
    dataset, config = discs(n=2), run_config()
    empty = dataclasses.replace(dataset.test, truth=torch.zeros_like(dataset.test.truth))
    dataset = dataclasses.replace(dataset, test=empty)

    class Nothing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.eye(3)[0].view(1, 3, 1, 1).expand(len(images), 3, *images.shape[2:])

    rows = train.score(Nothing(), train.make_loss(config.strategy, dataset.label_space), dataset, config, fabric)
    assert {(row.value, row.n) for row in rows} == {(None, 0)}


def test_dropout_reaches_the_loss_through_annotated_alone(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, seen = discs(), []

    class Spy(losses.AdaptiveCrossEntropy):
        def forward(self, logits: Any, target: Any, annotated: Any = None) -> Any:
            seen.append((target.clone(), annotated.clone()))
            return super().forward(logits, target, annotated)

    monkeypatch.setitem(losses.LOSSES, "spy", losses.LossInfo(Spy, "", ""))
    strategy = {"name": "spy", "loss": "spy", "dropout": 1.0, "dropout_classes": ["dark"]}
    _train(run_config(strategy, training={"epochs": 1, "batch_size": 12}), dataset, tmp_path, fabric)
    ((target, annotated),) = seen
    assert annotated.tolist() == [[True, True, False]] * 12
    assert int((target == 2).sum()) == int((dataset.train.target == 2).sum()) > 0


def test_dropout_without_a_kernel_draws_the_same(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config({"name": "adaptive", "loss": "adaptive_ce", "dropout": 0.5}, training={"epochs": 2})
    fused = _train(config, discs(), tmp_path / "fused", fabric)
    monkeypatch.setattr(train.LabelDropout, "runs_on", lambda device_type: False)
    assert train.make_dropout(config.strategy, discs().label_space, fabric.device).backend == "reference"
    assert _train(config, discs(), tmp_path / "reference", fabric).rows == fused.rows


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, fabric: Fabric) -> None:
    dataset = discs()
    images = dataset.train.images.clone()
    images[3] = math.inf
    broken = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, images=images))
    with pytest.raises(TrainingError, match=r"run adaptive-seed0: the loss is nan in epoch 1, step [123] of 3: lower"):
        _train(run_config(), broken, tmp_path, fabric)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("n", "size", "world"), [(10, 4, 1), (10, 4, 2), (7, 8, 3), (32, 16, 4)])
def test_batches_share_out_every_sample_once(n: int, size: int, world: int) -> None:
    @dataclasses.dataclass
    class Process:
        global_rank: int
        world_size: int

    steps = math.ceil(n / size)
    shares = [
        list(train.batches(n, steps, torch.Generator().manual_seed(5), Process(rank, world)))  # type: ignore[arg-type]
        for rank in range(world)
    ]
    assert {len(share) for share in shares} == {steps}
    assert sorted(torch.cat([index for share in shares for index in share]).tolist()) == list(range(n))
    lengths = [len(index) for share in shares for index in share]
    assert max(lengths) - min(lengths) <= 1
    assert sum(len(share[0]) for share in shares) <= size


@pytest.mark.parametrize(("schedule", "first", "last"), [("poly", 0.1, 0.01), ("one_cycle", 0.004, 0.001)])
def test_schedules_end_near_zero(schedule: str, first: float, last: float) -> None:
    config = run_config(training={"schedule": schedule, "learning_rate": 0.1}).training
    optimizer = train.make_optimizer(torch.nn.Linear(1, 1), config)
    steps = train.make_schedule(optimizer, config, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == config.momentum
        optimizer.step()
        steps.step()
    assert rates[0] == pytest.approx(first)
    assert max(rates) == pytest.approx(0.1)
    assert 0 <= rates[-1] < last


def test_validation_counts_only_what_is_annotated(fabric: Fabric) -> None:
    dataset, config = discs(n=2), run_config()
    truth = dataset.validation.truth

    class Right(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 1).float()

    loss = train.make_loss(config.strategy, dataset.label_space)
    assert train.validate(Right(), loss, dataset.validation, fabric) == 1.0
    # the same prediction would be punished if the undrawn class were counted in B
    unfair = metrics.dice_per_image(truth, dataset.validation.target, 3)[:, 1:].nanmean()
    assert unfair < 0.9


def test_bf16_autocast_runs(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    result = _train(run_config(training={"precision": "bf16-mixed"}), discs(), tmp_path, fabric)
    assert result.environment["precision"] == "bf16-mixed"
    assert (
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)["weights"]["model.0.conv.unit0.conv.weight"].dtype
        == torch.float32
    )
