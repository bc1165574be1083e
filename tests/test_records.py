from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from labeldrop_bench import records
from labeldrop_bench.records import (
    COLUMNS,
    AugmentationConfig,
    CaseRow,
    Example,
    PatchConfig,
    ResultRow,
    RunConfig,
    RunResult,
    StepCost,
    SuiteConfig,
    TrainingConfig,
    files,
)

SUITE = {
    "name": "tiny",
    "title": "A tiny suite",
    "seeds": [0, 7],
    "data": {"name": "phantom", "hidden": {"B": ["LA"]}, "gap": 0.5},
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "adaptive + dropout 0.3", "loss": "adaptive_ce", "dropout": 0.3, "dropout_classes": ["LA"]},
    ],
}


def _row(value: float | None) -> ResultRow:
    return ResultRow(
        suite="tiny", run="full-seed0", strategy="full", loss="ce", dropout=0.0, seed=0, domain="B",
        class_="LA", annotated=True, metric="dice", value=value, n=3,
    )  # fmt: skip


def _result() -> RunResult:
    return RunResult(
        run="full-seed0", rows=(_row(0.1), _row(None)), best_epoch=2, validation_dice=0.5, seconds=1.5,
        cost=StepCost(seconds=0.001, peak_bytes=1024, rounds=3, shape=(8, 4, 16, 16)), split="0" * 64,
        environment={"torch": "2"},
    )  # fmt: skip


def test_records_survive_json(tmp_path: Path) -> None:
    suite = SuiteConfig.model_validate(SUITE)
    records.write_json(tmp_path / "suite.json", suite)
    assert records.read_suite(tmp_path) == suite
    for run in suite.runs():
        assert RunConfig.model_validate_json(run.model_dump_json()) == run
    run = suite.runs()[0]
    assert records.read_result(tmp_path, run) is None
    records.write_json(records.run_directory(tmp_path, run) / "result.json", _result())
    assert records.read_result(tmp_path, run) == _result()


@pytest.mark.parametrize(
    ("name", "part"),
    [("später", "spater"), ("LA, 10 %", "LA-10-"), ("左+右", "u5de6-u53f3"), ("β 0.5", "u3b2-0.5"), ("é", "e")],
)
def test_names_of_any_script_are_paths_everywhere(name: str, part: str) -> None:
    assert records.path_part(name) == part


def test_runs_are_named_and_ordered() -> None:
    runs = SuiteConfig.model_validate(SUITE).runs()
    assert [run.run for run in runs] == [
        "full-seed0", "full-seed7", "adaptive-dropout-0.3-seed0", "adaptive-dropout-0.3-seed7",
    ]  # fmt: skip
    assert runs[2].data.options == {"gap": 0.5}
    assert [(h.domains, h.labels) for h in runs[2].data.hidden] == [(("B",), ("LA",))]


