"""Data sets by name. Nothing is imported before a data set is asked for.

A package outside registers its own through the entry-point group `labeldrop_bench.datasets`; each entry point names a
`labeldrop_bench.data.base.DatasetInfo`:

    [project.entry-points."labeldrop_bench.datasets"]
    my_data = "my_package.my_data:INFO"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labeldrop_bench.data.base import DatasetInfo

__all__ = ["GROUP", "get", "names"]

GROUP = "labeldrop_bench.datasets"
_BUILT_IN = {
    "abdomen_phantom": "labeldrop_bench.data.abdomen_phantom:INFO",
    "brain_phantom": "labeldrop_bench.data.brain_phantom:INFO",
    "camus": "labeldrop_bench.data.camus:INFO",
    "combined": "labeldrop_bench.data.combined:INFO",
    "echonet_dynamic": "labeldrop_bench.data.echonet_dynamic:INFO",
    "fetal_atlas": "labeldrop_bench.data.fetal_atlas:INFO",
    "folder": "labeldrop_bench.data.folder:INFO",
    "nnunet": "labeldrop_bench.data.nnunet:INFO",
    "phantom": "labeldrop_bench.data.phantom:INFO",
    "unity": "labeldrop_bench.data.unity:INFO",
}


def _registered() -> dict[str, EntryPoint]:
    found = {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}
    for entry in entry_points(group=GROUP):
        if entry.name in found:
            raise ValueError(
                f"data: two data sets are registered as {entry.name!r}: {found[entry.name].value} and {entry.value}; "
                f"rename one of the entry points"
            )
        found[entry.name] = entry
    return found


def names() -> tuple[str, ...]:
    """Names of all data sets, built in and registered from outside, in alphabetical order."""
    return tuple(sorted(_registered()))


def get(name: str) -> DatasetInfo:
    """The data set of that name.

    Raises:
        ValueError: there is no such data set (the message names the closest one).
        TypeError: an entry point that is not a DatasetInfo.
    """
    from labeldrop_bench.data.base import DatasetInfo, hint

    registered = _registered()
    if name not in registered:
        raise ValueError(f"data: there is no data set {name!r}{hint(name, sorted(registered))}")
    info = registered[name].load()
    if not isinstance(info, DatasetInfo):
        raise TypeError(f"data: entry point {registered[name].value} must be a DatasetInfo, got {type(info).__name__}")
    return info
