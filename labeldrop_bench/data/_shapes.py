"""Shapes and smooth random fields for phantoms in three dimensions; a picture is a volume of one slice.

Points are a float32 array [3, *spatial]: the coordinates of each voxel centre, in the order of the array's axes. A
shape is a function of them, its normalised radius: 0 in the middle, 1 on the surface.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]


def voxel_centres(size: Sequence[int], extent: Sequence[float], centre: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    """Points [3, *size] of a box of `extent` around `centre`, cut into `size` voxels."""
    axes = [
        middle + length * ((np.arange(n, dtype=np.float32) + np.float32(0.5)) / n - np.float32(0.5))
        for n, length, middle in zip(size, extent, centre, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def turned(points: Array, degrees: float, plane: tuple[int, int]) -> Array:
    """Points in coordinates that are turned in the plane of two axes, from the first towards the second."""
    first, second = plane
    sin, cos = np.float32(np.sin(np.deg2rad(degrees))), np.float32(np.cos(np.deg2rad(degrees)))
    result = points.copy()
    result[first] = cos * points[first] + sin * points[second]
    result[second] = cos * points[second] - sin * points[first]
    return result


def ellipsoid(
    points: Array,
    centre: ArrayLike,
    radii: ArrayLike,
    degrees: float = 0.0,
    plane: tuple[int, int] = (1, 2),
) -> Array:
    """Normalised radius [*spatial] of an ellipsoid whose axes are turned in one plane."""
    away = points - _column(centre, points)
    if degrees:
        away = turned(away, degrees, plane)
    radius: Array = np.sqrt(np.square(away / _column(radii, points)).sum(0))
    return radius


def tube(points: Array, line: ArrayLike, radii: ArrayLike) -> Array:
    """Distance from a line through places [m, 3], over its radius there, [m] in the places: [*spatial]; round ends."""
    places, widths = np.asarray(line, np.float32), np.asarray(radii, np.float32)
    nearest = np.full(points.shape[1:], np.inf, np.float32)
    for i in range(len(places) - 1):
        along = _column(places[i + 1] - places[i], points)
        away = points - _column(places[i], points)
        t = np.clip((away * along).sum(0) / np.square(along).sum(), 0, 1)
        distance = np.sqrt(np.square(away - t * along).sum(0))
        nearest = np.minimum(nearest, distance / (widths[i] + t * (widths[i + 1] - widths[i])))
    return nearest


def smooth_field(size: Sequence[int], knots: Sequence[int], rng: np.random.Generator) -> Array:
    """Gaussian random field [*size] with mean 0 and standard deviation 1 everywhere.

    A cubic B-spline through independent N(0, 1) coefficients, `knots` intervals along each axis: it varies over about
    one interval. The coefficients do not depend on `size`, so a finer grid samples the same field.
    """
    field = rng.standard_normal([n + 3 for n in knots]).astype(np.float32)
    for n, intervals in zip(size, knots, strict=True):
        # Each turn consumes the first axis and appends its samples as the last one.
        field = np.tensordot(field, _spline(n, intervals), axes=(0, 1))
    return field


def _spline(n: int, intervals: int) -> Array:
    """Uniform cubic B-spline at n voxel centres, [n, intervals + 3]; rows have length 1, which keeps the variance."""
    place = (np.arange(n) + 0.5) / n * intervals
    distance = np.abs(place[:, None] - (np.arange(intervals + 3) - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    rows: Array = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    return rows


def _column(values: ArrayLike, points: Array) -> Array:
    """Three numbers, shaped to go with points."""
    return np.asarray(values, np.float32).reshape(3, *[1] * (points.ndim - 1))
