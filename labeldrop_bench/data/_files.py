"""What the readers of pictures share: grey values, sizes, checks of masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeldrop_bench.data.cone import crop_cone
from labeldrop_bench.data.prepare import DataProblem

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on broken files


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A picture file as grey values [H, W]: ITU-R 601 luma of what has colours, Pillow's "L".

    Raises:
        DataProblem: it is not there or not whole.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except _UNREADABLE as error:
        raise DataProblem(path, f"cannot be read as a picture ({error}); copy or download it again") from error


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """[H, W] uint8 or float32 in another size, same dtype: bilinear, averaging over pixels that shrink into one."""
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """[H, W] label values in another size: each from the nearest pixel."""
    return np.array(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def check_labels(path: Path, labels: NDArray[Any], shape: tuple[int, ...], highest: int) -> NDArray[np.uint8]:
    """The label values of a mask file as uint8.

    Args:
        path: the mask file.
        labels: what it holds.
        shape: of the image.
        highest: label value.

    Raises:
        DataProblem: another shape, a value that is no label, or no label at all.
    """
    if labels.shape != shape:
        raise DataProblem(path, f"mask of shape {labels.shape}, but its image has {shape}; take both from one release")
    values = np.unique(labels)
    if not np.isin(values, np.arange(highest + 1)).all():
        raise DataProblem(path, f"label values must be 0 ... {highest}, got {values[:10].tolist()}; correct the mask")
    if values.max() == 0:
        raise DataProblem(path, "mask is empty: no pixel has a label; draw it or leave the case out")
    return labels.astype(np.uint8)


def masked_to_cone(path: Path, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`cone.crop_cone`, whose errors become problems of the file."""
    try:
        return crop_cone(image)
    except ValueError as error:
        text = f"no ultrasound sector found ({error}); leave it out, or set crop_cone to false"
        raise DataProblem(path, text) from error
