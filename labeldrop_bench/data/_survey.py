"""What the headers of a data set's cases say of their grids, and the spacing and size that follow from it.

A size that nobody gave is the median of the cases, so that most are neither cut nor blown up. Several data sets that
are put together share one: a spacing or a size for each would make a difference between domains that no scanner made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from labeldrop_bench.data.base import Grid
from labeldrop_bench.data.prepare import DataProblem

MULTIPLE = 16
"""Default sizes are multiples of it, and so divisible by the strides of networks of up to five levels."""
T = TypeVar("T")


def readable(paths: Iterable[Path], read: Callable[[Path], T]) -> list[T]:
    """What `read` finds in headers. A file that cannot be read is left out here, and named when its case is read."""
    found = []
    for path in paths:
        try:
            found.append(read(path))
        except DataProblem:  # noqa: PERF203 - any of them may be bad
            continue
    return found


def typical_spacing(grids: Sequence[Grid]) -> tuple[float, ...] | None:
    """Median along each axis, of the cases that have a spacing; None if there are none."""
    known = [grid.spacing for grid in grids if grid.spacing is not None]
    return tuple(float(f"{s:.5g}") for s in np.median(known, axis=0)) if known else None


def shape_at(grid: Grid, spacing: Sequence[float] | None) -> tuple[int, ...]:
    """Pixels along each axis after resampling to `spacing`, where there is one to come from and to go to."""
    if spacing is None or grid.spacing is None:
        return grid.shape
    return tuple(round(n * own / new) for n, own, new in zip(grid.shape, grid.spacing, spacing, strict=True))


def typical_size(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Median along each axis, to the next `MULTIPLE`, at least one."""
    return tuple(max(MULTIPLE, MULTIPLE * int(n / MULTIPLE + 0.5)) for n in np.median(shapes, axis=0))
