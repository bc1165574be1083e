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

from labeldrop_bench import evaluate, records, run, train
from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.base import IGNORED, Dataset, make_samples
from labeldrop_bench.data.edits import hide
from labeldrop_bench.errors import DivergenceError, TrainingError
from labeldrop_bench.label_space import Label, LabelSpace
from labeldrop_bench.records import HiddenConfig, ResultRow, RunConfig, RunResult

FULL = {"name": "full", "loss": "ce", "full_labels": True}


def _run(config: RunConfig, dataset: Dataset, directory: Path, fabric: Fabric, **options: Any) -> RunResult:
    result = run.run(config, dataset, directory, fabric=fabric, **options)
    assert result is not None
    return result


def _dice(result: RunResult) -> list[ResultRow]:
    return [row for row in result.rows if row.metric == "dice"]


def test_a_run_learns_and_leaves_its_files(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset, seen = run_config(training={"epochs": 24}), discs(), []
    result = _run(config, dataset, tmp_path, fabric, on_epoch=seen.append)

    # Dark discs (level -2, noise 0.3) are easily told apart, in B too, where the adaptive loss leaves them open.
    # 24 epochs give 0.9; without training it is below 0.3.
    assert all(row.value is not None and row.value > 0.7 for row in _dice(result) if row.class_ == "dark")
    assert {row.metric for row in result.rows} == {*records.METRICS, *records.SIGHTINGS}
    assert result.split == run.split_digest(dataset) == run.split_digest(run.everything_known(dataset))
    assert result.split != run.split_digest(discs(n=3))

    history = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert list(history[0]) == ["epoch", "loss", "validation_dice", "truth_dice", "lr", "seconds"]
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
    result = _run(run_config(strategy, training=training), discs(), tmp_path, fabric)
    # Annotated in both domains. Predicted nowhere it scores 0, everywhere 0.2: 29 of 256 pixels.
    bright = [row.value for row in _dice(result) if row.class_ == "bright"]
    assert len(bright) == 2
    assert all(value is not None and value > 0.3 for value in bright), bright


def test_the_checkpoint_holds_the_weights_that_were_scored(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset = run_config(), discs()
    result = _run(config, dataset, tmp_path, fabric)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == result.best_epoch
    assert RunConfig.model_validate_json(checkpoint["config"]) == config

    learner = train.make_learner(config, dataset, fabric)
    learner.network.load_state_dict(checkpoint["weights"])
    rows, cases, _ = evaluate.score(learner.predictor, dataset, config)
    assert tuple(rows) == result.rows
    assert (
        evaluate.validate(learner.predictor, dataset.validation, dataset.label_space)[0]
        == checkpoint["dice"]
        == result.validation_dice
    )
    here = records.run_directory(tmp_path, config)
    here.mkdir(parents=True)
    (tmp_path / "cases.csv").rename(here / "cases.csv")
    for there, case in zip(records.read_cases(tmp_path, config), cases, strict=True):
        rounded = {name: pytest.approx(getattr(case, name), rel=1e-5) for name in records.METRICS}
        assert there.model_dump() == {**case.model_dump(), **rounded}


def test_full_trains_and_validates_on_all_ground_truth(tmp_path: Path, fabric: Fabric) -> None:
    dataset = discs()
    result = _run(run_config(FULL), dataset, tmp_path / "full", fabric)
    assert all(row.annotated for row in result.rows)
    partly = _run(run_config({"name": "standard", "loss": "ce"}), dataset, tmp_path / "standard", fabric)
    assert [(row.domain, row.class_) for row in _dice(partly) if not row.annotated] == [("B", "dark")]
    # Nothing but the labels differs, so where everything is annotated anyway "full" and "standard" are one run
    known = run.everything_known(dataset)
    assert torch.equal(known.train.target[:], dataset.train.truth[:])
    same = _run(run_config({"name": "standard", "loss": "ce"}), known, tmp_path / "same", fabric)
    assert [row.value for row in same.rows] == [row.value for row in result.rows]
    assert same.validation_dice == result.validation_dice


def test_bf16_autocast_runs(tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    result = _run(run_config(training={"precision": "bf16-mixed"}), discs(), tmp_path, fabric)
    assert result.environment["precision"] == "bf16-mixed"
    assert (
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)["weights"]["model.0.conv.unit0.conv.weight"].dtype
        == torch.float32
    )


def test_every_point_of_a_grid_is_tried_and_the_best_by_validation_wins(tmp_path: Path, fabric: Fabric) -> None:
    grid = {"learning_rate": [1e-6, 0.1], "batch_size": [4, 12]}
    config, seen = run_config(training={"epochs": 6, "grid": grid}), []
    assert run.epochs(config) == 24
    result = _run(config, discs(), tmp_path, fabric, on_epoch=seen.append)
    assert [epoch.epoch for epoch in seen] == [*range(1, 7)] * 4
    tried = [torch.load(tmp_path / f"grid{n}" / "checkpoint.pt", weights_only=True) for n in range(4)]
    points = [RunConfig.model_validate_json(t["config"]).training for t in tried]
    assert [(p.learning_rate, p.batch_size) for p in points] == [(1e-6, 4), (1e-6, 12), (0.1, 4), (0.1, 12)]
    dice = [t["dice"] for t in tried]
    best = dice.index(max(dice))
    assert best >= 2  # nothing is learnt at 1e-6
    assert result.chosen == {"learning_rate": points[best].learning_rate, "batch_size": points[best].batch_size}
    assert (result.validation_dice, result.best_epoch) == (dice[best], tried[best]["epoch"])
    assert (tmp_path / "history.csv").read_bytes() == (tmp_path / f"grid{best}" / "history.csv").read_bytes()
    assert result.seconds > math.fsum(t["seconds"] for t in tried)
    scored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(w, tried[best]["weights"][name]) for name, w in scored["weights"].items())
    assert records.RunResult.model_validate_json((tmp_path / "result.json").read_text()) == result


def test_a_grid_that_was_broken_off_goes_on_with_its_point(tmp_path: Path, fabric: Fabric) -> None:
    config = run_config(training={"epochs": 2, "save_every": 1, "grid": {"learning_rate": [0.01, 0.1]}})
    whole = _run(config, discs(), tmp_path / "whole", fabric)
    seen: list[int] = []

    def on_epoch(row: Any) -> None:
        seen.append(row.epoch)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(config, discs(), tmp_path / "broken", fabric, on_epoch=on_epoch)
    resumed = _run(config, discs(), tmp_path / "broken", fabric, on_epoch=on_epoch)
    assert seen == [1, 2, 1, 2, 2]
    assert (resumed.rows, resumed.chosen) == (whole.rows, whole.chosen)


def test_a_grid_of_one_value_is_that_value(tmp_path: Path, fabric: Fabric) -> None:
    result = _run(run_config(training={"grid": {"learning_rate": [0.02]}}), discs(), tmp_path / "grid", fabric)
    assert result.chosen == {"learning_rate": 0.02}
    plain = _run(run_config(training={"learning_rate": 0.02}), discs(), tmp_path / "plain", fabric)
    assert plain.rows == result.rows
    assert plain.chosen == {}


def test_split_csv_says_what_is_left_in_each_case(tmp_path: Path, fabric: Fabric) -> None:
    dataset = hide(discs(n=4), HiddenConfig(labels=("bright",), share=0.5, domains=("A",), seed=3))
    _run(run_config(training={"epochs": 1}), dataset, tmp_path, fabric)
    rows = list(csv.DictReader((tmp_path / "split.csv").open()))
    assert list(rows[0]) == ["case", "patient", "domain", "split", "annotated", "known"]
    assert [row["case"] for row in rows] == [f"{s}-{i}" for s in ("train", "validation", "test") for i in range(8)]
    assert [row["domain"] for row in rows[:8]] == ["A"] * 4 + ["B"] * 4
    annotated = [row["annotated"] for row in rows]
    assert sorted(annotated[:4]) == ["bright; dark"] * 2 + ["dark"] * 2
    assert annotated[4:8] == ["bright"] * 4
    assert [a == "dark" for a in annotated[:4]] == (~dataset.train.annotated[:4, 1]).tolist()
    assert annotated[8:12] == ["bright; dark"] * 4  # a share is hidden in training alone
    assert {row["known"] for row in rows} == {"bright; dark"}


def _rows_of_labels(space: LabelSpace, target: list[list[int]], annotated: list[list[bool]]) -> Dataset:
    """Images of one row."""
    labels = torch.tensor(target, dtype=torch.uint8)[:, None]
    n = len(labels)

    def split(name: str) -> Any:
        cases = [f"{name}{i}" for i in range(n)]
        images = torch.zeros(n, 1, *labels.shape[1:])
        return make_samples(space, images, labels, torch.tensor(annotated), torch.zeros(n).long(), cases, cases)

    return Dataset(space, ("A",), split("train"), split("validation"), split("test"))


def test_full_labels_take_the_truth_where_there_is_one() -> None:
    classes = LabelSpace.of_classes(("background", "a", "b"))
    space = LabelSpace(
        classes.classes,
        (classes.labels[0], Label("a or b", frozenset({1, 2})), classes.labels[2], classes.labels[1]),
    )
    assert run.own_labels(space) == {0: 0, 1: 3, 2: 2}
    dataset = _rows_of_labels(
        space,
        [[0, 3, 2, IGNORED], [0, 1, 1, 0]],
        [[True, False, True, True], [True, True, False, False]],
    )
    hidden = dataclasses.replace(dataset.train, target=LabelMaps.of(torch.zeros_like(dataset.train.target[:])))
    changed = run.everything_known(dataclasses.replace(dataset, train=hidden)).train
    # a pixel of a super-label may be either class, and nobody knows which
    assert changed.target[:].flatten(1).tolist() == [[0, 3, 2, IGNORED], [0, IGNORED, IGNORED, 0]]
    assert changed.annotated.tolist() == [[True, False, True, True], [True, False, False, False]]


def test_full_labels_need_a_label_for_each_class() -> None:
    names = ("background", "a", "b")
    labels = LabelSpace.of_classes(names).labels
    for other in (Label("a or b", frozenset({1, 2})), Label("b", frozenset({2}), exhaustive=False)):
        space = LabelSpace(names, (*labels[:2], other))
        with pytest.raises(ValueError, match="every class needs a label of its own, and b has none"):
            run.own_labels(space)


def test_a_point_of_the_grid_that_diverges_loses(tmp_path: Path, fabric: Fabric) -> None:
    with pytest.warns(UserWarning, match="1 of the grid's 2 points"):
        result = _run(run_config(training={"grid": {"learning_rate": [1e9, 0.05]}}), discs(), tmp_path / "one", fabric)
    assert result.chosen == {"learning_rate": 0.05}
    with pytest.raises(DivergenceError, match="no point of the grid"):
        _run(run_config(training={"grid": {"learning_rate": [1e9, 1e10]}}), discs(), tmp_path / "none", fabric)


def test_a_damaged_file_in_a_grid_is_an_error_and_no_lost_point(tmp_path: Path, fabric: Fabric) -> None:
    damaged = tmp_path / "grid0" / "checkpoint.pt"
    damaged.parent.mkdir()
    damaged.write_bytes(b"half a file")
    with pytest.raises(TrainingError, match=r"grid0.checkpoint.pt: cannot be read"):
        _run(run_config(training={"grid": {"learning_rate": [0.01, 0.05]}}), discs(), tmp_path, fabric)
