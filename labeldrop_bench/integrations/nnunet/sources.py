"""Who annotated what, as a person writes it: patterns on the names of cases, or a table."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from labeldrop_bench.text import read_rows

from .annotations import AnnotationError, closest

YES, NO = {"1", "1.0", "yes", "y", "true", "x"}, {"", "0", "0.0", "no", "n", "false", "-"}
CASE, LABELS = "case", ("labels", "label")


def from_patterns(sources: Sequence[str], cases: Collection[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Case -> labels, and case -> pattern, from texts such as "EchoNet_*=LV" or "CAMUS_*=LV,LVM,LA".

    Raises:
        AnnotationError: a text of another form, a pattern that fits no case, or a case that two patterns fit.
    """
    found: dict[str, list[str]] = {}
    by: dict[str, str] = {}
    for source in sources:
        pattern, equals, names = source.rpartition("=")
        if not equals or not pattern:
            raise AnnotationError(
                f"--source-pattern must be 'PATTERN=LABEL,LABEL', as in --source-pattern 'EchoNet_*=LV', got {source!r}"
            )
        chosen = [case for case in cases if fnmatchcase(case, pattern)]
        if not chosen:
            raise AnnotationError(
                f"--source-pattern {source!r}: no case fits {pattern!r}{closest(pattern, cases)}; cases: {some(cases)}"
            )
        for case in chosen:
            if case in by:
                raise AnnotationError(
                    f"--source-pattern: case {case!r} fits {by[case]!r} and {pattern!r}: make the patterns "
                    f"exclude each other"
                )
            by[case], found[case] = pattern, split(names)
    return found, by


def from_table(path: Path, labels: Sequence[str]) -> dict[str, list[str]]:
    """Case -> labels, from a CSV file with a column `case` in one of two forms.

    With a column `labels` (or `label`), which has names with ; or , between them; rows of one case add up. Or with a
    column for each label, which has 1 or yes where it was annotated, and 0, no or nothing where not.

    Raises:
        AnnotationError: other columns, or cells that say neither yes nor no.
        OSError: it cannot be read.
    """
    rows = read_rows(path)
    columns = list(rows.fieldnames or [])
    if CASE not in columns:
        raise AnnotationError(f"{path}: the first line must name the columns, one of them {CASE!r}, got {columns}")
    listing = next((name for name in LABELS if name in columns and name not in labels), None)
    found: dict[str, list[str]] = {}
    for row in rows:
        case = (row[CASE] or "").strip()
        if listing:
            found.setdefault(case, []).extend(split(row[listing] or ""))
        elif case in found:
            raise AnnotationError(f"{path}, line {rows.line_num}: case {case!r} has a row already")
        else:
            found[case] = _marked(row, labels, f"{path}, line {rows.line_num}")
    return found


def _marked(row: Mapping[str | None, str | None], labels: Sequence[str], where: str) -> list[str]:
    """The labels whose columns say yes."""
    found = []
    for name, cell in row.items():
        if name == CASE:
            continue
        if name is None or name not in labels:
            raise AnnotationError(
                f"{where}: column {name!r} is neither {CASE!r}, 'labels' nor a label{closest(str(name), labels)}; "
                f"labels: {', '.join(labels[1:])}"
            )
        answer = (cell or "").strip().lower()
        if answer not in YES | NO:
            raise AnnotationError(f"{where}: column {name!r} must say 1 or 0 (yes or no), got {cell!r}")
        found += [name] if answer in YES else []
    return found


def split(names: str) -> list[str]:
    """The names in a text with ; or , between them."""
    return [name.strip() for name in re.split(r"[;,]", names) if name.strip()]


def some(names: Collection[str], shown: int = 4) -> str:
    """The first names and the last one."""
    ordered = sorted(names)
    return ", ".join(ordered if len(ordered) <= shown + 1 else [*ordered[:shown], "...", ordered[-1]])
