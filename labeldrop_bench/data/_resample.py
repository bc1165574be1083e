"""From the grid of a file to that of a sample: pictures to a size, volumes to a spacing and a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST = 1 << 30  # voxels of a resampled volume, more than any scanner gives: a header with another unit


def resize_image(image: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """[..., H, W] in another size: bilinear, averaging over pixels that shrink into one. uint8 stays, else float32."""
    kept = image if image.dtype == np.uint8 else image.astype(np.float32)
    planes = [
        np.array(Image.fromarray(np.ascontiguousarray(plane)).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        for plane in kept.reshape(-1, *kept.shape[-2:])
    ]
    return np.stack(planes).reshape(*image.shape[:-2], *size)


def resize_labels(labels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """[H, W] label values in another size: each from the nearest pixel."""
    picture = Image.fromarray(np.ascontiguousarray(labels))
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))


def new_spacing(spacing: Sequence[float] | None, shape: Sequence[int], size: Sequence[int]) -> tuple[float, ...] | None:
    """Millimetres between pixels after what had `shape` was brought to `size`, edge to edge."""
    if spacing is None:
        return None
    return tuple(float(s * n / new) for s, n, new in zip(spacing, shape, size, strict=True))


def to_grid(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing: Sequence[float],
    wanted: Sequence[float],
    size: Sequence[int],
) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, ...] | None]:
    """A volume and its labels at another spacing, cut or filled up to a size.

    As nnU-Net does, the volume is cut to the voxels that are not zero first. Then it is resampled (image: linear, after
    a Gaussian blur along axes that shrink; labels: nearest), and the middle of it is kept; where it is too small the
    image is filled up with its lowest value and the labels with background.

    Args:
        image: [channels, D, H, W], not zero everywhere.
        labels: [D, H, W].
        spacing: millimetres between voxels along D, H, W.
        wanted: what it becomes.
        size: voxels of the result along D, H, W.

    Returns:
        [channels, *size], [*size], and the spacing that they have: `wanted` but for whole numbers of voxels.

    Raises:
        ValueError: it would become larger than any volume is.
    """
    box = _not_zero(image)
    image, labels = image[(slice(None), *box)], labels[box]
    before = labels.shape
    scale = np.asarray(spacing) / np.asarray(wanted)
    shape = tuple(max(1, round(n * s)) for n, s in zip(before, scale, strict=True))
    if shape != before:
        from skimage.transform import resize

        if np.prod(shape, dtype=float) > _MOST:
            raise ValueError(
                f"{before} voxels of {tuple(spacing)} mm would become {shape} at {tuple(wanted)} mm; "
                f"is the spacing of the header right?"
            )
        shrinks = any(new < n for new, n in zip(shape, before, strict=True))
        image = np.stack([resize(c, shape, order=1, anti_aliasing=shrinks, preserve_range=True) for c in image])
        labels = resize(labels, shape, order=0, anti_aliasing=False, preserve_range=True).astype(np.uint8)
    middle = np.stack([_middle(channel, size, channel.min()) for channel in image])
    return middle.astype(np.float32, copy=False), _middle(labels, size, 0), new_spacing(spacing, before, shape)


def _not_zero(image: NDArray[Any]) -> tuple[slice, ...]:
    """The smallest box of [channels, D, H, W] outside of which all channels are zero."""
    inside = (image != 0).any(0)
    box = []
    for axis in range(inside.ndim):
        others = tuple(a for a in range(inside.ndim) if a != axis)
        places = np.flatnonzero(inside.any(others))
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def _middle(values: NDArray[Any], size: Sequence[int], fill: float) -> NDArray[Any]:
    """The middle of an array, filled up at the borders where it is smaller than `size`."""
    result = np.full(size, fill, values.dtype)
    source, goal = [], []
    for have, want in zip(values.shape, size, strict=True):
        both = min(have, want)
        source.append(slice((have - both) // 2, (have - both) // 2 + both))
        goal.append(slice((want - both) // 2, (want - both) // 2 + both))
    result[tuple(goal)] = values[tuple(source)]
    return result
