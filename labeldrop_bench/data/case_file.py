"""The file of a prepared case, of which what is asked for is all that is read.

It is a `.npy` file of one record with all that is small (`np.load` shows it), then the bytes of the image, of the label
map, and of some labelled pixels where a scheme needs them. Image and label map are mapped. A file is opened for each
read and closed after it: pages of a file that stays mapped count as memory of this process.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.data.arrays import UNSCALED
from labeldrop_bench.data.base import IGNORED

Scheme = Literal["zscore", "ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
"""Ways to scale intensities; `intensities` says what they do."""
SAMPLED = 10_000
"""Labelled pixels of which the intensities are kept, where a scheme looks at all images together."""
Place = tuple[str, int, np.dtype[Any]]
"""Where an array is: a file, the byte that it begins at, and its dtype."""


@dataclass(frozen=True)
class Prepared:
    """One sample as read.

    Attributes:
        image: [channels, *spatial] uint8 (shown in 256 steps) or float32.
        labels: [*spatial] uint8 label values, or IGNORED.
        annotated: for each of the L label values, was it annotated? The first (background) is True.
        spacing: millimetres between the pixels of `labels` along each axis; None where the files do not say it.
        schemes: how the intensities of each channel are scaled when they are read; () is "zscore" for all of them.

    Raises:
        TypeError: another dtype.
        ValueError: shapes that do not fit together, background that is not annotated, a spacing or scheme that is none.
    """

    image: NDArray[Any]
    labels: NDArray[np.uint8]
    annotated: tuple[bool, ...]
    spacing: tuple[float, ...] | None = None
    schemes: tuple[Scheme, ...] = ()

    def __post_init__(self) -> None:
        if self.image.dtype not in (np.uint8, np.float32) or self.labels.dtype != np.uint8:
            raise TypeError(
                f"Prepared: image must be uint8 or float32 and labels uint8, got {self.image.dtype} and "
                f"{self.labels.dtype}"
            )
        if self.labels.shape != self.image.shape[1:]:
            raise ValueError(
                f"Prepared: labels must have the image's shape {self.image.shape[1:]}, got {self.labels.shape}"
            )
        if not self.annotated or not self.annotated[0]:
            raise ValueError(f"Prepared: annotated must begin with True (background), got {self.annotated}")
        if self.spacing is not None and (len(self.spacing) != self.labels.ndim or not all(s > 0 for s in self.spacing)):
            raise ValueError(
                f"Prepared: spacing must have a positive number for each of {self.labels.ndim} axes, got {self.spacing}"
            )
        if self.schemes and (len(self.schemes) != len(self.image) or not set(self.schemes) <= set(SCHEMES)):
            raise ValueError(
                f"Prepared: schemes must be one for each of {len(self.image)} channels, each of {', '.join(SCHEMES)}, "
                f"got {self.schemes}"
            )


@dataclass(frozen=True)
class Kept:
    """A prepared case: everything but its pixels, and where these are.

    Attributes:
        file: holds them.
        pixels: of the file, from this byte on: first the image, then the label map.
        shape, dtype: of the image, [channels, *spatial] uint8 or float32.
        annotated, spacing: as for `Prepared`.
        counts: [256] int32, pixels of each label value.
        scaling: [channels, 4] float32 and
        pooled: [channels] bool, as for `arrays.Images`.
        digest: SHA-256 of the image's pixels.
    """

    file: str
    pixels: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    annotated: tuple[bool, ...]
    spacing: tuple[float, ...] | None
    counts: NDArray[np.int32]
    scaling: NDArray[np.float32]
    pooled: NDArray[np.bool_]
    digest: bytes

    @property
    def image(self) -> NDArray[Any]:
        """[channels, *spatial] uint8 or float32, a view of the mapped file."""
        return _mapped((self.file, self.pixels, self.dtype), self.shape)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """[*spatial], a view of the mapped file."""
        return _mapped(self.place_of_labels, self.shape[1:])

    @property
    def place_of_labels(self) -> Place:
        """They lie behind the image."""
        return self.file, self.pixels + math.prod(self.shape) * self.dtype.itemsize, np.dtype(np.uint8)


@dataclass(frozen=True)
class InFiles:
    """The images, or the label maps, of prepared cases.

    Attributes:
        places: of each case.
        shape: of each of them.
    """

    places: tuple[Place, ...]
    shape: tuple[int, ...]

    @staticmethod
    def images(cases: Sequence[Kept]) -> InFiles:
        """[channels, *spatial] of each case."""
        return InFiles(tuple((case.file, case.pixels, case.dtype) for case in cases), cases[0].shape)

    @staticmethod
    def labels(cases: Sequence[Kept]) -> InFiles:
        """[*spatial] uint8 of each case."""
        return InFiles(tuple(case.place_of_labels for case in cases), cases[0].shape[1:])

    def read(self, place: int) -> NDArray[Any]:
        """A view of the mapped file; raises OSError if that is gone or cut off."""
        return _mapped(self.places[place], self.shape)

    def foreground(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Of an image: intensities [channels, m] as stored, and label values [m]; they lie at the end of the file."""
        file, offset, dtype = self.places[place]
        channels, pixels = self.shape[0], math.prod(self.shape[1:])
        stored = np.fromfile(file, np.uint8, offset=offset + pixels * (channels * dtype.itemsize + 1))
        m = len(stored) // (4 * channels + 1)
        return stored[: 4 * channels * m].view(np.float32).reshape(channels, m), stored[4 * channels * m :]


