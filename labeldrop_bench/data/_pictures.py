"""Pictures that Pillow reads: what becomes of each pixel format, and which formats are refused.

A picture is what a viewer shows of it: a palette is its colours, and it is turned as its EXIF tag says. A label map is
the numbers that are stored: a palette is its indices. What is not in the tables below is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from labeldrop_bench.data.prepare import DataProblem

PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
"""Endings of files that Pillow reads."""
_FORMATS = ("PNG", "BMP", "DIB", "TIFF", "JPEG", "MPO")

_WIDE = {mode: mode for mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")}
IMAGE_MODES = {
    "1": "L", "L": "L", "LA": "LA", "P": "RGBA", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "YCbCr": "RGB", **_WIDE,
}  # fmt: skip
"""Pixel format of an image -> the one that it is read in. CMYK, LAB and HSV have no colours without a profile."""
LABEL_MODES = {**{mode: mode for mode in ("1", "L", "LA", "P", "PA")}, **_WIDE}
"""Pixel format of a label map -> the one that it is read in: the numbers that are stored."""
_LOSSLESS = {
    "PNG": None, "BMP": None, "DIB": None,
    "TIFF": {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma", "zstd", "group3", "group4",
             "tiff_ccitt"},
}  # fmt: skip
"""Format of a label map -> its compressions that keep every number; None: all."""
_ORIENTATION, _UPRIGHT = 0x0112, 1


def picture_size(path: Path, *, shown: bool) -> tuple[int, int]:
    """(width, height) as stored or as shown, from the header alone; raises what Pillow raises."""
    with Image.open(path, formats=_FORMATS) as image:
        # of PNG, whose tag may stand behind the pixels, Pillow would read everything; cameras write JPEG
        turned = shown and image.format in ("JPEG", "MPO") and image.getexif().get(_ORIENTATION, _UPRIGHT) > 4
        return image.size[::-1] if turned else image.size


def load_picture(path: Path, *, labels: bool) -> tuple[NDArray[Any], int]:
    """A picture [channels, H, W] with one channel, or three where they differ; and its EXIF orientation, 1 if upright.

    Raises:
        DataProblem: a format or pixel format that the tables do not have, several pictures in one file, an alpha
            channel that says something, a TIFF that is to be turned, or colours of 16 bits. Pillow raises its own
            errors on broken files.
    """
    with Image.open(path, formats=_FORMATS) as image:
        if (number := getattr(image, "n_frames", 1)) > 1:
            raise DataProblem(path, f"a picture must be one slice, got {number}; save it as a volume")
        if labels:
            _check_lossless(path, image)
        _check_depth(path, image)
        orientation = int(image.getexif().get(_ORIENTATION, _UPRIGHT))
        goal = (LABEL_MODES if labels else IMAGE_MODES).get(image.mode)
        if goal is None:
            raise DataProblem(path, _refusal(image.mode, labels))
        if image.format == "TIFF" and orientation != _UPRIGHT:  # Pillow 13 scrambles those without compression
            raise DataProblem(path, f"must be stored upright, got a TIFF with orientation {orientation}; save it again")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if not labels and "transparency" in image.info and goal in ("L", "RGB"):
            goal += "A"  # one grey value or colour is marked as transparent
        values = np.asarray(upright if goal == upright.mode else upright.convert(goal))
    if goal in ("LA", "PA", "RGBA"):
        _check_opaque(path, values[..., -1])
        values = values[..., :-1]
    channels = np.moveaxis(np.atleast_3d(values), -1, 0)  # [channels, H, W]
    return (channels[:1] if (channels == channels[:1]).all() else channels), orientation


def grey(channels: NDArray[Any]) -> NDArray[Any]:
    """[H, W] of a picture [1 or 3, H, W]: ITU-R 601 luma of what has colours, Pillow's "L"."""
    if len(channels) == 1:
        return np.ascontiguousarray(channels[0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(np.moveaxis(channels, 0, -1))).convert("L"))


def _refusal(mode: str, labels: bool) -> str:
    if labels:
        return (
            f"pixel format of a label map must be one of {', '.join(LABEL_MODES)}, got {mode}; "
            f"a label map has one channel: save label values, not colours"
        )
    return f"pixel format must be one of {', '.join(IMAGE_MODES)}, got {mode}; save it as RGB or grey"


def _check_lossless(path: Path, image: Image.Image) -> None:
    compression = str(image.info.get("compression", "raw"))
    known = _LOSSLESS.get(str(image.format), set())
    if known is not None and compression not in known:
        what = image.format if image.format != "TIFF" else f"TIFF with {compression} compression"
        raise DataProblem(path, f"a label map must be stored without loss, got {what}; export it again as PNG")


def _check_depth(path: Path, image: ImageFile.ImageFile) -> None:
    """Pillow reads 8 of the 16 bits of a colour: of a 12-bit camera's values 16 levels would be left.

    The tiles say it, until the picture is loaded, which its EXIF tags may do.
    """
    raw = {str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0]) for tile in image.tile}
    if image.mode not in _WIDE and any(";16" in mode for mode in raw):
        raise DataProblem(
            path, f"has 16 bits in each of several channels ({image.mode}); save it with 8, or each channel as a file"
        )


def _check_opaque(path: Path, alpha: NDArray[Any]) -> None:
    if (alpha != 255).any():
        share = float((alpha != 255).mean())
        raise DataProblem(
            path,
            f"has an alpha channel that is not opaque in {100 * share:.3g} % of the pixels: what these show depends on "
            f"the background; flatten it",
        )
