"""One picture or volume in every form in which it can be stored: for the tests of `data.decode`.

`IMAGES[form](folder, grey)` and `LABELS[form](folder, values)` write an array [H, W] with Pillow and return the file;
`VOLUMES[form](folder, name, values, axes)` does so for [D, H, W] = (superior, anterior, right), along other axes.
"""

from __future__ import annotations

import gzip

import numpy as np
from PIL import Image

from labeldrop_bench.data.prepare import Case

GEOMETRY = (2.0, 1.5, 0.5)  # millimetres along D, H, W
VALUES = tuple((value, value) for value in range(4))  # of labels as stored and as read


def _saved(ending, make=Image.fromarray, **options):
    def save(folder, array):
        path = folder / f"file{ending}"
        make(array).save(path, **options)
        return path

    return save


def _palette(array):
    """Indices in another order than the levels, as programs that shrink PNG files make them."""
    order = np.random.default_rng(0).permutation(256).astype(np.uint8)
    index = np.argsort(order).astype(np.uint8)
    image = Image.frombytes("P", array.shape[::-1], index[array].tobytes())
    image.putpalette(np.repeat(order, 3).tobytes())
    return image


def _with_alpha(mode):
    def make(array):
        image = Image.fromarray(array).convert(mode)
        image.putalpha(255)
        return image

    return make


def _as(dtype):
    return lambda array: Image.fromarray(array.astype(dtype))


def _colour(array):
    return Image.fromarray(np.stack([array] * 3, -1))


IMAGES = {
    "png": _saved(".png"),
    "PNG": _saved(".PNG"),
    "bmp": _saved(".bmp"),
    "tif": _saved(".tif"),
    "tif, LZW": _saved(".tiff", compression="tiff_lzw"),
    "grey with alpha": _saved(".png", _with_alpha("L")),
    "palette": _saved(".png", _palette),
    "palette, tif": _saved(".tif", _palette),
    "RGB": _saved(".png", _colour),
    "RGB, bmp": _saved(".bmp", _colour),
    "RGBA": _saved(".png", _with_alpha("RGB")),
    "16 bits": _saved(".png", _as(np.uint16)),
    "16 bits, tif": _saved(".tif", _as(np.uint16)),
    "16 bits, big-endian tif": _saved(".tif", lambda a: Image.fromarray(a.astype(">u2"))),
    "32 bits, tif": _saved(".tif", _as(np.int32)),
    "float, tif": _saved(".tif", _as(np.float32)),
}


def _coloured_labels(array):
    """A label map whose palette is for the eye, with its background marked as transparent."""
    image = Image.frombytes("P", array.shape[::-1], array.tobytes())
    image.putpalette([(37 * i) % 256 for i in range(768)])
    return image


LABELS = {
    "png": _saved(".png"),
    "PNG": _saved(".PNG"),
    "bmp": _saved(".bmp"),
    "tif, deflate": _saved(".tif", compression="tiff_adobe_deflate"),
    "palette": _saved(".png", _coloured_labels),
    "palette with transparency": _saved(".png", _coloured_labels, transparency=0),
    "palette, tif": _saved(".tif", _coloured_labels),
    "grey with alpha": _saved(".png", _with_alpha("L")),
    "16 bits": _saved(".png", _as(np.uint16)),
    "16 bits, tif": _saved(".tif", _as(np.uint16)),
    "32 bits, tif": _saved(".tif", _as(np.int32)),
    "float, tif": _saved(".tif", _as(np.float32)),
}


def turned(values, axes):
    """A nibabel image of [D, H, W] whose stored axes run in other directions."""
    from nibabel import Nifti1Image
    from nibabel.orientations import axcodes2ornt, ornt_transform

    affine = np.diag([*reversed(GEOMETRY), 1.0])
    affine[:3, 3] = 3, -7, 11
    return Nifti1Image(values.T, affine).as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes)))


def _nifti(ending, change=lambda image: image):
    def save(folder, name, values, axes="RAS"):
        import nibabel

        path = folder / f"{name}{ending}"
        nibabel.save(change(turned(values, axes)), path)
        return path

    return save


def _floats(image):
    from nibabel import Nifti1Image

    return Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)


def _with_last_axis(image):
    from nibabel import Nifti1Image

    return Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)


def _in_micrometres(image):
    from nibabel import Nifti1Image

    made = Nifti1Image(np.asarray(image.dataobj), np.diag([1e3, 1e3, 1e3, 1]) @ image.affine)
    made.header.set_xyzt_units("micron")
    return made


def _pair(image):
    from nibabel import Nifti1Pair

    return Nifti1Pair(np.asarray(image.dataobj), image.affine)


def _scaled(folder, name, values, axes="RAS"):
    """Each value v stored as 10 v with the scale factor 0.1, which float32 does not hold exactly."""
    image = turned(values, axes)
    stored = np.asarray(image.dataobj).astype(np.uint16) * 10
    header = image.header.copy()
    header.set_data_dtype(np.uint16)
    header.set_data_shape(stored.shape)
    header.set_slope_inter(0.1, 0)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path = folder / f"{name}.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 4 + stored.tobytes(order="F")))
    return path


def _itk(ending, compress=False):
    def save(folder, name, values, axes="RAS"):
        import SimpleITK as sitk  # noqa: N813

        image = turned(values, axes)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine  # RAS to LPS
        size = np.sqrt((affine[:3, :3] ** 2).sum(0))
        made = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(image.dataobj).T))
        made.SetSpacing(size.tolist())
        made.SetDirection((affine[:3, :3] / size).ravel().tolist())
        made.SetOrigin(affine[:3, 3].tolist())
        path = folder / f"{name}{ending}"
        sitk.WriteImage(made, str(path), compress)
        return path

    return save


VOLUMES = {
    "nii": _nifti(".nii"),
    "nii.gz": _nifti(".nii.gz"),
    "NII": lambda folder, name, values, axes="RAS": _nifti(".nii")(folder, name, values, axes).rename(
        folder / f"{name}.NII"
    ),
    "nii, float64": _nifti(".nii", _floats),
    "nii, four axes": _nifti(".nii.gz", _with_last_axis),
    "nii, micrometres": _nifti(".nii.gz", _in_micrometres),
    "nii, scale factor": _scaled,
    "hdr and img": _nifti(".hdr", _pair),
    "img and hdr": _nifti(".img", _pair),
    "mha": _itk(".mha"),
    "mha, compressed": _itk(".mha", compress=True),
    "mhd and raw": _itk(".mhd"),
    "mhd and zraw": _itk(".mhd", compress=True),
    "nrrd": _itk(".nrrd"),
    "nrrd, compressed": _itk(".nrrd", compress=True),
    "nhdr and raw": _itk(".nhdr"),
}


def scene(seed, shape):
    """An image of whole numbers from 1 on, and labels 0 ... 3 that no flip or turn leaves in place."""
    generator = np.random.default_rng(seed)
    return generator.integers(1, 256, shape).astype(np.uint8), generator.integers(0, 4, shape).astype(np.uint8)


def case(*inputs):
    return Case("c", "c", 0, inputs)
