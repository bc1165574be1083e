"""What is wrong with a table of a suite file: the key, what it has to be, and what was found."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from labeldrop_bench.records.config import TABLES, ConditionConfig, SuiteConfig
from labeldrop_bench.records.words import Said, meanings, plain, toml, toml_key, words

_LONGEST = 200  # characters of a value that are shown


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

    A record that has keys of another one beside its own says which by a class method `beside(table)`.

    Args:
        error: from validating the table.
        model: what it was validated by.
        table: the table itself, as it was read.
        prefix: dotted key of the table in its file, with a dot at its end.
        beside: keys of the same table that another record has.
    """
    details = error.errors()
    deeper = {detail["loc"][:n] for detail in details for n in range(len(detail["loc"]))}
    places = [
        (detail, _find(detail, model, table, tuple(beside)))
        for detail in details
        if not (detail["type"] == "too_short" and detail["loc"] in deeper)  # by the entries that are wrong themselves
    ]
    meant = {(*place.at[:-1], near) for d, place in places if d["type"] == "extra_forbidden" for near in place.near}
    lines = [
        _line(dict(detail), place, prefix)
        for detail, place in places
        if not (detail["type"] == "missing" and place.at in meant)  # it is there, under a misspelt name
    ]
    return "\n  ".join(dict.fromkeys(lines))


@dataclass(frozen=True)
class _Place:
    """Where an error lies, followed into the table as far as its records, lists and tables of one kind go.

    Attributes:
        at: parts of the key, as they stand in the table.
        names: the same, for people: entries of a list by name where they have one.
        kind: annotation and metadata of what has to be there; None where no key of this name is known.
        found: what is there.
        whole: the error is of the place itself, and not of a part of it that has no place of its own.
        known: names that there could be instead of the last part.
        meaning: of the key, from its record.
        default: of the key; None without one.
    """

    at: tuple[str | int, ...]
    names: tuple[str, ...]
    kind: tuple[Any, tuple[object, ...]] | None
    found: Any
    whole: bool
    known: tuple[str, ...] = ()
    meaning: str = ""
    default: Any = None

    @property
    def near(self) -> list[str]:
        """The known name that is closest to the last part, if one is close."""
        return difflib.get_close_matches(str(self.at[-1]), self.known, n=1) if self.at else []


def _find(detail: Any, model: type[BaseModel], table: Mapping[str, Any], beside: Sequence[str]) -> _Place:  # noqa: ANN401
    """The place of one of pydantic's errors."""
    loc = tuple(detail["loc"])
    place = _Place((), (), (model, ()), table, whole=True)
    for number, part in enumerate(loc):
        if part == "[key]":  # the name itself is wrong, as the place of it says
            break
        step = _step(place, part, beside if not number else ())
        if step is None:
            return _Place(place.at, place.names, place.kind, place.found, False, (), place.meaning, place.default)
        place = step
    return place


def _step(place: _Place, part: str | int, beside: Sequence[str]) -> _Place | None:
    """One part further; None where the parts of a value are no places of their own."""
    if place.kind is None:
        return None
    kind, _ = plain(place.kind[0])
    inside = _inside(place.found, part)
    at = (*place.at, part)
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(part, str):
        fields = _fields(kind, place.found)
        names, known = (*place.names, toml_key(part)), tuple(dict.fromkeys([*fields, *beside]))
        if part not in fields:
            return _Place(at, names, None, inside, True, known)
        field, owner = fields[part]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        meaning = meanings(owner).get(part, "")
        return _Place(at, names, (field.annotation, tuple(field.metadata)), inside, True, known, meaning, default)
    arguments = get_args(kind)
    if get_origin(kind) is tuple and arguments[-1] is Ellipsis and isinstance(part, int):
        listed = isinstance(place.found, Sequence) and not isinstance(place.found, str)
        if not listed:  # a validator made the list; its entries have no place in the file
            return None
        own = str(inside["name"]) if isinstance(inside, Mapping) and "name" in inside else str(part)
        return _Place(at, (*place.names, own), (arguments[0], ()), inside, True)
    if get_origin(kind) is dict and isinstance(place.found, Mapping):
        known = tuple(map(str, get_args(plain(arguments[0])[0])))
        names = (*place.names, toml_key(str(part)))
        return _Place(at, names, None if known and part not in known else (arguments[1], ()), inside, True, known)
    return None


