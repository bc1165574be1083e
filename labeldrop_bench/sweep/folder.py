"""A suite's directory: its lock, what it may hold, and the files about all runs together."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import RootModel

from labeldrop_bench import records
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import RunConfig, SuiteConfig
from labeldrop_bench.sweep.checks import Precision
from labeldrop_bench.text import read_text

REMEDY = "give another directory with --out, or remove this one"
PRECISION = "precision.json"


class _Kept(RootModel[dict[str, Precision]]):
    """precision.json: device -> precision."""


@contextmanager
def locked(directory: Path, first: bool) -> Iterator[None]:
    """Nobody else may work in the directory. The system lets go of the lock when the process ends, however it ends.

    Args:
        directory: made if need be.
        first: whether this is the first of the processes that share the work; the others rely on it.

    Raises:
        SuiteError: somebody else is at work.
    """
    if not first:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise SuiteError(
            f"{directory} is in use by another process: wait for it to end, or give another directory with --out"
        ) from error


def open_(directory: Path, config: SuiteConfig, note: Callable[[str], None]) -> list[RunConfig]:
    """Check what the directory holds, bring its suite files up to date, and list the runs that are not finished.

    A run whose results are damaged is not finished: it is done again, from its best epoch if that is still there.

    Args:
        directory: the suite's.
        config: the suite, with the data set's own defaults filled in.
        note: told which file is damaged.

    Raises:
        SuiteError: it holds another run, or one with another configuration.
    """
    _check(directory, config)
    for leftover in directory.rglob(".*.tmp"):  # of a killed process; the lock says that no other is writing
        leftover.unlink()
    records.write_json(directory / "suite.json", config)
    for run in config.runs():
        problem = _damage(directory, run)
        if problem:
            note(f"{problem}. Run {run.run} is done again")
            (records.run_directory(directory, run) / "result.json").unlink()
    write_results(directory, config)
    return [c for c in config.runs() if records.read_result(directory, c) is None]


def kept_precision(directory: Path, device: str) -> Precision | None:
    """What an earlier call computed with on such a device, so that all runs of a directory are alike; None before.

    Raises:
        SuiteError: the file cannot be read.
    """
    path = directory / PRECISION
    if not path.exists():
        return None
    try:
        return _Kept.model_validate_json(read_text(path)).root.get(device)
    except ValueError as error:
        raise SuiteError(
            f"{path} does not hold a precision for each device: remove it, and it is chosen anew\n{error}"
        ) from error


def keep_precision(directory: Path, device: str, precision: Precision) -> None:
    """Let later calls do as this one."""
    if kept_precision(directory, device) is None:
        path = directory / PRECISION
        others = _Kept.model_validate_json(read_text(path)).root if path.exists() else {}
        records.write_json(path, _Kept({**others, device: precision}))


def write_results(directory: Path, config: SuiteConfig) -> None:
    """Bring results.csv up to date with the runs that are finished."""
    results = (records.read_result(directory, c) for c in config.runs())
    rows = [row for result in results if result is not None for row in result.rows]
    records.write_text(directory / "results.csv", records.results_csv(rows))


def _damage(directory: Path, run: RunConfig) -> str:
    """Which file of a run cannot be what the run has written, and why; empty if all is well or it has not finished."""
    here = records.run_directory(directory, run)
    path = here / "result.json"
    try:
        result = records.read_result(directory, run)
        if result is None:
            return ""
        if result.run != run.run:
            raise ValueError(f"of run {result.run!r}")
        path = here / "cases.csv"
        wrong = records.disagreements(run, result, records.read_cases(directory, run))
        if wrong:
            return f"{path} does not fit result.json in {len(wrong)} places: {wrong[0]}"
        path = here / "examples.npz"
        records.read_examples(directory, run)
    except (ValueError, FileNotFoundError, csv.Error) as error:
        return f"{path} is damaged: {str(error).splitlines()[0]}"
    return ""


def _check(directory: Path, config: SuiteConfig) -> None:
    """Every run that the directory holds must be one that is asked for, with the very same configuration."""
    asked = {c.run: c for c in config.runs()}
    for path in sorted((directory / "runs").glob("*/config.json")):
        try:
            found = RunConfig.model_validate_json(read_text(path))
        except ValueError as error:
            raise SuiteError(f"{path} is not a run that this version can read: {REMEDY}\n{error}") from error
        name = path.parent.name
        if name not in asked:
            raise SuiteError(f"{directory} holds run {name!r}, which is not asked for: {REMEDY}")
        different = records.differences(found, asked[name])
        if different:
            lines = "\n  ".join(f"{key}: {there!r} there, {here!r} asked for" for key, there, here in different)
            raise SuiteError(f"{directory} holds results of another configuration: {REMEDY}\n  {lines}")
