"""Sizes, network, patches and lengths of training that two cores can afford, after the size of what was found.

nnU-Net's way, simplified: start from the median case, make it coarser where it is larger than pays here, and shrink the
patch until a step is affordable. Every number can be raised in the suite file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from labeldrop_bench.data._survey import MULTIPLE, shape_at, typical_size, typical_spacing
from labeldrop_bench.data.base import Grid

N = TypeVar("N", int, float)
MOST_PIXELS = {2: 256 * 256, 3: 128 * 128 * 64}
"""Of a sample: larger medians are made coarser."""
MOST_SEEN = {2: 256 * 256, 3: 64 * 64 * 64}
"""Of what the network sees at once, for up to `_CLASSES` classes; logits of more take more."""
_CLASSES = 16
_MANY = 30  # classes from which on `unet`, whose last unit is as wide as the logits, costs more than `dynunet`
_STEP = {2: 4 * 256 * 256, 3: 2 * 64 * 64 * 64}  # pixels of a batch
_LARGER = 1.5  # a size may be that much larger than the median, to hold more cases
_SPEED = 3e9  # pixels an hour that these networks train on, with what validation takes, on one core of a server of 2020
_STEP_ITSELF = 0.02 / 3600  # hours of a step, however small its batch is
_STEPS, _EPOCHS, _VALIDATIONS = 1500, (2, 200), 20


@dataclass(frozen=True)
class Plan:
    """What goes into a suite.

    Attributes:
        native: median shape of the cases, at `native_spacing`.
        native_spacing, spacing: millimetres, of volumes whose files say it.
        size: of the samples.
        whole: how many cases such a sample holds, of all; pictures are resized instead.
        sample_spacing: millimetres between their pixels, where all files say it.
        patch: of the boxes; None for whole images.
        per_image: boxes of an image and epoch.
        network, channels: registered name, widths.
        batch_size, epochs, validate_every: of training.
        core_hours: of one run, about.
    """

    native: tuple[int, ...]
    native_spacing: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    size: tuple[int, ...]
    whole: tuple[int, int] | None
    sample_spacing: tuple[float, ...] | None
    patch: tuple[int, ...] | None
    per_image: int
    network: str
    channels: tuple[int, ...]
    batch_size: int
    epochs: int
    validate_every: int
    core_hours: float

    @property
    def coarser(self) -> bool:
        """Whether samples have a coarser grid than the files."""
        if self.spacing is not None:
            return self.spacing != self.native_spacing
        return math.prod(self.size) < 0.9 * math.prod(typical_size([self.native]))


def make(grids: Sequence[Grid], cases: int, classes: int) -> Plan:
    """A plan.

    Args:
        grids: of all cases, all with as many axes.
        cases: to train on, about.
        classes: with background.
    """
    axes = len(grids[0].shape)
    native_spacing = typical_spacing(grids) if axes == 3 else None
    shapes = [shape_at(grid, native_spacing) for grid in grids]
    native, spacing, size = middle(shapes), native_spacing, typical_size(shapes)
    if axes == 3 and native_spacing is not None:
        holding = _holding(shapes)
        spacing = _coarser(holding, native_spacing)
        size = _up(shape_at(Grid(holding, native_spacing), spacing))
    elif math.prod(size) > MOST_PIXELS[axes]:
        factor = math.sqrt(MOST_PIXELS[axes] / math.prod(size))
        size = tuple(max(MULTIPLE, MULTIPLE * round(n * factor / MULTIPLE)) for n in size)
    seen = _patch(size, int(MOST_SEEN[axes] * min(1.0, _CLASSES / classes)))
    boxes = seen != size
    per_image = 2 if boxes else 1
    an_epoch = max(2, cases * per_image)
    batch = 2 ** int(math.log2(max(2, min(_STEP[axes] // math.prod(seen), 16, an_epoch // 2))))
    steps = math.ceil(an_epoch / batch)
    epochs = min(max(_STEPS // steps, _EPOCHS[0]), _EPOCHS[1])
    between = typical_spacing(grids) if all(grid.spacing is not None for grid in grids) else None
    if between is not None:
        between = spacing or tuple(s * n / new for s, n, new in zip(between, native, size, strict=True))
    hours = an_epoch * math.prod(seen) * (1 + classes / 50) / _SPEED + steps * _STEP_ITSELF
    fits = [all(n <= side for n, side in zip(shape_at(grid, spacing), size, strict=True)) for grid in grids]
    whole = None if spacing is None else (sum(fits), len(fits))
    return Plan(
        native, native_spacing, spacing, size, whole, between, seen if boxes else None, per_image,
        "dynunet" if classes >= _MANY else "unet", _channels(seen),
        batch, epochs, max(1, epochs // _VALIDATIONS), epochs * hours,
    )  # fmt: skip


def middle(rows: Sequence[Sequence[N]]) -> tuple[N, ...]:
    """What stands in the middle of each column, once it is sorted: a median that is one of the values."""
    return tuple(sorted(column)[len(column) // 2] for column in zip(*rows, strict=True))


def _holding(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """A shape that holds nine in ten cases along each axis, but is not much larger than the median.

    What lies outside of a volume's size is cut off, and would neither be trained on nor scored.
    """
    ordered = [sorted(axis) for axis in zip(*shapes, strict=True)]
    most = len(ordered[0]) - 1
    return tuple(min(axis[math.ceil(0.9 * most)], math.ceil(_LARGER * axis[most // 2])) for axis in ordered)


def _up(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(MULTIPLE * max(1, math.ceil(n / MULTIPLE)) for n in shape)


def _coarser(shape: Sequence[int], spacing: Sequence[float]) -> tuple[float, ...]:
    """A spacing at which the size of samples is affordable: the finest axes first, then all together, as in nnU-Net."""
    wanted, grid = list(spacing), Grid(tuple(shape), tuple(spacing))
    result = tuple(spacing)
    while math.prod(_up(shape_at(grid, result))) > MOST_PIXELS[3]:
        finest = min(wanted)
        wanted = [s * 1.02 if s < 1.05 * finest else s for s in wanted]
        result = tuple(float(f"{s:.3g}") for s in wanted)
    return result


def _patch(size: Sequence[int], most: int) -> tuple[int, ...]:
    """The size, its longest axis shrunk until it has no more pixels than that."""
    patch = list(size)
    while math.prod(patch) > most and max(patch) > MULTIPLE:
        patch[patch.index(max(patch))] -= MULTIPLE
    return tuple(patch)


def _channels(seen: Sequence[int]) -> tuple[int, ...]:
    """Widths of a U-Net whose coarsest level has two pixels or more along each axis: sizes are multiples of 16."""
    if len(seen) == 3:
        return 8, 16, 32, 64
    return (16, 32, 64, 96, 128) if min(seen) >= 128 else (16, 32, 64, 96)
