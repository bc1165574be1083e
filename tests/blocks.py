"""Images and label maps with a block of each label, for tests that only need something to be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def case(
    seed: int, values: tuple[int, ...], shape: tuple[int, ...] = (20, 24, 20)
) -> tuple[NDArray[Any], NDArray[Any]]:
    """An image with noise, nowhere zero, and a label map with a block of each value; two axes or three."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for i, value in enumerate(values):
        labels[..., 2 + 4 * i : 5 + 4 * i, 3:9] = value
    image = rng.integers(1, 40, shape) + 30 * labels
    return image.astype(np.uint8 if len(shape) == 2 else np.float32)[None], labels


def cases(prefix: str, number: int, values: tuple[int, ...] = (1, 2, 3), **kwargs: Any) -> dict[str, Any]:
    return {f"{prefix}{i:03}": case(sum(map(ord, prefix)) + i, values, **kwargs) for i in range(number)}


def pictures(folder: Path, drawings: dict[str, tuple[NDArray[Any], NDArray[Any]]]) -> Path:
    """An image-mask folder."""
    for name, (image, labels) in drawings.items():
        for part, array in (("images", image[0]), ("masks", labels)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / part / f"{name}.png")
    return folder
