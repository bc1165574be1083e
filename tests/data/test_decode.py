"""Whatever form a file has: the same sample, or a line that names it."""

import itertools
import re
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stored_forms import GEOMETRY, IMAGES, LABELS, VALUES, VOLUMES, case, scene

from labeldrop_bench.data import prepare as preparing
from labeldrop_bench.data._pictures import IMAGE_MODES, LABEL_MODES
from labeldrop_bench.data._volumes import ReadPictures, ReadVolumes
from labeldrop_bench.data.decode import look_up, read, read_grey
from labeldrop_bench.data.folder import Read
from labeldrop_bench.data.prepare import DataProblem

AXES = ["".join(codes) for order in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*order)]


def folders():
    made = Path(tempfile.mkdtemp())
    for part in ("images", "labels"):
        (made / part).mkdir()
    return made / "images", made / "labels"


@given(st.integers(0, 99), st.sampled_from(sorted(IMAGES)), st.sampled_from(sorted(LABELS)))
def test_one_picture_in_every_form_is_one_sample(seed, image_form, label_form):
    image, labels = scene(seed, (20, 17))
    images, masks = folders()
    inputs = case(IMAGES[image_form](images, image), LABELS[label_form](masks, labels))
    for reader in (
        ReadPictures(VALUES, 4, (0,), 1, image.shape),
        Read((("a", 1), ("b", 2), ("c", 3)), image.shape),
    ):
        got = reader(inputs)
        np.testing.assert_array_equal(got.image[0], image)
        np.testing.assert_array_equal(got.labels, labels)
        assert got.spacing is None


@given(st.integers(0, 99), *[st.sampled_from(sorted(VOLUMES))] * 2, *[st.sampled_from(AXES)] * 2)
def test_one_volume_in_every_form_and_direction_is_one_sample(seed, image_form, label_form, image_axes, label_axes):
    image, labels = scene(seed, (6, 5, 4))
    folder = Path(tempfile.mkdtemp())
    inputs = case(
        VOLUMES[image_form](folder, "image", image, image_axes),
        VOLUMES[label_form](folder, "labels", labels, label_axes),
    )
    got = ReadVolumes(VALUES, 4, GEOMETRY, image.shape)(inputs)
    # float32 of a scale factor of 0.1: seven digits
    np.testing.assert_allclose(got.image[0], image, rtol=1e-6)
    np.testing.assert_array_equal(got.labels, labels)
    assert got.spacing == pytest.approx(GEOMETRY, rel=1e-6)


@given(st.integers(0, 99), *[st.sampled_from(sorted(VOLUMES))] * 2, *[st.sampled_from(AXES)] * 2, st.integers(0, 2))
def test_one_slice_in_every_form_and_direction_is_one_sample(
    seed, image_form, label_form, image_axes, label_axes, flat
):
    """Axial, coronal or sagittal: along the axes asked for, whatever those of the two files are."""
    image, labels = scene(seed, tuple(n for i, n in enumerate((20, 17, 19)) if i != flat))
    folder = Path(tempfile.mkdtemp())
    inputs = case(
        VOLUMES[image_form](folder, "image", np.expand_dims(image, flat), image_axes),
        VOLUMES[label_form](folder, "labels", np.expand_dims(labels, flat), label_axes),
    )
    got = ReadPictures(VALUES, 4, (0,), 1, image.shape, "RAS")(inputs)
    np.testing.assert_allclose(got.image[0], image, rtol=1e-6)
    np.testing.assert_array_equal(got.labels, labels)
    assert got.spacing == pytest.approx([s for i, s in enumerate(GEOMETRY) if i != flat], rel=1e-6)
    # By default the image comes as it is stored, and the labels with it.
    plane = [code for code in image_axes if code not in ("SI", "AP", "RL")[flat]]
    stored = [19 if code in "RL" else 17 if code in "AP" else 20 for code in reversed(plane)]
    alone = ReadPictures(VALUES, 4, (0,), 1, tuple(stored))(inputs)
    pairs = np.stack([alone.image[0].round(), alone.labels], -1).reshape(-1, 2)
    expected = np.stack([image, labels], -1).reshape(-1, 2)
    assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, expected.tolist()))


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii.gz"])
def test_files_of_two_axes_have_a_place_too(tmp_path, ending):
    import SimpleITK as sitk  # noqa: N813

    image, labels = scene(0, (20, 17))
    for name, values, across in (("image", image, 1), ("labels", labels[:, ::-1], -1), ("moved", labels, 1)):
        made = sitk.GetImageFromArray(np.ascontiguousarray(values))
        made.SetSpacing((0.5, 0.25))
        made.SetDirection((across, 0, 0, 1))
        made.SetOrigin({"image": (3, 4), "labels": (3 + 16 * 0.5, 4), "moved": (3.1, 4)}[name])
        sitk.WriteImage(made, str(tmp_path / f"{name}{ending}"))
    paths = [tmp_path / f"{name}{ending}" for name in ("image", "labels", "moved")]
    got = ReadPictures(VALUES, 4, (0,), 1, image.shape)(case(*paths[:2]))
    np.testing.assert_array_equal(got.image[0], image)
    np.testing.assert_array_equal(got.labels, labels)
    assert got.spacing == pytest.approx((0.25, 0.5))
    with pytest.raises(DataProblem, match=rf"moved{ending}: lies up to 0.1 mm from image"):
        ReadPictures(VALUES, 4, (0,), 1, image.shape)(case(paths[0], paths[2]))


