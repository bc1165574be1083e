"""The files of a suite directory: written whole or not at all, read back as records."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from labeldrop_bench.errors import storage_error
from labeldrop_bench.records.config import RunConfig, SuiteConfig
from labeldrop_bench.records.results import (
    CASE_COLUMNS,
    COLUMNS,
    METRICS,
    CaseRow,
    ResultRow,
    RunFailure,
    RunResult,
)
from labeldrop_bench.text import read_rows, read_text, storable


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 so that it is either wholly there or not there at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same directory, flush to disk, rename.

    Raises:
        StorageError: the disk is full, or the directory cannot be written to. An older file is still there.
    """
    try:
        _write_bytes(path, content)
    except OSError as error:
        raise storage_error(error, path) or error from error


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, record: BaseModel) -> None:
    """Write a record as indented JSON."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_suite(directory: Path) -> SuiteConfig:
    """The suite that a directory was made by."""
    return SuiteConfig.model_validate_json(read_text(directory / "suite.json"))


def run_directory(directory: Path, config: RunConfig) -> Path:
    """Where a run keeps its files inside its suite's directory."""
    return directory / "runs" / config.run


def read_result(directory: Path, config: RunConfig) -> RunResult | None:
    """The result of a run, or None if it is not finished."""
    path = run_directory(directory, config) / "result.json"
    return RunResult.model_validate_json(read_text(path)) if path.exists() else None


def write_failure(directory: Path, config: RunConfig, message: str, traceback: str) -> None:
    """Write why a run could not go on into its directory."""
    failure = RunFailure(run=config.run, message=storable(message), traceback=storable(traceback))
    write_json(run_directory(directory, config) / "failure.json", failure)


def read_failure(directory: Path, config: RunConfig) -> RunFailure | None:
    """Why a run could not go on; None if it has not failed."""
    path = run_directory(directory, config) / "failure.json"
    return RunFailure.model_validate_json(read_text(path)) if path.exists() else None


def results_csv(rows: Iterable[ResultRow]) -> str:
    """Rows as the text of results.csv; a value that does not exist is an empty field."""
    return to_csv(COLUMNS, (row.model_dump(by_alias=True) for row in rows))


def cases_csv(rows: Iterable[CaseRow]) -> str:
    """Rows as the text of cases.csv: six significant digits; a value that does not exist is an empty field."""
    return to_csv(CASE_COLUMNS, ({**row.model_dump(by_alias=True), **_short(row)} for row in rows))


def _short(row: CaseRow) -> dict[str, str | None]:
    values = {name: getattr(row, name) for name in METRICS}
    return {name: None if value is None else f"{value:.6g}" for name, value in values.items()}


def read_cases(directory: Path, config: RunConfig) -> tuple[CaseRow, ...]:
    """The test cases of a finished run.

    Raises:
        FileNotFoundError: the run is not finished.
        ValueError: the file does not hold what it should.
    """
    rows = read_rows(run_directory(directory, config) / "cases.csv")
    return tuple(CaseRow.model_validate({key: value or None for key, value in row.items()}) for row in rows)


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV text with a header; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