def _fields(model: type[BaseModel], table: object) -> dict[str, tuple[FieldInfo, type[BaseModel]]]:
    """Every key of a table with its record: a condition's tables are the suite's own, with some keys changed."""
    found = {field.alias or name: (field, model) for name, field in model.model_fields.items()}
    if issubclass(model, ConditionConfig):
        return found | {name: (SuiteConfig.model_fields[name], SuiteConfig) for name in TABLES}
    more = getattr(model, "beside", None)
    if more and isinstance(table, Mapping) and (other := more(table)):
        found |= {name: (field, other) for name, field in other.model_fields.items() if name not in found}
    return found


def _inside(value: Any, part: str | int) -> Any:  # noqa: ANN401 - whatever TOML holds
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _line(detail: dict[str, Any], place: _Place, prefix: str) -> str:
    key = prefix + ".".join(place.names)
    where = f"{key.rstrip('.')}: " if key else ""
    if detail["type"] in ("value_error", "assertion_error"):
        return f"{where}{detail['ctx']['error']}"
    if place.kind is None:
        word = str(place.at[-1])
        return f"{where}there is no such key{_elsewhere(word)}{closest(word, place.known)}"
    if detail["type"] == "missing" and place.whole:
        return f"{where}this key is required" + (f": {place.meaning}" if place.meaning else "")
    return where + _must(detail, place, key)


def _must(detail: dict[str, Any], place: _Place, key: str) -> str:
    """What a value has to be, and what it is."""
    assert place.kind is not None  # noqa: S101 - seen to by `_line`
    found = place.found if place.found is not None else detail["input"]
    got = _shown(found)
    wanted, _ = plain(place.kind[0])
    if detail["type"] == "literal_error" and place.whole and isinstance(found, str):
        return f"there is no choice {got}{closest(found, map(str, get_args(wanted)))}"
    other_forms = any(isinstance(said, Said) for said in place.kind[1])
    if not other_forms and (brackets := _brackets(wanted, found, key)) is not None:
        return f"{brackets}; got {got}"
    try:
        rule = f"must be {words(*place.kind)}"
    except TypeError:  # a type of another package's own: pydantic says what it knows
        rule = str(detail["msg"])
    if isinstance(found, float) and not math.isfinite(found):
        rule = rule.replace("a number", "a finite number")
    usual = f", such as {toml(place.default)} (the default)" if place.default not in (None, (), {}, "") else ""
    return f"{rule}{usual}, got {got}"


def _brackets(wanted: Any, found: object, key: str) -> str | None:  # noqa: ANN401 - any type form
    """Tables in one pair of brackets where there have to be two, or the other way round."""
    inner, _ = plain(get_args(wanted)[0]) if get_origin(wanted) is tuple else (wanted, ())
    if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
        return None
    header = re.sub(r"\.\d+$", "", key)
    if inner is not wanted and isinstance(found, Mapping):
        return f"must be a list of tables: write [[{header}]], in two pairs of brackets, above each of them"
    if inner is wanted:
        return f"must be a table: write [{header}], in one pair of brackets, above its keys"
    return None


def _elsewhere(word: str) -> str:
    """Where else in a suite file a key of this name may stand."""
    if word in SuiteConfig.model_fields:
        kind, _ = plain(SuiteConfig.model_fields[word].annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return f" here; [{word}] is a table of its own"
        if word in ("conditions", "strategies"):
            return f" here; [[{word}]] are tables of their own"
        return f" here; {word} stands at the top of the file, before the first [table]"
    holders = {f"[{name}]": SuiteConfig.model_fields[name].annotation for name in (*TABLES, "scoring")}
    holders["[[strategies]]"] = plain(get_args(SuiteConfig.model_fields["strategies"].annotation)[0])[0]
    found = [name for name, holder in holders.items() if holder and word in holder.model_fields]
    return f" here; there is one in {' and in '.join(found)}" if found else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
