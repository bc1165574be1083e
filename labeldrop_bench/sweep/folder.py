"""A suite's directory: its lock, what it may hold, and the files about all runs together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from labeldrop_bench import records
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import RunConfig, SuiteConfig

REMEDY = "give another directory with --out, or remove this one"


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


def open_(directory: Path, config: SuiteConfig) -> list[RunConfig]:
    """Check what the directory holds, bring its suite files up to date, and list the runs that are not finished.

    Raises:
        SuiteError: it holds another run, or one with another configuration.
    """
    _check(directory, config)
    for leftover in directory.rglob(".*.tmp"):  # of a killed process; the lock says that no other is writing
        leftover.unlink()
    records.write_json(directory / "suite.json", config)
    write_results(directory, config)
    return [c for c in config.runs() if records.read_result(directory, c) is None]


def write_results(directory: Path, config: SuiteConfig) -> None:
    """Bring results.csv up to date with the runs that are finished."""
    results = (records.read_result(directory, c) for c in config.runs())
    rows = [row for result in results if result is not None for row in result.rows]
    records.write_text(directory / "results.csv", records.results_csv(rows))


def _check(directory: Path, config: SuiteConfig) -> None:
    """Every run that the directory holds must be one that is asked for, with the very same configuration."""
    asked = {c.run: c for c in config.runs()}
    for path in sorted((directory / "runs").glob("*/config.json")):
        try:
            found = RunConfig.model_validate_json(path.read_text())
        except ValueError as error:
            raise SuiteError(f"{path} is not a run that this version can read: {REMEDY}\n{error}") from error
        name = path.parent.name
        if name not in asked:
            raise SuiteError(f"{directory} holds run {name!r}, which is not asked for: {REMEDY}")
        there, here = _flat(found.model_dump(mode="json")), _flat(asked[name].model_dump(mode="json"))
        different = [
            f"{key}: {there.get(key)!r} there, {here.get(key)!r} asked for"
            for key in {**there, **here}
            if there.get(key) != here.get(key)
        ]
        if different:
            lines = "\n  ".join(different)
            raise SuiteError(f"{directory} holds results of another configuration: {REMEDY}\n  {lines}")


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
