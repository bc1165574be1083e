"""The readers of cases that are an image in some files and a label map: volumes, and pictures or slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from labeldrop_bench.data._resample import new_spacing, resize_image, resize_labels, to_grid
from labeldrop_bench.data.case_file import Prepared, Scheme
from labeldrop_bench.data.decode import Pixels, check_same_grid, finite, look_up, read
from labeldrop_bench.data.prepare import Case, DataProblem


@dataclass(frozen=True)
class ReadVolumes:
    """Reads a case whose inputs are one volume for each channel, then the label map, all on the same voxels.

    Attributes:
        value_of: (stored label value, value in the label space) pairs; a value that is not among them is a problem.
        num_labels: L.
        spacing, size: of the result along D, H, W, in millimetres and voxels.
        schemes: how the intensities of each channel are scaled, as for `Prepared`.
    """

    value_of: tuple[tuple[int, int], ...]
    num_labels: int
    spacing: tuple[float, ...]
    size: tuple[int, ...]
    schemes: tuple[Scheme, ...] = ()

    def __call__(self, case: Case) -> Prepared:
        *image_paths, label_path = case.inputs
        volumes = [read(path, "RAS") for path in image_paths]
        stored = read(label_path, "RAS", labels=True)
        for path, volume in zip(image_paths, volumes, strict=True):
            check_same_grid(label_path, stored, path, volume)
        image = finite(image_paths, [volume.values[0] for volume in volumes])
        if not image.any():
            raise DataProblem(image_paths[0], "is zero everywhere; leave the case out")
        labels = look_up(label_path, stored.values[0], dict(self.value_of))
        spacing = volumes[0].spacing
        if spacing is None:
            raise DataProblem(image_paths[0], "is a picture; give two numbers as size")
        image, labels, got = to_grid(image, labels, spacing, self.spacing, self.size)
        check_range(image_paths, image, self.schemes)
        return Prepared(image, labels, (True,) * self.num_labels, got, self.schemes)


@dataclass(frozen=True)
class ReadPictures:
    """Reads a case whose inputs are pictures or slices, together of as many channels as expected, then the label map.

    Attributes:
        value_of, num_labels: as for `ReadVolumes`.
        channels: which of the channels to keep, in order.
        num_channels: how many there are.
        size: (height, width) of the result in pixels.
        axes: directions in which the axes of slices are to run; None: as stored, or there are none.
        schemes: how the intensities of each channel that is kept are scaled, as for `Prepared`.
    """

    value_of: tuple[tuple[int, int], ...]
    num_labels: int
    channels: tuple[int, ...]
    num_channels: int
    size: tuple[int, ...]
    axes: str | None = None
    schemes: tuple[Scheme, ...] = ()

    def __call__(self, case: Case) -> Prepared:
        *image_paths, label_path = case.inputs
        pictures = [read(path, self.axes) for path in image_paths]
        stored = read(label_path, self.axes or pictures[0].axes, labels=True)
        for path, picture in zip(image_paths, pictures, strict=True):
            check_same_grid(label_path, stored, path, picture)
        wanted = max(1, self.num_channels // len(pictures))
        flat = [_flat(path, picture, wanted) for path, picture in zip(image_paths, pictures, strict=True)]
        image = finite(image_paths, [channel for channels in flat for channel in channels])
        if len(image) != self.num_channels:
            raise DataProblem(image_paths[0], f"{len(image)} channel(s), but channel_names has {self.num_channels}")
        values, spacing = one_slice(label_path, stored)
        labels = look_up(label_path, values[0], dict(self.value_of))
        image = image[list(self.channels)]
        check_range(image_paths, image, self.schemes)
        return Prepared(
            resize_image(image, self.size),
            resize_labels(labels, self.size),
            (True,) * self.num_labels,
            new_spacing(spacing, labels.shape, self.size),
            self.schemes,
        )


def check_range(paths: Sequence[Path], image: NDArray[Any], schemes: Sequence[Scheme]) -> None:
    """Raises DataProblem where a channel that is to be divided by 255 is none of a colour picture."""
    for n, (channel, scheme) in enumerate(zip(image, schemes, strict=False)):
        low, high = channel.min(), channel.max()
        if scheme == "rgb_to_0_1" and not 0 <= low <= high <= 255:
            path = paths[min(n, len(paths) - 1)]
            raise DataProblem(path, f"rgb_to_0_1 is for values from 0 to 255, got {low} to {high}; name it otherwise")


def one_slice(path: Path, pixels: Pixels) -> tuple[NDArray[Any], tuple[float, ...] | None]:
    """A picture [channels, H, W] and its spacing along H, W, without the axis of length 1.

    Raises:
        DataProblem: it has none.
    """
    shape = pixels.values.shape[1:]
    if 1 not in shape:
        raise DataProblem(path, f"a picture must be one slice, got {shape}; give three numbers as size")
    axis = shape.index(1)
    spacing = None if pixels.spacing is None else tuple(s for i, s in enumerate(pixels.spacing) if i != axis)
    return pixels.values.squeeze(axis + 1), spacing


def _flat(path: Path, picture: Pixels, wanted: int) -> NDArray[Any]:
    """[channels, H, W]; where all three colours are the same they are stored as one, and come back here."""
    channels, _ = one_slice(path, picture)
    return channels.repeat(wanted, 0) if (len(channels), wanted) == (1, 3) else channels