def test_colours_of_a_palette_stay(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 17, 3)).astype(np.uint8) // 64 * 64
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    Image.fromarray(colours).quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(np.zeros((20, 17), np.uint8)).save(tmp_path / "mask.png")
    assert Image.open(tmp_path / "palette.png").mode == "P"
    for name in ("rgb.png", "palette.png"):
        got = Read((("a", 1),), (20, 17), "rgb")(case(tmp_path / name, tmp_path / "mask.png"))
        np.testing.assert_array_equal(got.image, np.moveaxis(colours, -1, 0))
        assert Read((("a", 1),), (20, 17))(case(tmp_path / name, tmp_path / "mask.png")).image.shape == (1, 20, 17)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("mode", ["1", "CMYK", "HSV", "I", "I;16", "L", "LA", "LAB", "P", "PA", "RGB", "RGBA", "YCbCr"])
def test_every_pixel_format_is_in_the_table_or_refused_by_name(tmp_path, mode, labels):
    path = tmp_path / "a.tif"
    image = Image.new(mode, (9, 7))
    if mode in ("LA", "PA", "RGBA"):
        image.putalpha(255)
    try:
        image.save(path)
    except OSError:
        pytest.skip(f"Pillow does not write {mode}")
    mode = Image.open(path).mode  # as it comes back
    if mode in (LABEL_MODES if labels else IMAGE_MODES):
        assert read(path, labels=labels).values.shape[1:] == (1, 7, 9)
    else:
        with pytest.raises(DataProblem, match=rf"a.tif: pixel format .* got {mode};"):
            read(path, labels=labels)


GREY = np.arange(63, dtype=np.uint8).reshape(7, 9)


def write(path, image, **options):
    image.save(path, **options)
    return path


def half_opaque(mode):
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(np.where(GREY < 30, 255, 0).astype(np.uint8)))
    return image


@pytest.mark.parametrize(
    ("image", "ending", "options", "labels", "text"),
    [
        (half_opaque("L"), ".png", {}, False, "has an alpha channel that is not opaque in 52.4 % of the pixels"),
        (half_opaque("L"), ".png", {}, True, "has an alpha channel"),
        (half_opaque("RGB"), ".png", {}, False, "has an alpha channel"),
        (
            Image.fromarray(GREY),
            ".png",
            {"transparency": 5},
            False,
            "has an alpha channel that is not opaque in 1.59 %",
        ),
        (Image.fromarray(GREY), ".jpg", {}, True, "a label map must be stored without loss, got JPEG"),
        (Image.fromarray(GREY), ".tif", {"compression": "jpeg"}, True, "without loss, got TIFF with jpeg compression"),
        (Image.fromarray(GREY), ".png", {"format": "JPEG"}, True, "without loss, got JPEG"),
        (Image.fromarray(GREY), ".png", {"format": "GIF"}, False, "cannot be read"),
        (Image.fromarray(GREY), ".tif", {"save_all": True, "append_images": [Image.fromarray(GREY)]}, False, "got 2"),
    ],
)
def test_pictures_that_are_refused(tmp_path, image, ending, options, labels, text):
    with pytest.raises(DataProblem, match=re.escape(text)):
        read(write(tmp_path / f"a{ending}", image, **options), labels=labels)


def png(bits, kind, values):
    """A PNG file as Pillow does not write it: `kind` 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA; values [H, W, n]."""

    def chunk(name, content):
        whole = name + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("bits", [8, 16])
def test_no_bit_is_lost(tmp_path, bits, kind, channels):
    values = np.random.default_rng(0).integers(0, 2**bits, (7, 9, channels))
    if channels in (2, 4):
        values[..., -1] = 2**bits - 1
    path = tmp_path / "a.png"
    path.write_bytes(png(bits, kind, values))
    if bits == 16 and channels > 1:
        with pytest.raises(DataProblem, match=r"a.png: has 16 bits in each of several channels"):
            read(path)
    else:
        colours = values[..., :3] if channels > 2 else values[..., :1]
        np.testing.assert_array_equal(read(path).values[:, 0], np.moveaxis(colours, -1, 0))


