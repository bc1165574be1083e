"""Suites: one TOML file per experiment, those of this folder by name and anyone's own by path."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import SuiteConfig
from labeldrop_bench.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Suite", "closest", "explain", "load", "names"]


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
    """Read a suite file, apply overrides, check keys and values.

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
    for override in overrides:
        _apply(table, override)
    try:
        return Suite(source, SuiteConfig.model_validate(table))
    except ValidationError as error:
        raise SuiteError(f"{source}: {explain(error, SuiteConfig, table)}") from error


def closest(word: str, known: Iterable[str]) -> str:
    """End of a message about an unknown word: the closest known one, if one is close, and all of them."""
    known = [str(k) for k in known]
    match = difflib.get_close_matches(word, known, n=1)
    return (f"; did you mean {match[0]!r}?" if match else ".") + f" Known: {', '.join(known)}"


def explain(
    error: ValidationError,
    model: type[BaseModel],
    table: Mapping[str, Any],
    prefix: str = "",
    beside: Iterable[str] = (),
) -> str:
    """What a table got wrong, a line for each mistake, by dotted key.

    Args:
        error: from validating the table.
        model: what it was validated by.
        table: names the entries of arrays.
        prefix: dotted key of the table in its file, with a dot at its end.
        beside: keys of the same table that another record has.
    """
    return "\n  ".join(_explain(dict(detail), model, table, prefix, beside) for detail in error.errors())


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


def _found_from(folder: Path, table: Mapping[str, Any]) -> None:
    """Relative paths of annotated_file begin at the suite's folder, in `[data]` and in the conditions."""
    conditions = table.get("conditions")
    for owner in (table, *(conditions if isinstance(conditions, list) else ())):
        data = owner.get("data") if isinstance(owner, dict) else None
        if isinstance(data, dict) and isinstance(path := data.get("annotated_file"), str):
            data["annotated_file"] = str(folder / Path(path).expanduser())


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


def _explain(
    detail: dict[str, Any], model: type[BaseModel], table: Mapping[str, Any], prefix: str, beside: Iterable[str]
) -> str:
    *parents, last = loc = list(detail["loc"]) or [""]
    key = (prefix + ".".join(_dotted(loc, table))).rstrip(".")
    context = detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        # a condition's tables are the suite's own, with some keys changed
        owner = _model_at(model, parents[2:] if parents[:1] == ["conditions"] and parents[2:] else parents)
        fields = owner.model_fields if owner else ()
        return f"{key}: there is no such key{closest(str(last), [*fields, *(() if parents else beside)])}"
    if detail["type"] == "missing":
        return f"{key}: this key is required"
    if detail["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"{key}: there is no choice {detail['input']!r}{closest(str(detail['input']), known)}"
    message = str(context["error"]) if detail["type"] == "value_error" else f"{detail['msg']}, got {detail['input']!r}"
    return f"{key}: {message}" if key else message


def _dotted(loc: Sequence[str | int], table: Any) -> list[str]:  # noqa: ANN401 - whatever TOML holds
    """Parts of a dotted key, an array's entries by name where they have one."""
    parts = []
    for part in loc:
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            table = None
        named = isinstance(part, int) and isinstance(table, dict) and "name" in table
        parts.append(str(table["name"]) if named else str(part))
    return parts


def _model_at(model: type[BaseModel], parts: Sequence[str | int]) -> type[BaseModel] | None:
    """The record that a location within another one belongs to."""
    found: type[BaseModel] | None = model
    for part in parts:
        if isinstance(part, int) or found is None:
            continue  # an entry of an array: its record was found with the array
        field = found.model_fields.get(part)
        found = _record(field.annotation) if field else None
    return found


def _record(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type form
    """The first record inside a type such as tuple[StrategyConfig, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _record(a))), None)
