"""Read a suite directory, and say which file is at fault and what to do if it cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from labeldrop_bench import records
from labeldrop_bench.records import ResultRow, RunConfig, RunResult, SuiteConfig

METRIC = "dice"
DIRECTION = "higher is better"

Position = tuple[str, str]  # domain, class


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
        LeaderboardError: the file is no result, is another run's, or gives the Dice of a cell twice.
    """
    path = records.run_directory(directory, run) / "result.json"
    remedy = f"remove {path.parent} and call `labeldrop-bench run` again, which repeats this run only"
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
    repeated = [place for place, count in Counter(map(position, dice_rows(result))).items() if count > 1]
    if repeated:
        raise LeaderboardError(
            f"leaderboard: {path} must give Dice once for each (domain, class), "
            f"got {sorted(repeated)} more than once: {remedy}"
        )
    return result


def position(row: ResultRow) -> Position:
    """(domain, class) of a row."""
    return row.domain, row.class_


def dice_rows(result: RunResult) -> Iterable[ResultRow]:
    """The rows of the metric that the leaderboard shows."""
    return (row for row in result.rows if row.metric == METRIC)
