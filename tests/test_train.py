from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config, same_weights

from labeldrop_bench import losses, train
from labeldrop_bench.checkpoints import Fit
from labeldrop_bench.data.arrays import Images
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.errors import TrainingError
from labeldrop_bench.records import RunConfig, TrainingConfig


def _fit(config: RunConfig, dataset: Dataset, directory: Path, fabric: Fabric, **options: Any) -> Fit:
    return train.fit(config, dataset, directory, fabric=fabric, **options)


def test_a_run_repeats_itself_and_the_seed_changes_it(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset = run_config(augmentation={"probability": 0.5}), discs()
    first, second = (_fit(config, dataset, tmp_path / name, fabric) for name in "ab")
    assert first.dice == second.dice
    assert same_weights(first, second)
    other = _fit(config.model_copy(update={"seed": 1}), dataset, tmp_path / "c", fabric)
    assert other.dice != first.dice


def test_dropout_reaches_the_loss_through_annotated_alone(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, seen = discs(), []

    class Spy(losses.AdaptiveCrossEntropy):
        def forward(self, logits: Any, target: Any, annotated: Any = None) -> Any:
            seen.append((target.clone(), annotated.clone()))
            return super().forward(logits, target, annotated)

    monkeypatch.setitem(losses.REGISTRY.ours, "spy", lambda: losses.LossInfo(Spy, "", ""))
    strategy = {"name": "spy", "loss": "spy", "dropout": 1.0, "dropout_classes": ["dark"]}
    _fit(run_config(strategy, training={"epochs": 1, "batch_size": 12}), dataset, tmp_path, fabric)
    ((target, annotated),) = seen
    assert annotated.tolist() == [[True, True, False]] * 12
    assert int((target == 2).sum()) == int((dataset.train.target[:] == 2).sum()) > 0


def test_dropout_without_a_kernel_draws_the_same(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config({"name": "adaptive", "loss": "adaptive_ce", "dropout": 0.5}, training={"epochs": 2})
    fused = _fit(config, discs(), tmp_path / "fused", fabric)
    monkeypatch.setattr(train.LabelDropout, "runs_on", lambda device_type: False)
    assert train.make_dropout(config.strategy, discs().label_space, fabric.device).backend == "reference"
    assert same_weights(_fit(config, discs(), tmp_path / "reference", fabric), fused)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, fabric: Fabric) -> None:
    dataset = discs()
    images = dataset.train.images[:]
    images[3] = math.inf
    broken = dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, images=Images.of(images)))
    with pytest.raises(TrainingError, match=r"run adaptive-seed0: the loss is nan in epoch 1, step [123] of 3: lower"):
        _fit(run_config(), broken, tmp_path, fabric)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize(("n", "size", "world"), [(10, 4, 1), (10, 4, 2), (7, 8, 3), (32, 16, 4)])
def test_batches_share_out_every_sample_once(n: int, size: int, world: int) -> None:
    @dataclasses.dataclass
    class Process:
        global_rank: int
        world_size: int

    steps = math.ceil(n / size)
    shares = [
        list(train.batches(n, steps, 1, torch.Generator().manual_seed(5), Process(rank, world)))  # type: ignore[arg-type]
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


def test_restarts_bring_the_peak_back() -> None:
    table = {"schedule": "cosine_restarts", "learning_rate": 0.1, "final_learning_rate": 0.001, "restart_steps": 10}
    config = run_config(training=table).training
    optimizer = train.make_optimizer(torch.nn.Linear(1, 1), config)
    steps = train.make_schedule(optimizer, config, 25)
    rates = []
    for _ in range(25):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        steps.step()
    assert rates[0] == rates[10] == rates[20] == 0.1
    # cosine annealing: halfway between peak and end at half the way (Loshchilov and Hutter 2017, equation 5)
    assert rates[5] == pytest.approx((0.1 + 0.001) / 2)
    assert rates[9] < 0.005
    assert min(rates) >= 0.001


OPTIMIZERS = get_args(TrainingConfig.model_fields["optimizer"].annotation)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_get_what_the_suite_says(name: str) -> None:
    config = run_config(training={"optimizer": name, "momentum": 0.7, "weight_decay": 0.01, "learning_rate": 0.02})
    optimizer = train.make_optimizer(torch.nn.Linear(1, 1), config.training)
    assert type(optimizer).__name__.lower() == name
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.01)
    assert group["betas"] == (0.7, 0.999) if name == "adamw" else group["momentum"] == 0.7
    assert bool(group.get("nesterov")) == (name == "sgd")
    assert bool(group.get("fused")) == (name != "rmsprop")  # torch has no such kernel for it


