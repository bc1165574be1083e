"""Files that are not what they say: damaged, cut off, placed nowhere. Each loads what it says, or a line names it."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stored_forms import GEOMETRY, VALUES, VOLUMES, case, scene, turned

from labeldrop_bench.data._volumes import ReadPictures, ReadVolumes
from labeldrop_bench.data.prepare import Case, prepare


def result_beside_a_good_one(folder, bad, size=(6, 5, 4)):
    """What comes of a case beside a good one under `skip_bad`: (Prepared or None, lines)."""
    image, labels = scene(1, size)
    good = [VOLUMES["nii"](folder, name, values) for name, values in (("good", image), ("good_labels", labels))]
    cases = [Case("bad", "bad", 0, bad), Case("good", "good", 0, tuple(good))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept, prepared, skipped = prepare(
            cases, ReadVolumes(VALUES, 4, GEOMETRY, size), name="fuzz", settings={}, skip_bad=True
        )
    made = dict(zip([c.name for c in kept], prepared, strict=True))
    np.testing.assert_array_equal(made["good"].labels, labels)
    assert (made.get("bad") is None) == (len(skipped) == 1)
    assert all(str(path.parent) in line for line in skipped for path in bad[:1])
    return made.get("bad"), skipped


@given(
    st.sampled_from(sorted(VOLUMES)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_damaged_bytes_load_or_are_listed(form, changes, of_labels):
    image, labels = scene(0, (6, 5, 4))
    folder = Path(tempfile.mkdtemp())
    paths = VOLUMES[form](folder, "image", image), VOLUMES[form](folder, "labels", labels)
    content = bytearray(paths[of_labels].read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    paths[of_labels].write_bytes(content)
    made, _ = result_beside_a_good_one(folder, paths)
    if made is not None:
        assert np.isfinite(made.image).all()
        assert made.image.shape == (1, 6, 5, 4)
        assert made.labels.max() < 4


@pytest.mark.parametrize("stem", ["image", "labels"])
@pytest.mark.parametrize("form", sorted(VOLUMES))
def test_what_is_cut_off_is_listed(tmp_path, form, stem):
    """A file of which the end is missing never gives other values: SimpleITK fills them up in some formats."""
    image, labels = scene(0, (6, 5, 4))
    paths = VOLUMES[form](tmp_path, "image", image), VOLUMES[form](tmp_path, "labels", labels)
    beside = [path for path in tmp_path.glob(f"{stem}.*") if path.suffix in (".raw", ".zraw", ".img")]
    place = beside[0] if beside else paths[stem == "labels"]
    whole = place.read_bytes()
    listed = 0
    for share in (0.0, 0.1, 0.5, 0.8, 0.95):
        place.write_bytes(whole[: int(share * len(whole))])
        made, lines = result_beside_a_good_one(tmp_path, paths)
        listed += len(lines)
        if made is not None:  # what was cut off belonged to no voxel
            np.testing.assert_array_equal(made.labels, labels)
            np.testing.assert_allclose(made.image[0], image, rtol=1e-6)
    assert listed >= 4


finite = st.floats(-1e3, 1e3, width=32)
odd = st.sampled_from([0.0, np.nan, np.inf, 1e-30, 1e30, -1.0])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), finite | odd), min_size=1, max_size=6), st.booleans())
def test_any_affine_loads_what_it_says_or_is_listed(changes, both):
    """A header that gives the image another place than the labels, a shear, or no place at all, is never used."""
    import nibabel

    image, labels = scene(0, (6, 5, 4))
    folder = Path(tempfile.mkdtemp())
    paths = []
    for name, values, changed in (("image", image, True), ("labels", labels, both)):
        plain = turned(values, "RAS")
        affine = plain.affine.copy()
        for row, column, value in changes if changed else []:
            affine[row, column] = value
        made = nibabel.Nifti1Image(np.asarray(plain.dataobj), None)
        made.header["sform_code"], made.header["qform_code"] = 1, 0
        for row, key in enumerate(("srow_x", "srow_y", "srow_z")):
            made.header[key] = affine[row]
        paths.append(folder / f"{name}.nii")
        nibabel.save(nibabel.Nifti1Image(made.dataobj, None, made.header), paths[-1])
    made, _ = result_beside_a_good_one(folder, tuple(paths))
    if made is not None and not both:
        np.testing.assert_array_equal(made.labels, labels)
    if made is not None:
        steps = affine_of(paths[0])
        angles = (steps / np.linalg.norm(steps, axis=0)).T @ (steps / np.linalg.norm(steps, axis=0)) - np.eye(3)
        assert np.abs(angles).max() < 0.01


def affine_of(path):
    import nibabel

    return nibabel.load(path).affine[:3, :3]


@given(st.sampled_from([".png", ".tif", ".bmp", ".jpg"]), st.binary(max_size=64), st.integers(0, 500))
def test_damaged_pictures_load_or_are_listed(ending, noise, place):
    folder = Path(tempfile.mkdtemp())
    image, labels = scene(0, (20, 17))
    Image.fromarray(image).save(folder / f"a{ending}")
    Image.fromarray(labels).save(folder / "mask.png")
    content = (folder / f"a{ending}").read_bytes()
    (folder / f"a{ending}").write_bytes(content[:place] + noise + content[place + len(noise) :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept, prepared, skipped = prepare(
            [case(folder / f"a{ending}", folder / "mask.png")],
            ReadPictures(VALUES, 4, (0,), 1, (20, 17)),
            name="fuzz",
            settings={},
            skip_bad=True,
        )
    assert len(kept) + len(skipped) == 1
    assert all(np.isfinite(item.image).all() for item in prepared)
