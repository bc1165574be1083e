"""Data sets by name. Nothing is imported before a data set is asked for.

Another package registers its own through the entry-point group `labeldrop_bench.datasets`; each entry point names a
`labeldrop_bench.data.base.DatasetInfo`:

    [project.entry-points."labeldrop_bench.datasets"]
    my_data = "my_package.my_data:INFO"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from labeldrop_bench.plugins import Registry, ours

if TYPE_CHECKING:
    from labeldrop_bench.data.base import DatasetInfo

__all__ = ["GROUP", "REGISTRY", "get", "names"]


def _accept(point: EntryPoint, found: object) -> DatasetInfo:
    from labeldrop_bench.data.base import DatasetInfo

    if not isinstance(found, DatasetInfo):
        raise TypeError(f"must name a labeldrop_bench.data.base.DatasetInfo, got {found!r}")
    if found.name != point.name:
        raise ValueError(f"the DatasetInfo must be named as its entry point, got {found.name!r}")
    return found


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


REGISTRY = Registry["DatasetInfo"]("data set", GROUP, {name: ours(value) for name, value in _BUILT_IN.items()}, _accept)


def names() -> tuple[str, ...]:
    """Names of all data sets: ours, then those of other packages."""
    return REGISTRY.names()


def get(name: str) -> DatasetInfo:
    """The data set of that name.

    Raises:
        ValueError: there is no such data set (the message names the closest one).
        PluginError: a data set of another package that cannot be used.
    """
    return REGISTRY.get(name)