def test_a_picture_is_turned_as_its_file_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer shows it turned by 90 degrees clockwise
    sideways = Image.fromarray(np.rot90(GREY).copy())
    np.testing.assert_array_equal(read(write(tmp_path / "turned.png", sideways, exif=exif)).values[0, 0], GREY)
    with pytest.raises(DataProblem, match="must be stored upright, got a TIFF with orientation 6"):
        read(write(tmp_path / "turned.tif", sideways, exif=exif))
    upright = write(tmp_path / "upright.png", Image.fromarray(GREY // 32))
    reader = ReadPictures(((0, 0), (1, 1)), 2, (0,), 1, (16, 16))
    with pytest.raises(DataProblem, match=r"upright.png: EXIF orientation 1, but turned.png has 6"):
        reader(case(tmp_path / "turned.png", upright))
    same = write(tmp_path / "same.png", Image.fromarray(np.rot90(GREY // 32).copy()), exif=exif)
    reader(case(tmp_path / "turned.png", same))
    with pytest.raises(DataProblem, match="must be an upright picture of 8 bits"):
        read_grey(tmp_path / "turned.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, 2.0], [0, 1, 2]),
        ([1.0000000149, 1.9999999], [1, 2]),
        (np.array([0, 13107, 32768]) * (2 / 65535), "whole numbers"),  # half of the steps of 16 bits: no label
        (np.array([0, 32767, 65535]) * (2 / 65535), [0, 1, 2]),  # float labels that were stored as 16-bit integers
        ([0.0, 0.99], "whole numbers, got [0.99]"),
        ([np.nan, 1.0], "whole numbers, got [nan]"),
        ([np.inf], "whole numbers"),
        ([1e300], "whole numbers"),
        ([-1.0], "label values [-1] are unknown; known: [0, 1, 2]"),
        (np.array([0, 7], np.int64), "label values [7] are unknown"),
        (np.array([True, False]), [1, 0]),
    ],
)
def test_label_values_are_whole_numbers(values, expected):
    stored = np.asarray(values)
    if isinstance(expected, list):
        np.testing.assert_array_equal(look_up(Path("x"), stored, {0: 0, 1: 1, 2: 2}), expected)
    else:
        with pytest.raises(DataProblem, match=re.escape(expected)):
            look_up(Path("x"), stored, {0: 0, 1: 1, 2: 2})


def test_other_endings_and_voxels_are_refused_by_name(tmp_path):
    import nibabel

    (tmp_path / "a.vtk").touch()
    with pytest.raises(DataProblem, match=r"a.vtk: the ending must be one of .nii, .*\.png"):
        read(tmp_path / "a.vtk")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.complex64), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(DataProblem, match=r"c.nii: voxels must be numbers, got complex64"):
        read(tmp_path / "c.nii")


NUMBERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16"]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("ending", [".nii", ".mha"])
def test_every_type_of_number_is_read_or_refused_by_name(tmp_path, ending, dtype):
    import nibabel
    import SimpleITK as sitk  # noqa: N813

    image, labels = (array.astype(dtype) for array in scene(0, (6, 5, 4)))
    image = image * 0.5 if image.dtype.kind in "fcg" else image
    inputs = tmp_path / f"image{ending}", tmp_path / f"labels{ending}"
    for path, values in zip(inputs, (image, labels), strict=True):
        if ending == ".nii":
            nibabel.save(nibabel.Nifti1Image(values.T, np.eye(4), dtype=values.dtype), path)
        else:
            made = sitk.GetImageFromArray(values)
            made.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
            sitk.WriteImage(made, str(path))
    try:
        got = ReadVolumes(VALUES, 4, (1, 1, 1), image.shape)(case(*inputs))
    except DataProblem as problem:
        assert np.dtype(dtype).kind == "c"
        assert "voxels must be numbers" in str(problem) or "one value a voxel" in str(problem)  # noqa: PT017
    else:
        np.testing.assert_array_equal(got.image[0], image.astype(np.float32))
        np.testing.assert_array_equal(got.labels, labels.astype(np.uint8))


# Files beside files


@pytest.mark.parametrize(
    ("form", "ending"),
    [("mhd and raw", ".raw"), ("mhd and zraw", ".zraw"), ("nhdr and raw", ".raw"), ("hdr and img", ".img"),
     ("img and hdr", ".hdr")],
)  # fmt: skip
def test_what_lies_beside_a_file_belongs_to_it(tmp_path, form, ending):
    path = VOLUMES[form](tmp_path, "a", scene(0, (6, 5, 4))[0])
    (beside,) = [p for p in tmp_path.iterdir() if p.name == f"a{ending}"]
    key = preparing._key(case(path), "n", {})
    assert preparing._key(case(path), "n", {}) == key
    beside.write_bytes(beside.read_bytes() + b" ")
    assert preparing._key(case(path), "n", {}) != key
    beside.unlink()
    with pytest.raises(DataProblem, match=f"a{ending}: cannot be found"):
        preparing._key(case(path), "n", {})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ElementDataFile = a b.raw\n", ["a b.raw"]),
        ("ElementDataFile = LOCAL\n...", []),
        ("ElementDataFile = LIST\n1.raw\n2.raw\n", ["1.raw", "2.raw"]),
        ("ElementDataFile = s%02d.raw 1 5 2\n", ["s01.raw", "s03.raw", "s05.raw"]),
        ("NDims = 3\n", []),
    ],
)
def test_names_in_a_header(tmp_path, text, names):
    from labeldrop_bench.data._beside import side_files

    (tmp_path / "a.mhd").write_text(text)
    assert [path.name for path in side_files(tmp_path / "a.mhd")] == names
    assert side_files(tmp_path / "none.mhd") == side_files(tmp_path / "a.png") == ()
