"""In which keys two records differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

Difference = tuple[str, Any, Any]


def differences(one: BaseModel, other: BaseModel, *, leave_out: Collection[str] = ()) -> list[Difference]:
    """Dotted key and both values, as JSON has them, wherever these differ; None stands for a key that is not there.

    Args:
        one: a record.
        other: of the same class.
        leave_out: keys of the outermost table that do not count.
    """
    here, there = (_flat(record.model_dump(mode="json", exclude=set(leave_out))) for record in (one, other))
    return [(key, here.get(key), there.get(key)) for key in {**here, **there} if here.get(key) != there.get(key)]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
