"""Pictures and volumes from files, turned the same way round, brought to one grid.

A volume is held as [D, H, W] with D running to the head (superior), H to the front (anterior) and W to the right, which
is nibabel's RAS+ order backwards; the file may hold it in any order. A picture is [channels, H, W] as stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labeldrop_bench.data.prepare import Case, DataProblem, Prepared

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
"""Endings that Pillow reads; what is no NIfTI and not among these is SimpleITK's (.mha, .mhd, .nrrd, ...)."""
_COLOUR = ("RGB", "RGBA")
_SAME_PLACE = 0.1  # of a voxel's shortest edge: rounding in headers, not another grid
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """Values on a grid in space.

    Attributes:
        values: [D, H, W].
        affine: [4, 4] from the index (w, h, d, 1) to millimetres (right, anterior, superior, 1).
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along D, H, W."""
        return _spacing(self.affine)


def read_volume(path: Path) -> Volume:
    """A volume from a file that nibabel or SimpleITK reads.

    Raises:
        DataProblem: it cannot be read, or has other than three axes.
    """
    from nibabel.orientations import apply_orientation

    stored = _open(path)
    with _told(path):
        values = stored.load()
    turn, affine = stored.turned()
    return Volume(np.ascontiguousarray(apply_orientation(values, turn).T), affine)


def read_spacing(path: Path) -> tuple[float, float, float]:
    """Millimetres between voxels along D, H, W, from the header alone.

    Raises:
        DataProblem: it cannot be read, or has other than three axes.
    """
    return _spacing(_open(path).turned()[1])


def read_picture(path: Path) -> NDArray[Any]:
    """[channels, H, W]: a picture file (grey or palette index: one channel; colour: three), or one slice of a volume.

    Raises:
        DataProblem: it cannot be read, or is no single picture.
    """
    if not path.name.lower().endswith(PICTURES):
        stored = _open(path)
        with _told(path):
            values = stored.load().T
        flat = [axis for axis, length in enumerate(values.shape) if length == 1]
        if not flat:
            raise DataProblem(path, f"a picture must be one slice, got {values.shape}; give three numbers as size")
        return values.squeeze(flat[0])[None]
    with _told(path):
        image = Image.open(path)
        image.load()
    if (slices := getattr(image, "n_frames", 1)) > 1:
        raise DataProblem(path, f"a picture must be one slice, got {slices}; save it as a volume")
    if image.mode in _COLOUR:
        return np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return np.asarray(image)[None]


@dataclass(frozen=True)
class ReadVolumes:
    """Reads a case whose inputs are one volume for each channel, then the label map, all on the same voxels.

    Attributes:
        value_of: (stored label value, value in the label space) pairs; a value that is not among them is a problem.
        num_labels: L.
        spacing, size: of the result along D, H, W, in millimetres and voxels.
    """

    value_of: tuple[tuple[int, int], ...]
    num_labels: int
    spacing: tuple[float, ...]
    size: tuple[int, ...]

    def __call__(self, case: Case) -> Prepared:
        *image_paths, label_path = case.inputs
        volumes = [read_volume(path) for path in image_paths]
        stored = read_volume(label_path)
        for path, volume in zip(image_paths, volumes, strict=True):
            check_same_grid(label_path, stored, path, volume)
        image = _checked(image_paths, [volume.values for volume in volumes])
        if not image.any():
            raise DataProblem(image_paths[0], "is zero everywhere; leave the case out")
        labels = look_up(label_path, stored.values, dict(self.value_of))
        image, labels, spacing = to_grid(image, labels, volumes[0].spacing, self.spacing, self.size)
        return Prepared(z_score(image), labels, (True,) * self.num_labels, spacing)


