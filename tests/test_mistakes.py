"""What is said of a wrong value of any key of a suite file: its key, what it has to be, and what was found."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from labeldrop_bench import data, procedures
from labeldrop_bench.data._nnunet_raw import Description
from labeldrop_bench.records import (
    ConditionConfig,
    DataConfig,
    HiddenConfig,
    StrategyConfig,
    SuiteConfig,
    explain,
    meanings,
    words_of,
)
from labeldrop_bench.records.config import TABLES

WRONG = [
    "x", "", 0, -1, 3.5, 2**40, math.inf, math.nan, True, [], ["x"], ["x", "x"], [-1], [3.5], [math.inf], [[]], [{}],
    [3, 4, 5, 6, 7], {}, {"a": -1}, {"a": "x"}, {"a": []}, {"a": {"b": 1}}, {"a": [math.inf]},
    datetime.date(2026, 1, 1),
]  # fmt: skip
PYDANTIC = ("Input should", "should have", "should be", "Extra inputs", "Field required", "valid ", "Value error")


def records() -> Iterator[type[BaseModel]]:
    """Every record that a suite file is read into."""
    tables = (SuiteConfig.model_fields[name].annotation for name in (*TABLES, "scoring"))
    options = [data.get(name).options for name in data.names()]
    schemes = [procedures.REGISTRY.get(name).options for name in procedures.names()]
    found = [SuiteConfig, StrategyConfig, ConditionConfig, DataConfig, HiddenConfig, *tables, *options, *schemes]
    inner = [kind for model in options for kind in inside(model)]
    return iter(dict.fromkeys([*found, *inner]))  # type: ignore[list-item]


def inside(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Records that a field of a record holds, or a list of."""
    kinds: list[type[BaseModel]] = []
    pending: list[Any] = [field.annotation for field in model.model_fields.values()]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kinds.append(kind)
        pending += getattr(kind, "__args__", ())
    return kinds


def told(model: type[BaseModel], table: dict[str, Any], about: str) -> list[str]:
    """The lines about a key, not those on keys that a table of one key lacks."""
    try:
        model.model_validate(table)
    except ValidationError as error:
        lines = explain(error, model, table, "a.").splitlines()
        return [line.strip() for line in lines if f"a.{about}" in line or "this key is required" not in line]
    return []


@pytest.mark.parametrize("model", [*records(), Description], ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_a_wrong_value_is_told_by_its_key_and_in_our_words(model: type[BaseModel]) -> None:
    number = 0
    for key in (field.alias or name for name, field in model.model_fields.items()):
        for value in WRONG:
            for line in told(model, {key: value}, key):
                number += 1
                assert not any(word in line for word in PYDANTIC), line
                assert key in line, line
                nothing_there = "this key is required" in line or "there is no such key" in line
                assert nothing_there or any(repr(part) in line for part in parts(value)), (value, line)
    assert number or not model.model_fields


def parts(value: Any) -> Iterator[Any]:
    """A value and what is in it, where entries of a list have keys of their own."""
    yield value
    if value == 0:
        yield False  # what a key that is true or false takes it for
    for part in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from parts(part)
    if isinstance(value, dict):
        yield from value


@pytest.mark.parametrize("model", records(), ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_every_key_has_a_meaning_and_every_type_has_words(model: type[BaseModel]) -> None:
    assert set(meanings(model)) == set(model.model_fields)
    assert all(words_of(field) for field in model.model_fields.values())
