"""The one way from a file to pixels: volumes and pictures, images and label maps, with their place in space.

Every reader reads through here, so that the form in which something is stored does not change what it is:

- The order and direction of the axes on disk do not count. A volume is [D, H, W] with D running to the head (superior),
  H to the front (anterior), W to the right: nibabel's RAS+ backwards. A slice comes as its image is stored, and its
  label map is turned to it.
- `_pictures` has the tables of pixel formats.
- Label values are whole numbers, however they are stored (`look_up`).
- Files that are not whole, and headers that say nothing sensible about space, are refused with a `DataProblem`.

Which library reads what: nibabel .nii, .nii.gz and the pair .hdr / .img; SimpleITK .mha, .mhd, .nrrd and .nhdr (it
fills what is missing of other formats with anything); Pillow pictures (`PICTURES`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.data._pictures import PICTURES, grey, load_picture, picture_size
from labeldrop_bench.data.prepare import DataProblem

NIFTI = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz")
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")
_SAME_PLACE = 0.1  # of a voxel's shortest edge: rounding in headers, not another grid
_SKEW = 0.01  # cosine between two axes: rounding of float32 headers makes 1e-4, the tilt of a CT gantry .02 and more
_WHOLE = 1e-3
"""How far a label value may lie from a whole number: float32 scale factors and maps that were stored as 16-bit integers
with a scale factor (up to 131 labels) lie closer, a map that was interpolated has values far from any."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MILLIMETRES = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}


@dataclass(frozen=True)
class Pixels:
    """What a file holds.

    Attributes:
        values: [channels, D, H, W]; a picture has D = 1.
        affine: [4, 4] from the index (w, h, d, 1) to millimetres (right, anterior, superior, 1); None for pictures,
            whose files say nothing about that.
        orientation: EXIF orientation that a picture was turned by; 1 is upright.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64] | None
    orientation: int = 1

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres between voxels along D, H, W."""
        return None if self.affine is None else _spacing(self.affine)

    @property
    def axes(self) -> str | None:
        """Directions in which W, H and D run, such as "RAS"."""
        return None if self.affine is None else _axes(self.affine)


@dataclass(frozen=True)
class Place:
    """What the header of a volume or slice says of its grid.

    Attributes:
        shape: voxels along the stored axes (w, h, d).
        affine: [4, 4], as in `Pixels`.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def axes(self) -> str:
        """Directions in which the stored axes run, such as "RAS"."""
        return _axes(self.affine)

    def turned(self, axes: str = "RAS") -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Voxels and millimetres between them along D, H, W, once W, H and D run in these directions."""
        pixels = self.without_values(axes)
        assert pixels.spacing is not None  # noqa: S101 - for the type checker: only pictures have none
        return pixels.values.shape[1:], pixels.spacing

    def without_values(self, axes: str = "RAS") -> Pixels:
        """What `read` gives but for the values, which are zeros that take no memory."""
        from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

        turn = ornt_transform(io_orientation(self.affine), axcodes2ornt(axes))
        goes_to = turn[:, 0].astype(int).tolist()
        shape = (1, *(self.shape[goes_to.index(axis)] for axis in (2, 1, 0)))
        return Pixels(np.broadcast_to(np.uint8(0), shape), self.affine @ inv_ornt_aff(turn, self.shape))


def read(path: Path, axes: str | None = None, *, labels: bool = False) -> Pixels:
    """Everything in a file.

    Args:
        path: its ending says how it is read; capitals do not count.
        axes: directions in which W, H and D are to run, such as "RAS"; None: as stored. Pictures have none.
        labels: it is a label map.

    Raises:
        DataProblem: it cannot be read, is not whole, or is in a form that is not read here.
    """
    if path.name.lower().endswith(PICTURES):
        with told(path):
            picture, orientation = load_picture(path, labels=labels)
        return Pixels(picture[:, None], None, orientation)
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    with told(path):
        stored = _open(path)
        values = stored.load()
        if values.dtype.kind not in "buif":
            raise DataProblem(path, f"voxels must be numbers, got {values.dtype}; save each component as a file")
        goal = axcodes2ornt(axes or _axes(stored.affine))
        turn = ornt_transform(io_orientation(stored.affine), goal)
        affine = stored.affine @ inv_ornt_aff(turn, stored.shape)
        return Pixels(np.ascontiguousarray(apply_orientation(values, turn).T)[None], affine)


def read_place(path: Path) -> Place:
    """Where a volume or slice lies, from its header.

    Raises:
        DataProblem: as `read`.
    """
    with told(path):
        stored = _open(path)
        return Place(stored.shape, stored.affine)


