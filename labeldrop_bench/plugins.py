"""Names for losses, data sets, networks and procedures: ours, and those that other packages add by entry points.

A package that cannot be used stands in nobody's way: what is wrong with it is an error when its name is asked for, and
a line where all names are listed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

from labeldrop_bench.errors import UserError

__all__ = ["PluginError", "Registry", "ours", "owner", "summary"]

T = TypeVar("T")


class PluginError(UserError, ValueError):
    """Another package registers something that cannot be used; names the package, the entry point and the reason."""


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Everything of one kind by name.

    Attributes:
        kind: what one of them is called in messages: "loss", "data set", "network" or "procedure".
        group: of the entry points with which other packages add theirs.
        ours: name -> what gives it.
        accept: turns what an entry point names into what `get` returns; raises TypeError or ValueError, with the rule
            that is broken, where it is not what it should be.
    """

    kind: str
    group: str
    ours: Mapping[str, Callable[[], T]]
    accept: Callable[[EntryPoint, object], T]

    def names(self) -> tuple[str, ...]:
        """Ours in their order, then those of other packages in alphabetical order, also those that cannot be used."""
        return (*self.ours, *sorted(set(self._theirs()) - set(self.ours)))

    def get(self, name: str) -> T:
        """What has this name.

        Raises:
            ValueError: there is none (names the closest).
            PluginError: it cannot be used, or the name is registered more than once.
        """
        points = self._theirs().get(name, [])
        if name not in self.ours and not points:
            known = self.names()
            close = get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(f"there is no {self.kind} {name!r}{hint} Known: {', '.join(known)}")
        claims = [*(["labeldrop_bench itself"] if name in self.ours else []), *map(_says, points)]
        if len(claims) > 1:
            raise PluginError(
                f"{self.kind} {name!r} is registered {len(claims)} times, by {' and by '.join(claims)}: rename the "
                f"entry point of one, or uninstall its package"
            )
        return self.ours[name]() if name in self.ours else self._load(points[0])

    def all(self) -> dict[str, T | PluginError]:
        """Everything by name; in place of what cannot be used, the error that `get` raises."""
        return {name: self._get_or_error(name) for name in self.names()}

    def _get_or_error(self, name: str) -> T | PluginError:
        try:
            return self.get(name)
        except PluginError as error:
            return error

    def _theirs(self) -> dict[str, list[EntryPoint]]:
        points: dict[str, list[EntryPoint]] = {}
        for point in _points(self.group, tuple(sys.path)):
            points.setdefault(point.name, []).append(point)
        return points

    def _load(self, point: EntryPoint) -> T:
        try:
            return self.accept(point, point.load())
        except Exception as error:  # importing somebody's module can raise anything
            raise PluginError(
                f"{self.kind} {point.name!r} of {_says(point)} cannot be used: {type(error).__name__}: {error}. "
                f"Mend the package, or uninstall it"
            ) from error


@cache
def _points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group, looked for once for each search path: it takes 10 ms or more."""
    return tuple(entry_points(group=group))


def ours(value: str) -> Callable[[], Any]:
    """What imports "module:attribute" when it is asked for, and not before."""
    return lambda: resolve_name(value)


def owner(point: EntryPoint) -> str:
    """Name and version of the package that an entry point belongs to."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def summary(thing: object) -> str:
    """The first line of a docstring without its full stop; empty if there is none."""
    text = (thing.__doc__ or "").strip()
    return text.partition("\n")[0].strip().removesuffix(".")


def _says(point: EntryPoint) -> str:
    return f"{owner(point)} ({point.group}: {point.name} = {point.value})"
