"""Random label errors of two kinds, for experiments with learned label uncertainty.

McKinley et al. (Few-shot brain segmentation from weakly labeled data with deep heteroscedastic multi-task networks,
2019) tell apart random errors that are *predictable* (one can learn where they happen, and how often) and *sporadic*
ones (anywhere, or too rare to be learnt). Their examples are outlines that were drawn in the coronal plane alone, and
an automatic method that mistakes a piece of tissue for another. Here:

Predictable. Every coronal slice is drawn for itself, and pieces of its outlines are displaced by a voxel. In a slice a
smooth random field g with N(0, 1) values says which: where it lies in the upper tail, the label of higher value wins a
voxel at every outline; where it lies in the lower tail, it loses one. So an error is a smooth bulge or dent within the
slice, independent of the next slice, and seen from the side or from above the border is ragged. The tails hold

    P(displaced) = predictable * (1.5 - h),    h = height above the bottom of the volume, 0 to 1

of the outline's pieces, half in each: three times as many at the bottom as at the top.

Sporadic. Each structure in each case is mislabelled with probability `sporadic`, independently. Half of the time it
becomes background (overlooked), else another structure present in the case, any with equal probability (confused). It
is the whole structure, or if that has more than `PIECE` of all voxels, as many of its voxels around a random one.

Sporadic errors come first, then the outlines of what they leave are drawn. Each case has random numbers of its own,
from the seed and its name, one stream for each kind.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from scipy.special import ndtri

from labeldrop_bench.data._shapes import smooth_field
from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.base import IGNORED, Samples, hint

Labels = NDArray[np.uint8]

PIECE = 0.005
"""Greatest part of a volume's voxels that one sporadic error changes."""
VOXELS_PER_KNOT = 5
"""Within a slice, whether an outline is displaced varies over about so many voxels."""
CORONAL, UPWARDS = 1, 2
"""Array axes: across coronal slices, and from below upwards."""


class NoiseOptions(BaseModel):
    """The table `[data.noise]`.

    Attributes:
        predictable: probability that a piece of an outline in a coronal slice is displaced by a voxel, outwards or
            inwards; on average over the height of the volume. At most 0.5.
        sporadic: probability that a structure in a case is mislabelled.
        structures: names of the labels that err; all if empty. An outline errs if one of them lies on either side.
        seed: of the errors; nothing to do with the seed of the images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    predictable: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    sporadic: Annotated[float, Field(ge=0, le=1)] = 0.0
    structures: tuple[str, ...] = ()
    seed: NonNegativeInt = 0


def add_noise(samples: Samples, options: NoiseOptions, names: Sequence[str]) -> Samples:
    """Samples with errors in `target`; images and truth stay.

    Args:
        samples: volumes, every axis in the order (left to right, back to front, below to above).
        options: how many errors.
        names: of the label values 1, 2, ...

    Raises:
        ValueError: samples that are no volumes, or a structure that does not exist or is named twice.
    """
    values = _values(options.structures, names)
    if samples.target.ndim != 4:
        raise ValueError(f"noise: samples must be volumes [n, X, Y, Z], got shape {tuple(samples.target.shape)}")
    if not options.predictable and not options.sporadic:
        return samples
    noisy = []
    for case, target in zip(samples.cases, samples.target, strict=True):
        streams = np.random.SeedSequence([options.seed, zlib.crc32(case.encode())]).spawn(2)
        for_outlines, for_pieces = (np.random.default_rng(stream) for stream in streams)
        labels = mislabel(target.numpy(), options.sporadic, values, for_pieces)
        noisy.append(torch.from_numpy(displace_outlines(labels, options.predictable, values, for_outlines)))
    return replace(samples, target=LabelMaps.of(torch.stack(noisy)))


def displace_outlines(labels: Labels, probability: float, values: Sequence[int], rng: np.random.Generator) -> Labels:
    """Displace pieces of the outlines in each coronal slice by a voxel: the predictable errors.

    Args:
        labels: [X, Y, Z] label values.
        probability: of a piece, on average over the height; at most 2/3.
        values: label values of which one must lie on a side of the outline.
        rng: of the field.

    Returns:
        The same shape. IGNORED voxels neither change nor spread.
    """
    size = labels.shape
    knots = [max(1, n // VOXELS_PER_KNOT) for n in size]
    # Cut along the slices every field is a plane of its own; h is the height of the voxels' centres.
    field = np.stack(
        [smooth_field((size[0], size[2]), (knots[0], knots[2]), rng) for _ in range(size[CORONAL])], axis=CORONAL
    )
    h = (np.arange(size[UPWARDS]) + 0.5) / size[UPWARDS]
    tail = ndtri(1 - probability * (1.5 - h) / 2)  # P(g > tail) is half of what is displaced; infinite for nothing
    errs = np.isin(labels, values)
    wins, loses = labels.copy(), labels.copy()
    for axis in (0, UPWARDS):
        for step in (-1, 1):
            neighbour, theirs = _shifted(labels, axis, step, labels), _shifted(errs, axis, step, errs)
            touches = (errs | theirs) & (labels != IGNORED) & (neighbour != IGNORED)
            wins = np.where(touches, np.maximum(wins, neighbour), wins)
            loses = np.where(touches, np.minimum(loses, neighbour), loses)
    result: Labels = np.where(field > tail, wins, np.where(field < -tail, loses, labels)).astype(np.uint8)
    return result


def mislabel(labels: Labels, probability: float, values: Sequence[int], rng: np.random.Generator) -> Labels:
    """Give structures, or pieces of large ones, another label or none: the sporadic errors.

    Args:
        labels: [*spatial] label values.
        probability: that a structure errs.
        values: label values that may err.
        rng: of which, where and what.

    Returns:
        The same shape. IGNORED voxels stay.
    """
    result = labels.copy()
    present = [int(value) for value in np.unique(labels) if value not in (0, IGNORED)]
    # Drawn for every value, there or not, so that one structure's errors do not depend on another's.
    for value, stream in zip(values, rng.spawn(len(values)), strict=True):
        if stream.random() >= probability or value not in present:
            continue
        others = [other for other in present if other != value]
        confused = bool(others) and stream.random() < 0.5
        places = _piece(np.argwhere(labels == value), max(1, round(PIECE * labels.size)), stream)
        result[tuple(places.T)] = stream.choice(others) if confused else 0
    return result


def _piece(places: NDArray[np.intp], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """All places [m, 3] of a structure, or the `most` nearest to a random one of them."""
    if len(places) <= most:
        return places
    distance = np.square(places - places[rng.integers(len(places))]).sum(1)
    nearest: NDArray[np.intp] = places[np.argsort(distance, kind="stable")[:most]]
    return nearest


def _shifted(values: np.ndarray, axis: int, step: int, at_the_edge: np.ndarray) -> np.ndarray:
    """Value of the neighbour one step before (1) or behind (-1) along an axis; at the edge the one given."""
    shifted = np.roll(values, step, axis)
    edge = [slice(None)] * values.ndim
    edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
    shifted[tuple(edge)] = at_the_edge[tuple(edge)]
    return shifted


def _values(structures: Sequence[str], names: Sequence[str]) -> list[int]:
    """Label values of the structures that err."""
    for name in structures:
        if name not in names:
            raise ValueError(f"noise.structures: there is no label {name!r}{hint(name, names)}")
    if len(set(structures)) != len(structures):
        raise ValueError(f"noise.structures: the labels must all differ, got {list(structures)}")
    return [names.index(name) + 1 for name in structures or names]