def read_size(path: Path, *, shown: bool = False) -> tuple[int, int]:
    """(width, height) of a picture from its header, as stored or, turned by its EXIF tag, as `read` gives it.

    Raises:
        DataProblem: it cannot be read.
    """
    with told(path):
        return picture_size(path, shown=shown)


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A picture file of 8 bits as grey values [H, W], for readers whose places refer to the pixels as stored.

    Raises:
        DataProblem: it cannot be read, has more than 8 bits, or is to be turned.
    """
    pixels = read(path)
    if pixels.values.dtype != np.uint8 or pixels.orientation != 1:
        raise DataProblem(
            path,
            f"must be an upright picture of 8 bits, got {pixels.values.dtype} and EXIF orientation "
            f"{pixels.orientation}; download it again",
        )
    return grey(pixels.values[:, 0])


def label_values(path: Path, stored: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    """The different values in a label map, as stored and as whole numbers, which they are within rounding.

    Raises:
        DataProblem: a value that is no whole number.
    """
    found = np.unique(stored)
    whole = np.rint(found.astype(np.float64))
    with np.errstate(invalid="ignore"):  # inf - inf
        broken = found[~((np.abs(found - whole) <= _WHOLE) & (np.abs(whole) < 2**31))]
    if len(broken):
        raise DataProblem(
            path,
            f"label values must be whole numbers, got {[float(v) for v in broken[:5]]}; was the map interpolated? "
            f"Export it again",
        )
    return found, [int(value) for value in whole]


def look_up(path: Path, stored: NDArray[Any], value_of: dict[int, int]) -> NDArray[np.uint8]:
    """Stored label values as those of a label space.

    Raises:
        DataProblem: a value that is no whole number, or that `value_of` lacks.
    """
    found, values = label_values(path, stored)
    if unknown := [value for value in values if value not in value_of]:
        raise DataProblem(path, f"label values {unknown[:9]} are unknown; known: {sorted(value_of)}")
    return np.array([value_of[value] for value in values], np.uint8)[np.searchsorted(found, stored)]


def finite(paths: Sequence[Path], channels: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """[channels, *spatial]; values that are no numbers, or too large for float32, are a problem."""
    with np.errstate(over="ignore"):
        image = np.stack([np.asarray(channel, np.float32) for channel in channels])
    if not np.isfinite(image).all():
        raise DataProblem(paths[0], "holds values that are not finite; mend the file or leave the case out")
    return image


def check_same_grid(label_path: Path, labels: Pixels, image_path: Path, image: Pixels) -> None:
    """Raises DataProblem if two files that were turned to the same axes do not lie on the same pixels."""
    of_labels, of_image = labels.values.shape[1:], image.values.shape[1:]
    if labels.orientation != image.orientation:
        raise DataProblem(
            label_path,
            f"EXIF orientation {labels.orientation}, but {image_path.name} has {image.orientation}, so which of its "
            f"sides the labels refer to cannot be told; save both upright",
        )
    if of_labels != of_image:
        raise DataProblem(
            label_path,
            f"{_size(labels)}, but {image_path.name} has {_size(image)}; resample or export one to fit the other",
        )
    if labels.affine is None or image.affine is None:
        return
    ends = [(0, n - 1) for n in reversed(of_labels)]
    corners = np.stack([*(axis.ravel() for axis in np.meshgrid(*ends)), np.ones(8)])  # [4, 8]
    apart = float(np.abs((labels.affine - image.affine) @ corners).max())
    if apart > _SAME_PLACE * min(_spacing(image.affine)):
        raise DataProblem(
            label_path,
            f"lies up to {apart:.3g} mm from {image_path.name} (spacing {_mm(labels)} and {_mm(image)} mm); "
            f"resample one to the other",
        )


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Whatever a library raises on a broken file is one problem of that file."""
    try:
        yield
    except DataProblem:
        raise
    except Exception as error:  # each library has errors of its own, down to zlib.error and ITK's RuntimeError
        text = str(error).strip().splitlines()
        raise DataProblem(
            path, f"cannot be read ({text[-1] if text else type(error).__name__}); copy, download or export it again"
        ) from error


@dataclass(frozen=True)
class _Stored:
    """A file whose header was read: shape (w, h, d) and affine to millimetres (right, anterior, superior)."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    load: Callable[[], NDArray[Any]]


def _open(path: Path) -> _Stored:
    name = path.name.lower()
    if name.endswith(NIFTI):
        stored = _open_nifti(path)
    elif name.endswith(ITK):
        stored = _open_itk(path)
    else:
        raise DataProblem(path, f"the ending must be one of {', '.join((*NIFTI, *ITK, *PICTURES))}; convert it")
    _check_affine(path, stored.affine)
    return stored


def _open_nifti(path: Path) -> _Stored:
    import nibabel

    image: Any = nibabel.load(path)
    shape = _three(path, image.shape)
    affine = np.array(image.affine, np.float64)
    if hasattr(image.header, "get_xyzt_units"):
        affine[:3] *= _MILLIMETRES[image.header.get_xyzt_units()[0]]
    return _Stored(shape, affine, lambda: np.asanyarray(image.dataobj).reshape(shape))


def _open_itk(path: Path) -> _Stored:
    import SimpleITK as sitk  # noqa: N813 - its users' habit

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
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


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    """Numbers, columns that are not zero, right angles: what a resampled grid and a distance need."""
    length = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if not np.isfinite(affine).all() or not (length > 0).all():
        raise DataProblem(
            path, f"the header gives voxels no size or place, got the affine {affine[:3].tolist()}; mend or convert it"
        )
    cosines = np.triu((affine[:3, :3] / length).T @ (affine[:3, :3] / length), 1)
    if (skew := float(np.abs(cosines).max())) > _SKEW:
        angle = float(np.degrees(np.arccos(min(skew, 1.0))))
        raise DataProblem(
            path, f"the axes must be at right angles, got one of {angle:.3g} degrees; resample it to a straight grid"
        )


def _three(path: Path, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape with three axes; further ones must have length 1."""
    if len(shape) < 2 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        raise DataProblem(path, f"must have two or three axes, got lengths {tuple(shape)}; save one volume a file")
    return (*map(int, shape[:3]), *(1,) * (3 - len(shape)))


def _axes(affine: NDArray[np.float64]) -> str:
    from nibabel.orientations import aff2axcodes

    return "".join(aff2axcodes(affine))


def _spacing(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    w, h, d = (float(s) for s in np.sqrt((affine[:3, :3] ** 2).sum(0)))
    return d, h, w


def _size(pixels: Pixels) -> str:
    d, h, w = pixels.values.shape[1:]
    return f"{w} x {h} pixels" if pixels.affine is None else f"{(d, h, w)} voxels"


def _mm(pixels: Pixels) -> str:
    return " x ".join(f"{s:.4g}" for s in pixels.spacing or ())
