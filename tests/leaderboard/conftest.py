"""Synthetic suite directories, written with the records themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from labeldrop_bench import records
from labeldrop_bench.leaderboard import Board, Leaderboard, load
from labeldrop_bench.records import CaseRow, ResultRow, RunConfig, RunResult, StepCost, SuiteConfig

CELLS = (("A", "LV"), ("A", "LA"), ("B", "LV"), ("B", "LA"))

# Dice of (strategy, seed) in the four cells. Means and deviations can be worked out by hand, and the two strategies
# change places between the unannotated cell (the last) and the mean of all.
DICE: dict[tuple[str, int], tuple[float | None, ...]] = {
    ("full", 0): (0.90, 0.80, 0.90, 0.80),
    ("full", 1): (0.92, 0.84, 0.92, 0.84),
    ("adaptive", 0): (0.90, 0.80, 0.90, 0.20),
    ("adaptive", 1): (0.90, 0.80, 0.90, 0.40),
    ("marginal + dropout", 0): (0.60, 0.40, 0.60, 0.60),
    ("marginal + dropout", 1): (0.60, 0.40, 0.60, 0.70),
}
OTHERS = {"hd95": 7.0, "nsd": 0.75, "ece": 0.0625, "brier": 0.125}  # in all cells
SUITE = {
    "name": "tiny",
    "title": "A tiny suite",
    "description": "Made for tests.",
    "seeds": [0, 1],
    "data": {"name": "phantom", "hidden": {"B": ["LA"]}, "gap": 1.0},
    "strategies": [
        {"name": "adaptive", "loss": "adaptive_ce"},
        {"name": "marginal + dropout", "loss": "marginal_ce", "dropout": 0.3},
        {"name": "full", "loss": "ce", "full_labels": True},
    ],
}

Dice = Mapping[tuple[str, int], tuple[float | None, ...]]
MakeDirectory = Callable[..., Path]


def _rows(run: RunConfig, values: Mapping[tuple[str, str], float | None]) -> list[ResultRow]:
    """Dice rows of a run, each with rows of the other metrics, and of one that the leaderboard does not know."""
    strategy, data = run.strategy, run.data
    shared = {
        "suite": run.suite, "run": run.run, "strategy": strategy.name, "loss": strategy.loss,
        "dropout": strategy.dropout, "seed": run.seed,
    }  # fmt: skip
    rows = []
    for (domain, name), value in values.items():
        annotated = strategy.full_labels or data.trains_on(domain, name)
        place = {**shared, "domain": domain, "class": name, "annotated": annotated}
        images = 0 if value is None else 40 if domain == "A" else 30 + run.seed
        rows.append(ResultRow.model_validate({**place, "metric": "dice", "value": value, "n": images}))
        for metric, other in {**OTHERS, "jaccard": 0.5}.items():
            known = None if value is None else other
            rows.append(ResultRow.model_validate({**place, "metric": metric, "value": known, "n": images}))
    return rows


def _cases(values: Mapping[tuple[str, str], float | None]) -> list[CaseRow]:
    """Two cases of each of two patients in each domain, all as the mean says."""
    return [
        CaseRow.model_validate(
            {"domain": domain, "class": name, "case": f"{domain}{i}", "patient": f"{domain}{i // 2}", "dice": value}
            | {metric: None if value is None else other for metric, other in OTHERS.items()}
            | {"size": 0 if value is None else round(100 * value)}
        )
        for (domain, name), value in values.items()
        for i in range(4)
    ]


@pytest.fixture(scope="session")
def make_directory(tmp_path_factory: pytest.TempPathFactory) -> MakeDirectory:
    """Function that writes a new suite directory: `dice` holds the finished runs, `changes` edit the suite."""

    def make(dice: Dice = DICE, **changes: object) -> Path:
        directory = tmp_path_factory.mktemp("suite")
        suite = SuiteConfig.model_validate(SUITE | changes)
        records.write_json(directory / "suite.json", suite)
        for run in suite.runs():
            values = dice.get((run.strategy.name, run.seed))
            if values is None:
                continue
            result = RunResult(
                run=run.run,
                rows=tuple(_rows(run, dict(zip(CELLS, values, strict=True)))),
                best_epoch=3,
                validation_dice=0.9,
                seconds=10.0,
                cost=StepCost(seconds=0.001 * (1 + run.seed), peak_bytes=(4 + run.seed) << 20, rounds=9, shape=(8, 4)),
                split="0" * 64,
                environment={"torch": "2.13.0", "device": f"cpu{run.seed}"},
            )
            where = records.run_directory(directory, run)
            records.write_text(where / "cases.csv", records.cases_csv(_cases(dict(zip(CELLS, values, strict=True)))))
            records.write_json(where / "result.json", result)
        return directory

    return make


@pytest.fixture(scope="session")
def dice() -> dict[tuple[str, int], tuple[float | None, ...]]:
    """The finished runs of the default directory, to take away from or to change; a fresh copy is not needed."""
    return DICE


@pytest.fixture(scope="session")
def whole(make_directory: MakeDirectory) -> Leaderboard:
    """The leaderboard of the default directory, everything finished."""
    return load(make_directory())


@pytest.fixture(scope="session")
def board(whole: Leaderboard) -> Board:
    """Its only board."""
    return whole.boards[0]


@pytest.fixture(scope="session")
def half(make_directory: MakeDirectory) -> Leaderboard:
    """A leaderboard while training: seed 1 of marginal is missing, adaptive has not begun."""
    finished = {run: values for run, values in DICE.items() if run[0] == "full" or run == ("marginal + dropout", 0)}
    return load(make_directory(finished))


@pytest.fixture(scope="session")
def half_board(half: Leaderboard) -> Board:
    """Its only board."""
    return half.boards[0]
