"""Synthetic suite directories, written with the records themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from labeldrop_bench import records
from labeldrop_bench.records import ResultRow, RunConfig, RunResult, SuiteConfig

CELLS = (("A", "LV"), ("A", "LA"), ("B", "LV"), ("B", "LA"))
ENVIRONMENT = {"python": "3.11.1", "torch": "2.13.0", "device": "cpu"}

# Dice of (strategy, seed) in the four cells, chosen so that means and deviations can be worked out by hand.
DICE: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("full", 0): (0.90, 0.80, 0.90, 0.80),
    ("full", 1): (0.92, 0.84, 0.92, 0.84),
    ("adaptive", 0): (0.90, 0.80, 0.90, 0.20),
    ("adaptive", 1): (0.90, 0.80, 0.90, 0.40),
    ("marginal + dropout", 0): (0.80, 0.70, 0.90, 0.60),
    ("marginal + dropout", 1): (0.80, 0.70, 0.90, 0.70),
}
STRATEGIES = (
    {"name": "adaptive", "loss": "adaptive_ce"},
    {"name": "marginal + dropout", "loss": "marginal_ce", "dropout": 0.3},
    {"name": "full", "loss": "ce", "full_labels": True},
)


def make_suite(**changes: object) -> SuiteConfig:
    """Two domains, LV and LA, the LA undrawn in B, seeds 0 and 1; `full` last in the file."""
    content = {
        "name": "tiny",
        "title": "A tiny suite",
        "description": "Made for tests.",
        "seeds": [0, 1],
        "data": {"name": "phantom", "drawn": {"B": ["LV"]}, "gap": 1.0},
        "strategies": STRATEGIES,
    }
    return SuiteConfig.model_validate(content | changes)


def make_rows(run: RunConfig, values: Mapping[tuple[str, str], float | None]) -> list[ResultRow]:
    """Dice rows of a run, a row of another metric among them; 40 images, or none where there is no value."""
    strategy, drawn = run.strategy, run.data.drawn
    shared = {"suite": run.suite, "run": run.run, "strategy": strategy.name, "loss": strategy.loss, "seed": run.seed}
    rows = []
    for (domain, name), value in values.items():
        annotated = strategy.full_labels or domain not in drawn or name in drawn[domain]
        place = {**shared, "dropout": strategy.dropout, "domain": domain, "class": name, "annotated": annotated}
        rows.append(ResultRow.model_validate({**place, "metric": "dice", "value": value, "n": 0 if value is None else 40}))
        rows.append(ResultRow.model_validate({**place, "metric": "hausdorff95", "value": 7.0, "n": 40}))
    return rows


def write_run(directory: Path, run: RunConfig, rows: list[ResultRow]) -> Path:
    """Write a run's result.json and give its path."""
    result = RunResult(
        run=run.run, rows=tuple(rows), best_epoch=3, validation_dice=0.9, seconds=10.0, environment=ENVIRONMENT
    )
    path = records.run_directory(directory, run) / "result.json"
    records.write_json(path, result)
    return path


Dice = Mapping[tuple[str, int], tuple[float | None, ...]]
MakeDirectory = Callable[..., Path]


@pytest.fixture
def make_directory(tmp_path: Path) -> MakeDirectory:
    """Function that writes a suite directory: `dice` gives the runs that have finished, `changes` edit the suite."""

    def make(dice: Dice = DICE, name: str = "suite", **changes: object) -> Path:
        directory = tmp_path / name
        suite = make_suite(**changes)
        records.write_json(directory / "suite.json", suite)
        for run in suite.runs():
            values = dice.get((run.strategy.name, run.seed))
            if values is not None:
                write_run(directory, run, make_rows(run, dict(zip(CELLS, values, strict=True))))
        return directory

    return make