def _mapped(place: Place, shape: tuple[int, ...]) -> NDArray[Any]:
    file, offset, dtype = place
    try:
        return np.memmap(file, dtype, "r", offset, shape)
    except (OSError, ValueError) as error:
        raise OSError(
            f"{file}, a prepared case, cannot be read any more ({error}); the same call again prepares it anew"
        ) from error


def scaling_of(channel: NDArray[Any], scheme: Scheme) -> tuple[float, float, float, float]:
    """Low, high, shift and divisor, as `intensities` has them; of "ct" what it is until the training split is known."""
    if scheme == "nonorm":
        return UNSCALED
    if scheme == "rgb_to_0_1":
        return (-math.inf, math.inf, 0.0, 255.0)
    low, high = float(channel.min()), float(channel.max())
    if scheme == "rescale_to_0_1":
        return (-math.inf, math.inf, low, max(high - low, 1e-8))
    mean, sd = float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))
    constant = sd <= 1e-6 * max(high, -low)  # as in `base.standardise`
    return (-math.inf, math.inf, mean, math.inf if constant else sd)


def _foreground(image: NDArray[Any], labels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """`SAMPLED` labelled pixels, evenly spaced; some more than once where there are fewer, none where there is none."""
    places = np.flatnonzero((labels > 0) & (labels != IGNORED))
    if len(places):
        places = places[np.linspace(0, len(places) - 1, SAMPLED).round().astype(np.int64)]
    return image.reshape(len(image), -1)[:, places].astype(np.float32), labels.ravel()[places]


def keep(file: Path, prepared: Prepared) -> None:
    """Writes under another name first: whoever reads `file` finds all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    image, labels = np.ascontiguousarray(prepared.image), np.ascontiguousarray(prepared.labels)
    usual: Scheme = "zscore"
    schemes = prepared.schemes or (usual,) * len(image)
    pooled = np.array([scheme == "ct" for scheme in schemes])
    sample = _foreground(image, labels) if pooled.any() else ()
    digest = hashlib.sha256(np.ascontiguousarray(image, np.float32).data).digest()
    fields = {
        "shape": np.array(image.shape, np.int64),
        "float32": np.array(image.dtype == np.float32),
        "annotated": np.array(prepared.annotated),
        "spacing": np.array(prepared.spacing or (), np.float64),
        "counts": np.bincount(labels.ravel(), minlength=256).astype(np.int32),
        "scaling": np.array([scaling_of(*pair) for pair in zip(image, schemes, strict=True)], np.float32),
        "pooled": pooled,
        "rest": np.array(sum(values.nbytes for values in sample), np.int64),
        "digest": np.frombuffer(digest, np.uint8),
    }
    record = np.zeros((), [(name, values.dtype, values.shape) for name, values in fields.items()])
    for name, values in fields.items():
        record[name] = values
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
        try:
            np.save(part, record)
            for values in (image, labels, *sample):
                part.write(np.ascontiguousarray(values).data)
            part.flush()
            Path(part.name).replace(file)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def kept(file: Path) -> Kept | None:
    """What a file holds; None where that is nothing, something else, or not all of it."""
    try:
        with file.open("rb") as stream:
            record = np.lib.format.read_array(stream, allow_pickle=False)
            case = Kept(
                file=str(file),
                pixels=stream.tell(),
                shape=tuple(record["shape"].tolist()),
                dtype=np.dtype(np.float32 if record["float32"] else np.uint8),
                annotated=tuple(record["annotated"].tolist()),
                spacing=tuple(record["spacing"].tolist()) or None,
                counts=record["counts"],
                scaling=record["scaling"],
                pooled=record["pooled"],
                digest=record["digest"].tobytes(),
            )
            size, rest = os.fstat(stream.fileno()).st_size, int(record["rest"])
    except (OSError, EOFError, ValueError, TypeError, IndexError):
        return None
    whole = case.pixels + math.prod(case.shape) * case.dtype.itemsize + math.prod(case.shape[1:]) + rest
    return case if size == whole else None