@pytest.mark.parametrize("schedule", get_args(TrainingConfig.model_fields["schedule"].annotation))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_on_every_schedule(name: str, schedule: str, tmp_path: Path, fabric: Fabric) -> None:
    rate = {"sgd": 0.1, "rmsprop": 0.005, "adamw": 0.02}[name]
    table = {"optimizer": name, "schedule": schedule, "learning_rate": rate, "epochs": 8}
    seen: list[Any] = []
    _fit(run_config(training=table), discs(), tmp_path, fabric, on_epoch=seen.append)
    assert seen[-1].loss < 0.8 * seen[0].loss


def test_decay_of_adamw_is_decoupled_from_the_gradient() -> None:
    """Without a gradient a step only shrinks the weights, by learning rate times decay (Loshchilov and Hutter 2019)."""
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    table = {"optimizer": "adamw", "learning_rate": 0.05, "weight_decay": 0.5}
    optimizer = train.make_optimizer(layer, run_config(training=table).training)
    (0 * layer(torch.ones(1, 3)).sum()).backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.05 * 0.5))


def test_a_strategy_may_go_without_augmentation(tmp_path: Path, fabric: Fabric) -> None:
    strategy = {"name": "it", "loss": "ce"}
    changed = {"probability": 1.0}
    plain = _fit(run_config(strategy), discs(), tmp_path / "plain", fabric)
    without = _fit(run_config({**strategy, "augmented": False}, augmentation=changed), discs(), tmp_path / "a", fabric)
    with_it = _fit(run_config(strategy, augmentation=changed), discs(), tmp_path / "b", fabric)
    assert same_weights(plain, without)
    assert not same_weights(plain, with_it)


def test_an_epoch_that_cannot_be_judged_never_replaces_one_that_can(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = iter([math.nan, 0.3, math.nan, 0.2])
    monkeypatch.setattr(train, "validate", lambda *_: (next(dice), 0.0))
    best = _fit(run_config(training={"epochs": 4}), discs(), tmp_path, fabric)
    assert (best.epoch, best.dice) == (2, 0.3)


def test_only_every_so_many_epochs_are_validated_and_the_last(tmp_path: Path, fabric: Fabric) -> None:
    seen: list[Any] = []
    best = _fit(
        run_config(training={"epochs": 5, "validate_every": 2}), discs(), tmp_path, fabric, on_epoch=seen.append
    )
    assert [epoch.validation_dice is not None for epoch in seen] == [False, True, False, True, True]
    assert best.epoch in (2, 4, 5)
    assert best.seconds == math.fsum(epoch.seconds for epoch in seen)


def test_each_image_gives_as_many_patches_as_asked_for(
    tmp_path: Path, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, seen, honest = discs(), [], train.take
    monkeypatch.setattr(train, "take", lambda *given: (seen.append(given[1]), honest(*given))[1])
    config = run_config(patches={"kind": "box", "size": (16, 16), "per_image": 3}, training={"epochs": 1})
    _fit(config, dataset, tmp_path, fabric)
    assert [len(index) for index in seen] == [4] * 9
    assert torch.cat(seen).bincount().tolist() == [3] * 12
    assert train.steps_per_epoch(dataset, config) == 9  # 12 images, 3 patches each, 4 in a batch
    steps = list(train.batches(12, 9, 3, torch.Generator(), fabric))
    assert torch.cat(steps).bincount().tolist() == [3] * 12


@pytest.mark.parametrize(
    ("depth", "patches", "model"),
    [
        (None, {}, {}),
        (8, {"kind": "box", "size": (8, 8, 8)}, {}),
        (7, {"kind": "slab", "size": (16, 16)}, {"name": "slab_net", "channels": [4, 4, 2]}),
    ],
)
def test_bf16_is_what_every_network_computes_in_while_it_trains_and_predicts(
    depth: int | None, patches: dict[str, Any], model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, config = discs(n=2, depth=depth), run_config(patches=patches, model=model, training={"epochs": 1})
    made, seen = train.make_network, set()

    def watched(*given: Any) -> torch.nn.Module:
        network = made(*given)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
                module.register_forward_hook(lambda m, _, logits: seen.add((m.training, logits.dtype)))
        return network

    monkeypatch.setattr(train, "make_network", watched)
    fit = _fit(config, dataset, tmp_path, Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"))
    assert seen == {(True, torch.bfloat16), (False, torch.bfloat16)}  # steps, and validation
    assert all(weight.dtype != torch.bfloat16 for weight in fit.weights.values())
