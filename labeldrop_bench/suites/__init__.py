"""Suites: one TOML file per experiment, those of this folder by name and anyone's own by path."""

from __future__ import annotations

import itertools
import operator
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import SuiteConfig, closest, explain
from labeldrop_bench.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FILLED_IN", "PATHS", "Suite", "fill_in", "load", "names"]


@dataclass(frozen=True)
class Suite:
    """A suite file and what it says.

    Attributes:
        source: the file, for messages.
        config: its contents with `--set` applied.
    """

    source: str
    config: SuiteConfig


def names() -> tuple[str, ...]:
    """Suites that come with the package, in alphabetical order."""
    return tuple(sorted(Path(file.name).stem for file in files(__name__).iterdir() if file.name.endswith(".toml")))


def load(suite: str, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file, apply overrides, fill in what was left out, check keys and values.

    Whether the data set, the losses and the networks exist is checked by `sweep.prepare`, which has to load them.

    Args:
        suite: name of a suite of the package, or path of a TOML file (anything with a slash or ending in ".toml").
        overrides: "dotted.key=value" in TOML's syntax; a bare word is a string; a strategy is addressed by its name,
            as in 'strategies."adaptive + dropout 0.3".dropout=0.4'.

    Raises:
        SuiteError: no such suite or file, not TOML, an unknown key or a wrong value; names the closest match.
    """
    source, text, folder = _read(suite)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{source}: not a TOML file: {error}") from error
    if folder is not None:
        _found_from(folder, table)
    of_strategies = [_path(override.partition("=")[0])[:1] == ["strategies"] for override in overrides]
    for override in itertools.compress(overrides, map(operator.not_, of_strategies)):
        _apply(table, override)
    fill_in(table, Path(source).stem)
    for override in itertools.compress(overrides, of_strategies):  # also of those that were filled in
        _apply(table, override)
    try:
        return Suite(source, SuiteConfig.model_validate(table))
    except ValidationError as error:
        raise SuiteError(f"{source}: {explain(error, SuiteConfig, table)}") from error


def _read(suite: str) -> tuple[str, str, Path | None]:
    """Name of the file for messages, its text, and its folder if it is not one of the package."""
    if "/" in suite or suite.endswith(".toml"):
        path = Path(suite)
        try:
            return str(path), read_text(path), path.parent
        except OSError as error:
            raise SuiteError(f"{path}: cannot read this suite file: {error}") from error
    if suite not in names():
        raise SuiteError(f"there is no suite {suite!r}{closest(suite, names())}. A file of your own: give its path")
    return f"{suite}.toml", read_text(files(__name__) / f"{suite}.toml"), None


PATHS = ("annotated_file", "root")
"""Keys of `[data]` and of its sources that hold a path."""


def _found_from(folder: Path, table: Mapping[str, Any]) -> None:
    """Relative paths begin at the suite's folder, in `[data]`, its sources and the conditions."""
    owners = [table, *_tables(table.get("conditions"))]
    of_data = _tables([owner.get("data") for owner in owners])
    for given in (*of_data, *(source for data in of_data for source in _tables(data.get("sources")))):
        for key in PATHS:
            if isinstance(path := given.get(key), str):
                given[key] = str(folder / Path(path).expanduser())


def _tables(entries: object) -> list[dict[str, Any]]:
    """The tables in what should be an array of tables."""
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


FILLED_IN = {
    "name": "the name of the file, without `.toml`",
    "title": "`name`",
    "strategies": "`full` where the suite hides something; `standard`, `adaptive`, `adaptive + dropout 0.3`, "
    "`marginal`, `marginal + dropout 0.3`",
}
"""Keys that a suite file may leave out although the record has to have them, and what they are then."""
_FULL: dict[str, Any] = {"name": "full", "loss": "ce", "full_labels": True}
_STRATEGIES: list[dict[str, Any]] = [
    {"name": "standard", "loss": "ce"},
    {"name": "adaptive", "loss": "adaptive_ce"},
    {"name": "adaptive + dropout 0.3", "loss": "adaptive_ce", "dropout": 0.3},
    {"name": "marginal", "loss": "marginal_ce"},
    {"name": "marginal + dropout 0.3", "loss": "marginal_ce", "dropout": 0.3},
]


def fill_in(table: dict[str, Any], stem: str) -> None:
    """Give a suite the keys of `FILLED_IN` that it leaves out.

    Without hidden labels there are no others to train `full` on.
    """
    table.setdefault("name", stem)
    table.setdefault("title", table["name"])
    if "strategies" not in table:
        table["strategies"] = [dict(row) for row in ([_FULL] if _hides(table) else []) + _STRATEGIES]


def _hides(table: Mapping[str, Any]) -> bool:
    """Whether any condition keeps labels from training that are there."""

    def hidden(owner: object) -> Any:  # noqa: ANN401 - whatever TOML holds
        data = owner.get("data") if isinstance(owner, Mapping) else None
        return data.get("hidden") if isinstance(data, Mapping) else None

    conditions = table.get("conditions") or [{}]
    found = [hidden(table) if (own := hidden(c)) is None else own for c in conditions]
    lists = [[*each.values()] if isinstance(each, Mapping) else each for each in found]
    entries = [entry for each in lists if isinstance(each, list) for entry in each]
    return any(e.get("share") != 0 and e.get("labels") if isinstance(e, Mapping) else e for e in entries)


def _apply(table: dict[str, Any], override: str) -> None:
    """Set one key of the table."""
    key, equals, text = override.partition("=")
    path = _path(key)
    if not equals or not path:
        raise SuiteError(f"--set {override!r}: must be key=value with a dotted key, such as training.epochs=5")
    at: Any = table
    for position, part in enumerate(path):
        where = ".".join(path[:position])
        if isinstance(at, list):
            at = _item(at, part, f"--set {key}: {where}")
            continue
        if not isinstance(at, dict):
            raise SuiteError(f"--set {key}: {where} is a value and has no keys, got {at!r}")
        if position == len(path) - 1:
            at[part] = _value(key, text.strip())
            return
        at = at.setdefault(part, {})
    raise SuiteError(f"--set {key}: is a table; set one of its keys, such as {key}.{next(iter(at), 'key')}")


def _path(key: str) -> list[str]:
    """Parts of a dotted key in TOML's syntax; none if it is not one."""
    try:
        at: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return []
    path = []
    while isinstance(at, dict):
        ((part, at),) = at.items()
        path.append(part)
    return path


def _item(tables: list[Any], name: str, where: str) -> Any:  # noqa: ANN401 - whatever TOML holds
    """The table with this name in an array of tables."""
    by_name = {str(item["name"]): item for item in tables if isinstance(item, dict) and "name" in item}
    if name not in by_name:
        raise SuiteError(f"{where} has no entry named {name!r}{closest(name, by_name)}")
    return by_name[name]


def _value(key: str, text: str) -> Any:  # noqa: ANN401 - whatever TOML holds
    """A value in TOML's syntax; what cannot be one, such as a bare word or a path, is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if not text or re.match(r"[\[{\"']", text):
            raise SuiteError(f"--set {key}: {text!r} is no value in TOML's syntax: {error}") from error
        return text
