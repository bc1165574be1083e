"""What the type of a key is called and what the key means, in words: for messages and for the reference page."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_SECTION = re.compile(r"^Attributes:\n((?: {4}.*\n|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*\n(?: {5,}.*\n)*)", re.MULTILINE)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 6: "six"}


class Said(str):
    """In an annotation: what the type is called, where its parts do not tell what it takes."""


class Noun(NamedTuple):
    """One thing of a type, and several."""

    one: str
    more: str


_PLAIN: dict[Any, Noun] = {
    bool: Noun("true or false", "true or false"),
    str: Noun("text in quotes", "texts in quotes"),
    Path: Noun("a path in quotes", "paths in quotes"),
    Any: Noun("a value", "values"),
    dict: Noun("a table", "tables"),
}
_NUMBERS = {int: Noun("a whole number", "whole numbers"), float: Noun("a number", "numbers")}


def words(annotation: Any, metadata: Iterable[object] = ()) -> str:  # noqa: ANN401 - any type form
    """What a value of a type is, as in "must be a whole number from 1 up"; None goes without saying.

    Args:
        annotation: the type, as a field of a record has it.
        metadata: what `Annotated` says beside it.

    Raises:
        TypeError: a type that no suite file has had so far; give it its words here, or `Said` beside it.
    """
    return _noun(annotation, metadata).one


def words_of(field: FieldInfo) -> str:
    """`words` of a field's type."""
    return words(field.annotation, field.metadata)


def plain(annotation: Any) -> tuple[Any, tuple[object, ...]]:  # noqa: ANN401 - any type form
    """A type without `Annotated` and `| None`, and what `Annotated` says of it."""
    metadata: tuple[object, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
            continue
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if not _is_union(annotation) or len(kinds) > 1:
            return annotation, metadata
        (annotation,) = kinds


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> what its record's docstring says of it under `Attributes:`, or that of a base, in one line."""
    found: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        text = inspect.cleandoc(vars(ancestor).get("__doc__") or "") + "\n"
        for section in _SECTION.findall(text):
            for names, meaning in _ENTRY.findall(section):
                found |= dict.fromkeys(names.split(", "), " ".join(meaning.split()))
    return {name: found[name] for name in model.model_fields if name in found}


def toml(value: object) -> str:
    """A value as a suite file has it."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(str(key))} = {toml(v)}" for key, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, (str, Path)):
        # JSON's escapes are TOML's, which also wants DEL escaped
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value) if isinstance(value, bool) else str(value)


def toml_key(name: str) -> str:
    """A key as a suite file has it: in quotes where TOML wants them."""
    return name if _BARE.fullmatch(name) else toml(name)


def _is_union(annotation: Any) -> bool:  # noqa: ANN401 - any type form
    return get_origin(annotation) in (Union, UnionType)


def _noun(annotation: Any, metadata: Iterable[object] = ()) -> Noun:  # noqa: ANN401 - any type form
    bare, more = plain(annotation)
    said = [*_flat(metadata), *_flat(more)]
    if names := [text for text in said if isinstance(text, Said)]:
        return Noun(names[0], names[0])
    if _is_union(bare):
        kinds = [_noun(kind) for kind in get_args(bare) if kind is not type(None)]
        return Noun(" or ".join(k.one for k in kinds), " or ".join(k.more for k in kinds))
    limits = {name: v for s in said for name in _LIMITS if (v := getattr(s, name, None)) is not None}
    if bare in _NUMBERS:
        within = _range(limits, whole=bare is int)
        return Noun(*(f"{noun} {within}".rstrip() for noun in _NUMBERS[bare]))
    origin = get_origin(bare)
    if origin is Literal:
        return Noun(*[_either([toml(choice) for choice in get_args(bare)])] * 2)
    if origin is tuple:
        return _list(get_args(bare), limits)
    if origin is dict:
        return _table(*get_args(bare), at_least_one="min_length" in limits)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return _PLAIN[dict]
    if bare in _PLAIN:
        return _PLAIN[bare]
    raise TypeError(f"words: there are none for {annotation!r}")


_LIMITS = ("ge", "gt", "le", "lt", "min_length", "max_length")


def _flat(metadata: Iterable[object]) -> list[object]:
    """A `Field(...)` inside of `Annotated` holds what it says in a list of its own."""
    return [inner for each in metadata for inner in (each.metadata if isinstance(each, FieldInfo) else [each])]


def _range(limits: Mapping[str, Any], *, whole: bool) -> str:
    low, high = limits.get("ge"), limits.get("le")
    if whole:  # neighbours of a bound that does not belong to the range do
        low = limits["gt"] + 1 if "gt" in limits else low
        high = limits["lt"] - 1 if "lt" in limits else high
    above, below = (None, None) if whole else (limits.get("gt"), limits.get("lt"))
    if low is not None and high is not None:
        return f"from {low} to {high}"
    begin = f"above {above}" if above is not None else f"from {low}" if low is not None else ""
    end = f"below {below}" if below is not None else f"at most {high}" if high is not None else ""
    if begin and end:
        return f"{begin}, {end}"
    return end or (f"{begin} up" if begin.startswith("from") else begin)


def _list(kinds: Sequence[Any], limits: Mapping[str, Any]) -> Noun:
    """A tuple of any length, or of one length whose entries are all alike."""
    entries = _noun(kinds[0]).more
    if kinds[-1] is not Ellipsis:
        counted = f"{_COUNTS[len(kinds)]} {entries}"
    elif "max_length" in limits:
        counted = f"{_either([_COUNTS[n] for n in range(limits['min_length'], limits['max_length'] + 1)])} {entries}"
    else:
        counted = ("one or more " if "min_length" in limits else "") + entries
    return Noun(f"a list of {counted}", f"lists of {counted}")


def _table(key: Any, value: Any, *, at_least_one: bool) -> Noun:  # noqa: ANN401 - any type form
    keys, _ = plain(key)
    if value is Any:
        return _PLAIN[dict]
    names = _noun(keys).one if get_origin(keys) is Literal else "NAME"
    text = f"of {'one or more ' * at_least_one}{names} = {words(value)}"
    return Noun(f"a table {text}", f"tables {text}")


def _either(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if choices[1:] else choices)