@dataclass(frozen=True)
class ReadPictures:
    """Reads a case whose inputs are pictures, together of as many channels as are expected, then the label map.

    Attributes:
        value_of, num_labels: as for `ReadVolumes`.
        channels: which of the channels to keep, in order.
        num_channels: how many there are.
        size: (height, width) of the result in pixels.
    """

    value_of: tuple[tuple[int, int], ...]
    num_labels: int
    channels: tuple[int, ...]
    num_channels: int
    size: tuple[int, ...]

    def __call__(self, case: Case) -> Prepared:
        *image_paths, label_path = case.inputs
        pictures = [read_picture(path) for path in image_paths]
        stored = read_picture(label_path)
        for path, picture in zip(image_paths, pictures, strict=True):
            if picture.shape[1:] != stored.shape[1:]:
                raise DataProblem(
                    label_path, f"{_pixels(stored)} pixels, but {path.name} has {_pixels(picture)}; export both again"
                )
        image = _checked(image_paths, [channel for picture in pictures for channel in picture])
        if len(image) != self.num_channels:
            raise DataProblem(image_paths[0], f"{len(image)} channel(s), but channel_names has {self.num_channels}")
        if len(stored) != 1:
            raise DataProblem(label_path, f"a label map must have one channel, got {len(stored)}; save label values")
        labels = look_up(label_path, stored[0], dict(self.value_of))
        image, labels = resize_picture(image[list(self.channels)], labels, self.size)
        return Prepared(z_score(image), labels, (True,) * self.num_labels)


def _checked(paths: Sequence[Path], channels: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """[channels, *spatial]; values that are no numbers are a problem."""
    image = np.stack([np.asarray(channel, np.float32) for channel in channels])
    if not np.isfinite(image).all():
        raise DataProblem(paths[0], "holds values that are not finite; mend the file or leave the case out")
    return image


def _pixels(picture: NDArray[Any]) -> str:
    return f"{picture.shape[2]} x {picture.shape[1]}"


def check_same_grid(label_path: Path, labels: Volume, image_path: Path, image: Volume) -> None:
    """Raises DataProblem if two volumes do not lie on the same voxels."""
    if labels.values.shape != image.values.shape:
        raise DataProblem(
            label_path,
            f"{labels.values.shape} voxels, but {image_path.name} has {image.values.shape}; resample one to the other",
        )
    ends = [(0, n - 1) for n in reversed(labels.values.shape)]
    corners = np.stack([*(axis.ravel() for axis in np.meshgrid(*ends)), np.ones(8)])  # [4, 8]
    apart = float(np.abs((labels.affine - image.affine) @ corners).max())
    if apart > _SAME_PLACE * min(image.spacing):
        raise DataProblem(
            label_path,
            f"lies up to {apart:.3g} mm from {image_path.name} (spacing {_mm(labels.spacing)} and "
            f"{_mm(image.spacing)} mm); resample one to the other",
        )


def to_grid(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    size: Sequence[int],
) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, ...]]:
    """A volume and its labels at another spacing, cut or filled up to a size.

    As nnU-Net does, the volume is cut to the voxels that are not zero first. Then it is resampled (image: linear, after
    a Gaussian blur along axes that shrink; labels: nearest), and the middle of it is kept; where it is too small the
    image is filled up with its lowest value and the labels with background.

    Args:
        image: [channels, D, H, W], not zero everywhere.
        labels: [D, H, W].
        spacing: millimetres between voxels along D, H, W.
        new_spacing: what it becomes.
        size: voxels of the result along D, H, W.

    Returns:
        [channels, *size], [*size], and the spacing that they have: `new_spacing` but for whole numbers of voxels.
    """
    box = _not_zero(image)
    image, labels = image[(slice(None), *box)], labels[box]
    before = labels.shape
    scale = np.asarray(spacing) / np.asarray(new_spacing)
    shape = tuple(max(1, round(n * s)) for n, s in zip(labels.shape, scale, strict=True))
    if shape != labels.shape:
        from skimage.transform import resize

        shrinks = any(new < n for new, n in zip(shape, labels.shape, strict=True))
        image = np.stack([resize(c, shape, order=1, anti_aliasing=shrinks, preserve_range=True) for c in image])
        labels = resize(labels, shape, order=0, anti_aliasing=False, preserve_range=True).astype(np.uint8)
    got = tuple(float(s * n / new) for s, n, new in zip(spacing, before, shape, strict=True))
    middle = np.stack([_middle(channel, size, channel.min()) for channel in image])
    return middle.astype(np.float32, copy=False), _middle(labels, size, 0), got