def test_what_the_data_table_leaves_to_training() -> None:
    table = {
        "name": "phantom",
        "annotated": {"C": ["LV"]},
        "hidden": [
            {"labels": ["LA"], "domains": ["B"]},
            {"labels": ["LVM"], "share": 0.5},
            {"labels": ["LVM"], "domains": ["B"], "share": 1},
        ],
        "train_domains": ["A", "B", "C"],
    }
    config = records.DataConfig.model_validate(table)
    left = {d: [c for c in ("LV", "LVM", "LA") if config.trains_on(d, c)] for d in "ABCD"}
    assert left == {"A": ["LV", "LVM", "LA"], "B": ["LV"], "C": ["LV"], "D": []}
    assert records.DataConfig.model_validate_json(config.model_dump_json()) == config
    assert records.DataConfig(name="phantom", hidden={"B": []}).trains_on("B", "LA")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {"name": "phantom", "hidden": [{"labels": ["LA"], "independently": True}]}},
            "seed choose the samples",
        ),
        ({"data": {"name": "phantom", "hidden": [{"labels": ["LA"], "share": 1.5}]}}, "less than or equal to 1"),
        ({"data": {"name": "phantom", "hidden": [{"labels": ["LA"], "domains": []}]}}, "at least 1"),
        ({"seeds": [1, 1]}, "seeds must all differ"),
        ({"seeds": []}, "at least 1"),
        ({"strategies": [{"name": "a", "loss": "ce"}, {"name": "a", "loss": "bce"}]}, "strategies must all differ"),
        ({"strategies": [{"name": "a+b", "loss": "ce"}, {"name": "a b", "loss": "ce"}]}, "more than punctuation"),
        ({"strategies": [{"name": "full", "loss": "ce"}]}, "is named 'full'"),
        ({"strategies": [{"name": "all", "loss": "ce", "full_labels": True}]}, "is named 'full'"),
        ({"training": {"epoch": 3}}, "epoch"),
        ({"training": {"epochs": 0}}, "greater than 0"),
        ({"augmentation": {"probability": 1.5}}, "less than or equal to 1"),
    ],
)
def test_wrong_suites_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SuiteConfig.model_validate(SUITE | change)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "result.json"
    records.write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        records.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_results_csv_has_the_promised_columns_and_an_empty_field_for_no_value() -> None:
    text = records.results_csv([_row(0.25), _row(None)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert [row["value"] for row in rows] == ["0.25", ""]
    assert rows[0]["class"] == "LA"
    assert rows[0]["annotated"] == "True"


def test_cases_survive_csv(tmp_path: Path) -> None:
    run = SuiteConfig.model_validate(SUITE).runs()[0]
    shared = {"patient": "p", "domain": "B", "class": "LA", "hd95": 2.5, "nsd": 1, "ece": 1e-7, "brier": None}
    rows = tuple(
        CaseRow.model_validate({**shared, "case": f"a, {i}", "dice": value, "size": size})
        for i, (value, size) in enumerate([(0.3, 12345678), (None, 0), (0.0, None)])
    )
    with pytest.raises(FileNotFoundError):
        records.read_cases(tmp_path, run)
    records.write_text(records.run_directory(tmp_path, run) / "cases.csv", records.cases_csv(rows))
    assert records.read_cases(tmp_path, run) == rows
    third = rows[0].model_copy(update={"dice": 1 / 3})
    assert "0.333333," in records.cases_csv([third])  # six digits


def test_examples_survive_their_file(tmp_path: Path) -> None:
    run = SuiteConfig.model_validate(SUITE).runs()[0]
    assert records.read_examples(tmp_path, run) == ()
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    examples = [
        Example("a/b", "A", ("background", "LV"), image, image % 2, image % 3, {"flip probability": 255 - image}),
        Example("é", "B", ("background", "größer"), image, image, image),
    ]
    records.write_examples(records.run_directory(tmp_path, run), examples)
    for here, there in zip(records.read_examples(tmp_path, run), examples, strict=True):
        assert (here.case, here.domain, here.classes) == (there.case, there.domain, there.classes)
        assert list(here.maps) == list(there.maps)
        for name in ("image", "truth", "prediction"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
        for name, values in there.maps.items():
            np.testing.assert_array_equal(here.maps[name], values)


def test_examples_that_could_run_code_are_not_loaded(tmp_path: Path) -> None:
    run = SuiteConfig.model_validate(SUITE).runs()[0]
    directory = records.run_directory(tmp_path, run)
    directory.mkdir(parents=True)
    np.savez(directory / "examples.npz", **{"0/image": np.array([object()], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        records.read_examples(tmp_path, run)
    np.savez(directory / "examples.npz", **{"0/image": np.zeros((2, 2), np.uint8)})
    with pytest.raises(ValueError, match="an example without 'case'"):
        records.read_examples(tmp_path, run)


def test_failures_survive_json(tmp_path: Path) -> None:
    run = SuiteConfig.model_validate(SUITE).runs()[0]
    assert records.read_failure(tmp_path, run) is None
    records.write_failure(tmp_path, run, "the loss is nan", "Traceback ...")
    failure = records.read_failure(tmp_path, run)
    assert failure is not None
    assert (failure.run, failure.message, failure.traceback) == (run.run, "the loss is nan", "Traceback ...")


def test_the_standard_strategy_must_be_one_of_the_suite() -> None:
    assert SuiteConfig.model_validate(SUITE).standard == "standard"  # no gap is given then
    with pytest.raises(ValidationError, match="standard must be the name of one of the strategies"):
        SuiteConfig.model_validate({**SUITE, "standard": "standrad"})


def test_a_grid_is_every_combination() -> None:
    training = TrainingConfig(epochs=3, grid={"batch_size": (2.0, 4.0), "weight_decay": (0.0, 0.1, 0.2)})
    assert [(p.batch_size, p.weight_decay, p.epochs, p.grid) for p in training.points()] == [
        (size, decay, 3, {}) for size in (2, 4) for decay in (0.0, 0.1, 0.2)
    ]
    assert TrainingConfig().points() == (TrainingConfig(),)
    for grid, message in (
        ({"learning_rate": ()}, "at least one value"),
        ({"learning_rate": (0.1, -1)}, "greater than 0"),
        ({"batch_size": (2.5,)}, "integer"),
        ({"epochs": (2,)}, "Input should be 'learning_rate'"),
    ):
        with pytest.raises(ValidationError, match=message):
            TrainingConfig.model_validate({"grid": grid})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"preset": "nnunet", "scale": 0.1}, "with preset = 'nnunet' there is no scale to choose: leave it out"),
        ({"preset": "nnunet", "blur": 0, "probability": 0.2}, "there is no probability and no blur to choose"),
        ({"mirror": False}, "with no preset there is no mirror to choose"),
        ({"preset": "nnUNet"}, "Input should be 'nnunet'"),
    ],
)
def test_a_preset_leaves_nothing_to_choose(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentationConfig.model_validate(table)
    for fine in ({"preset": "nnunet", "mirror": False}, {"preset": "nnunet", "probability": 0.0}):
        AugmentationConfig.model_validate(fine)


@pytest.mark.parametrize("table", [{}, {"learning_rate": 0.1}, {"grid": {"learning_rate": (0.001, 0.3)}}])
def test_rates_made_for_sgd_are_refused_with_adamw(table: dict[str, object]) -> None:
    message = "learning_rate must be below 0.1 for adamw.*got 0.[13].*write for example learning_rate = 0.001"
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate({"optimizer": "adamw", **table})
    TrainingConfig.model_validate({"optimizer": "adamw", "grid": {"learning_rate": (0.001, 0.0003)}})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "whole", "size": (4, 4)}, "size must have 0 numbers for whole"),
        ({"kind": "box"}, "size must have 2 or 3 numbers for box"),
        ({"kind": "slab", "size": (4, 4, 4)}, "size must have 2 numbers for slab"),
        ({"kind": "slab", "size": (4, 4), "depth": 4}, "an odd depth and different planes, got 4"),
        ({"kind": "slab", "size": (4, 4), "planes": (0, 0)}, "an odd depth and different planes"),
        ({"kind": "slab", "size": (4, 4), "planes": ()}, "an odd depth and different planes"),
    ],
)
def test_patches_that_cannot_be_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PatchConfig.model_validate(table)
