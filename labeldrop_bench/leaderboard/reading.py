"""Read a suite directory, and say which file is at fault and what to do if it cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labeldrop_bench import records
from labeldrop_bench.records import METRICS, CaseRow, Example, ResultRow, RunConfig, RunFailure, RunResult, SuiteConfig
from labeldrop_bench.text import read_rows

METRIC = "dice"  # what strategies are ranked by
DIRECTION = METRICS[METRIC].direction

Position = tuple[str, str]  # domain, class


@dataclass(frozen=True)
class Validation:
    """What history.csv says of an epoch that was validated.

    Attributes:
        epoch: counted from 1.
        dice: against what is annotated; None if there was nothing to compare with.
        truth: against all that is known, without label noise; None where that was not recorded.
    """

    epoch: int
    dice: float | None
    truth: float | None


class LeaderboardError(ValueError):
    """A leaderboard cannot be made from a directory; the message names the file and what to do."""


def read_suite(directory: Path) -> SuiteConfig:
    """The suite of a directory.

    Raises:
        LeaderboardError: no such directory, no suite.json, or not a suite.
    """
    path = directory / "suite.json"
    if not path.is_file():
        what = "holds no suite.json" if directory.is_dir() else "is not a directory"
        raise LeaderboardError(
            f"leaderboard: {directory} {what}: give the directory that `labeldrop-bench run SUITE --out DIR` wrote"
        )
    try:
        return records.read_suite(directory)
    except (OSError, ValueError) as error:
        raise LeaderboardError(
            f"leaderboard: {path} is not a suite that this version can read: restore the file, or remove the "
            f"directory and run the suite again\n{error}"
        ) from error


def read_result(directory: Path, run: RunConfig) -> RunResult | None:
    """The result of a run, None if it has not finished.

    Raises:
        LeaderboardError: the file is no result, is another run's, or gives a metric of a cell twice.
    """
    path = records.run_directory(directory, run) / "result.json"
    remedy = _remedy(path)
    try:
        result = records.read_result(directory, run)
    except (OSError, ValueError) as error:
        raise LeaderboardError(f"leaderboard: {path} cannot be read: {remedy}\n{error}") from error
    if result is None:
        return None
    expected = (run.run, run.strategy.name, run.seed)
    for row in result.rows:
        if (row.run, row.strategy, row.seed) != expected:
            raise LeaderboardError(
                f"leaderboard: {path} must hold rows of (run, strategy, seed) = {expected}, "
                f"got {(row.run, row.strategy, row.seed)}: {remedy}"
            )
    counts = Counter((row.metric, *position(row)) for row in result.rows)
    repeated = [place for place, count in counts.items() if count > 1]
    if repeated:
        raise LeaderboardError(
            f"leaderboard: {path} must give each (metric, domain, class) once, "
            f"got {sorted(repeated)} more than once: {remedy}"
        )
    return result


def read_cases(directory: Path, run: RunConfig) -> tuple[CaseRow, ...]:
    """The metrics of the test cases of a finished run.

    Raises:
        LeaderboardError: the file is not there, or does not hold what it should, or holds a case twice.
    """
    path = records.run_directory(directory, run) / "cases.csv"
    try:
        rows = records.read_cases(directory, run)
    except (OSError, ValueError, KeyError) as error:
        raise LeaderboardError(f"leaderboard: {path} cannot be read: {_remedy(path)}\n{error}") from error
    repeated = [place for place, count in Counter((row.case, row.class_) for row in rows).items() if count > 1]
    if repeated:
        raise LeaderboardError(
            f"leaderboard: {path} must give each (case, class) once, got {sorted(repeated)[:3]} more than once: "
            f"{_remedy(path)}"
        )
    return rows


def read_failure(directory: Path, run: RunConfig) -> RunFailure | None:
    """Why a run could not go on; None if it has not failed.

    Raises:
        LeaderboardError: the file does not hold what it should.
    """
    try:
        return records.read_failure(directory, run)
    except (OSError, ValueError) as error:
        path = records.run_directory(directory, run) / "failure.json"
        raise LeaderboardError(f"leaderboard: {path} cannot be read: {_remedy(path)}\n{error}") from error


def read_examples(directory: Path, run: RunConfig) -> tuple[Example, ...]:
    """The example images of a finished run; none if it kept none.

    Raises:
        LeaderboardError: the file does not hold what it should.
    """
    try:
        return records.read_examples(directory, run)
    except (OSError, ValueError) as error:
        path = records.run_directory(directory, run) / "examples.npz"
        raise LeaderboardError(f"leaderboard: {path} cannot be read: {_remedy(path)}\n{error}") from error


def read_history(directory: Path, run: RunConfig) -> tuple[Validation, ...]:
    """The epochs of a run that were validated; none if it has not begun. The run need not be finished.

    Raises:
        LeaderboardError: the file does not hold what it should.
    """
    path = records.run_directory(directory, run) / "history.csv"
    if not path.exists():
        return ()
    try:
        epochs = [
            Validation(int(row["epoch"]), _number(row["validation_dice"]), _number(row["truth_dice"]))
            for row in read_rows(path)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LeaderboardError(f"leaderboard: {path} cannot be read: {_remedy(path)}\n{error!r}") from error
    return tuple(epoch for epoch in epochs if epoch.dice is not None or epoch.truth is not None)


def _number(field: str) -> float | None:
    return float(field) if field else None


def _remedy(path: Path) -> str:
    return f"remove {path.parent} and call `labeldrop-bench run` again, which repeats this run only"


def position(row: ResultRow) -> Position:
    """(domain, class) of a row."""
    return row.domain, row.class_


def dice_rows(result: RunResult) -> Iterable[ResultRow]:
    """The rows of the metric that decides."""
    return (row for row in result.rows if row.metric == METRIC)