def resize_picture(
    image: NDArray[np.float32], labels: NDArray[np.uint8], size: Sequence[int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A picture [channels, H, W] and its labels [H, W] at another size, as the data set `folder` does it."""
    to = (size[1], size[0])
    channels = [np.array(Image.fromarray(channel).resize(to, Image.Resampling.BILINEAR)) for channel in image]
    return np.stack(channels), np.array(Image.fromarray(labels).resize(to, Image.Resampling.NEAREST))


def z_score(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """[channels, *spatial]: each channel with mean 0 and standard deviation 1; a constant one becomes 0."""
    axes = tuple(range(1, image.ndim))
    mean, sd = image.mean(axes, np.float64, keepdims=True), image.std(axes, np.float64, keepdims=True)
    return np.asarray((image - mean) / np.maximum(sd, 1e-6), np.float32)


def look_up(path: Path, stored: NDArray[Any], value_of: dict[int, int]) -> NDArray[np.uint8]:
    """Stored label values as those of a label space.

    Raises:
        DataProblem: a value that `value_of` lacks.
    """
    found = np.unique(stored)
    unknown = [v.item() for v in found if v.item() not in value_of]
    if unknown:
        raise DataProblem(path, f"label values {unknown[:9]} are unknown; known: {sorted(value_of)}")
    values = np.array([value_of[v.item()] for v in found], np.uint8)
    return values[np.searchsorted(found, stored)]


@dataclass(frozen=True)
class _Stored:
    """A file whose header was read: shape (w, h, d) and affine to millimetres (right, anterior, superior)."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    load: Callable[[], NDArray[Any]]

    def turned(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """How to turn the axes to right, anterior, superior (nibabel's orientation), and the affine after it."""
        from nibabel.orientations import inv_ornt_aff, io_orientation

        turn = io_orientation(self.affine)
        return turn, self.affine @ inv_ornt_aff(turn, self.shape)


def _open(path: Path) -> _Stored:
    return _open_nifti(path) if path.name.lower().endswith(NIFTI) else _open_itk(path)


def _open_nifti(path: Path) -> _Stored:
    import nibabel

    with _told(path):
        image: Any = nibabel.load(path)
    shape = _three(path, image.shape)
    return _Stored(shape, image.affine, lambda: np.asanyarray(image.dataobj).reshape(shape))


def _open_itk(path: Path) -> _Stored:
    import SimpleITK as sitk  # noqa: N813 - its users' habit

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _told(path):
        reader.ReadImageInformation()
    shape = _three(path, reader.GetSize())
    if (components := reader.GetNumberOfComponents()) != 1:
        raise DataProblem(path, f"must have one value a voxel, got {components}; save each as a file of its own")
    axes = min(reader.GetDimension(), 3)
    affine = np.eye(4)
    affine[:axes, :axes] = np.reshape(reader.GetDirection(), (reader.GetDimension(), -1))[:axes, :axes]
    affine[:axes, :axes] *= reader.GetSpacing()[:axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    return _Stored(shape, _LPS_TO_RAS @ affine, lambda: sitk.GetArrayFromImage(reader.Execute()).T.reshape(shape))


def _three(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with three axes; further ones must have length 1."""
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise DataProblem(path, f"must have two or three axes, got lengths {tuple(shape)}; save one volume a file")
    return (*shape[:3], *(1,) * (3 - len(shape)))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever a library raises on a broken file is one problem of that file."""
    try:
        yield
    except Exception as error:  # each library has errors of its own, down to zlib.error and ITK's RuntimeError
        text = str(error).strip().splitlines()
        raise DataProblem(path, f"cannot be read ({text[-1] if text else type(error).__name__})") from error


def _spacing(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    w, h, d = (float(s) for s in np.sqrt((affine[:3, :3] ** 2).sum(0)))
    return d, h, w


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{s:.4g}" for s in spacing)


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
