import re

import numpy as np
import pytest
import torch
from data_trees import Heart, dice, save_mhd, save_nifti, write_camus
from pydantic import ValidationError

from labeldrop_bench import data

SIZE = 64


@pytest.fixture
def root(tmp_path):
    return tmp_path / "CAMUS_public"


def load(root, **options):
    info = data.get("camus")
    return info.load(info.options(root=root, **{"size": SIZE, **options}))


def by_case(dataset):
    """Case name -> (image [1, H, W], target [H, W], split)."""
    return {
        case: (split.images[i], split.target[i].numpy(), name)
        for name, split in dataset.splits().items()
        for i, case in enumerate(split.cases)
    }


@pytest.mark.parametrize("release", ["nifti", "mhd"])
def test_what_was_drawn_comes_back(root, release):
    drawn = write_camus(root, release=release)
    dataset = load(root)
    found = by_case(dataset)
    assert found.keys() == drawn.keys()
    assert dataset.label_space.classes == ("background", "LV", "LVM", "LA")
    assert dataset.domains == ("CAMUS",)
    assert dataset.train.annotated.all()
    for case, (image, target, _) in found.items():
        np.testing.assert_array_equal(target, drawn[case])
        means = [float(image[0][torch.from_numpy(drawn[case] == value)].mean()) for value in range(4)]
        assert np.argsort(means).tolist() == [0, 1, 3, 2]  # the image lies under its mask


def test_official_lists(root):
    write_camus(root)
    splits = load(root).splits()
    expected = {"train": 8, "validation": 1, "test": 1}
    lists = {"train": "training", "validation": "validation", "test": "testing"}
    for name, split in splits.items():
        listed = (root / "database_split" / f"subgroup_{lists[name]}.txt").read_text().split()
        assert set(split.patients) == set(listed)
        assert len(listed) == expected[name]


@pytest.mark.parametrize("release", ["nifti", "mhd"])
def test_split_by_chance_without_lists(root, release):
    write_camus(root, release=release, lists=False)
    options = {"size": 16, "views": ["4CH"], "instants": ["ED"]}
    sizes = [len(split) for split in load(root, **options).splits().values()]
    assert sizes == [8, 1, 1]
    tests = {load(root, seed=seed, **options).test.patients for seed in range(4)}
    assert len(tests) > 1
    assert len(load(root, validation=0.3, test=0.2, **options).validation) == 3


def test_views_instants_and_the_same_split(root):
    write_camus(root, lists=False)
    everything, some = by_case(load(root)), by_case(load(root, views=["2CH"], instants=["ES"]))
    assert some.keys() == {case for case in everything if case.endswith("-2CH-ES")}
    assert all(everything[case][2] == split for case, (_, _, split) in some.items())


def test_quality(root):
    drawn = write_camus(root, patients=12, lists=False)
    wanted = {"Good": {0}, "Medium": {0, 1}, "Poor": {0, 1, 2}}
    for quality, levels in wanted.items():
        expected = {c for c in drawn if (int(c[7:11]) - 1 + (c[12] == "4")) % 3 in levels}
        assert by_case(load(root, size=16, validation=0.3, test=0.3, min_quality=quality)).keys() == expected


def test_not_square_and_another_size(root):
    """Half the height, a third of the width: the mask is picked, the image averaged, x and y stay apart."""
    write_camus(root)
    heart = Heart.random(5, SIZE)
    labels = heart.labels()
    stem = root / "database_nifti" / "patient0001" / "patient0001_4CH_ED"
    save_nifti(stem, heart.image(labels).repeat(2, 0).repeat(3, 1))
    save_nifti(f"{stem}_gt", labels.repeat(2, 0).repeat(3, 1))
    np.testing.assert_array_equal(by_case(load(root))["patient0001-4CH-ED"][1], labels)
    image, wide, _ = by_case(load(root, size=(64, 32)))["patient0001-4CH-ED"]
    assert image.shape == (1, 64, 32)
    assert dice(wide.repeat(2, 1) == 1, labels == 1) > 0.93


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_kind_of_bad_nifti_is_listed(root):
    write_camus(root)
    place = root / "database_nifti"
    file = lambda n, what: place / f"patient000{n}" / f"patient000{n}_{what}"  # noqa: E731
    zero = np.zeros((SIZE, SIZE), np.uint8)
    file(1, "2CH_ED.nii.gz").unlink()
    cut(file(2, "2CH_ED.nii.gz"))
    file(3, "2CH_ED.nii.gz").write_bytes(b"not a picture")
    save_nifti(file(4, "2CH_ED_gt"), zero[:, :-1])
    save_nifti(file(5, "2CH_ED_gt"), zero + 4)
    save_nifti(file(6, "2CH_ED_gt"), zero)
    save_nifti(file(7, "2CH_ED"), np.zeros((3, SIZE, SIZE), np.uint8))
    save_nifti(file(8, "2CH_ED"), np.full((SIZE, SIZE), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"camus: 8 problem\(s\)") as error:
        load(root)
    message = str(error.value)
    for number, text in enumerate(
        [
            r"2CH_ED.nii.gz: cannot be found",
            r"2CH_ED.nii.gz: cannot be read",
            r"2CH_ED.nii.gz: cannot be read",
            r"2CH_ED_gt.nii.gz: \(1, 64, 63\) voxels, but patient0004_2CH_ED.nii.gz has \(1, 64, 64\) voxels",
            r"2CH_ED_gt.nii.gz: label values \[4\] are unknown; known: \[0, 1, 2, 3\]",
            r"2CH_ED_gt.nii.gz: mask is empty",
            r"2CH_ED.nii.gz: a picture must be one slice",
            r"2CH_ED.nii.gz: holds values that are not finite",
        ],
        start=1,
    ):
        assert re.search(f"patient000{number}_{text}", message), message
    with pytest.warns(UserWarning, match=r"camus: 8 problem\(s\)"):
        dataset = load(root, skip_bad=True)
    assert len(dataset.skipped) == 8
    assert len(by_case(dataset)) == 32
    assert "patient0001-2CH-ED" not in by_case(dataset)


def test_bad_mhd_is_listed(root):
    write_camus(root, release="mhd")
    place = root / "training"
    (place / "patient0001" / "patient0001_4CH_ES.raw").unlink()
    cut(place / "patient0002" / "patient0002_4CH_ES_gt.raw")
    (place / "patient0003" / "patient0003_4CH_ES.mhd").write_text("nonsense")
    save_mhd(place / "patient0004" / "patient0004_4CH_ES_gt", np.full((SIZE, SIZE), 9, np.uint8))
    with pytest.raises(ValueError, match=r"camus: 4 problem\(s\)") as error:
        load(root)
    lines = str(error.value).splitlines()
    assert "patient0001_4CH_ES.raw: cannot be found" in lines[1]
    assert "patient0002_4CH_ES_gt" in lines[2]
    assert "patient0003_4CH_ES.mhd: cannot be read" in lines[3]
    assert "patient0004_4CH_ES_gt.mhd: label values [9] are unknown" in lines[4]


def test_problems_of_the_lists(root):
    write_camus(root)
    training = root / "database_split" / "subgroup_training.txt"
    testing = root / "database_split" / "subgroup_testing.txt"
    first, second, third, *rest = training.read_text().split()
    training.write_text("\n".join([first, second, second, *rest, "patient0099"]))
    testing.write_text(f"{testing.read_text()}{first}\n")
    with pytest.raises(ValueError, match=r"camus: 4 problem\(s\)") as error:
        load(root)
    message = str(error.value)
    assert re.search(f"{first} is listed 2 times .subgroup_training.txt, subgroup_testing.txt.", message)
    assert re.search(f"{second} is listed 2 times .subgroup_training.txt, subgroup_training.txt.", message)
    assert re.search(f"{third}: in none of the lists", message)
    assert re.search("patient0099: no such folder", message)
    with pytest.warns(UserWarning, match="4 problem"):
        left = by_case(load(root, skip_bad=True))
    assert {case[:11] for case in left} == {f"patient{i:04d}" for i in range(1, 11)} - {first, second, third}
    testing.unlink()
    with pytest.raises(FileNotFoundError, match=r"subgroup_testing.txt is not there"):
        load(root)


def test_problems_of_the_quality(root):
    write_camus(root, lists=False)
    info = root / "database_nifti" / "patient0002" / "Info_4CH.cfg"
    info.write_text("ED: 1\nImageQuality: Great\n")
    (root / "database_nifti" / "patient0003" / "Info_2CH.cfg").unlink()
    load(root, size=16)  # nobody asked for the quality
    with pytest.raises(ValueError, match=r"camus: 2 problem\(s\)") as error:
        load(root, min_quality="Poor")
    assert f"{info}: ImageQuality must be one of Poor, Medium, Good, got ['Great']" in str(error.value)
    assert "patient0003/Info_2CH.cfg: cannot be read" in str(error.value)


def test_which_release(root):
    root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"must hold database_nifti/ or training/"):
        load(root)
    write_camus(root, size=16)
    write_camus(root, size=16, release="mhd")
    with pytest.raises(ValueError, match='set release to "nifti" or "mhd"'):
        load(root)
    assert len(load(root, release="mhd", size=16).test) == 4


def test_options():
    options = data.get("camus").options
    for bad, message in (
        ({"views": ["3CH"]}, "2CH"),
        ({"instants": ["ED", "ED"]}, "must all differ"),
        ({"validation": 0.5, "test": 0.5}, "leave something to training"),
        ({"roots": "x"}, "Extra inputs"),
    ):
        with pytest.raises(ValidationError, match=message):
            options(**bad)


@pytest.mark.parametrize("release", ["nifti", "mhd"])
def test_spacing_after_resizing(root, release):
    write_camus(root, release=release)
    height, width = (0.15, 0.3) if release == "nifti" else (1, 1)
    dataset = load(root, size=(32, 128))
    expected = torch.tensor([height * 2, width / 2], dtype=torch.float64).expand(4, 2)
    torch.testing.assert_close(dataset.test.spacing, expected, rtol=1e-6, atol=0)  # the header holds float32


def test_a_mask_that_is_stored_the_other_way_round_is_turned_to_its_image(root):
    import nibabel

    drawn = write_camus(root)
    stem = root / "database_nifti" / "patient0001" / "patient0001_4CH_ED"
    mask = nibabel.load(f"{stem}_gt.nii.gz")
    values = np.asarray(mask.dataobj)
    nibabel.save(flipped(mask), f"{stem}_gt.nii.gz")
    np.testing.assert_array_equal(by_case(load(root))["patient0001-4CH-ED"][1], drawn["patient0001-4CH-ED"])
    nibabel.save(nibabel.Nifti1Image(values, np.diag([0.3, 0.3, 1, 1])), f"{stem}_gt.nii.gz")
    with pytest.raises(
        ValueError, match=r"patient0001_4CH_ED_gt.nii.gz: lies up to 9.45 mm from patient0001_4CH_ED.nii"
    ):
        load(root)


def flipped(image):
    """A 2-D NIfTI image with its first axis the other way round, and its header too."""
    import nibabel

    affine = image.affine @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (image.affine @ [image.shape[0] - 1, 0, 0, 1])[:3]
    return nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1], affine)


def test_folders_that_are_no_patients_are_listed(root):
    write_camus(root, lists=False)
    for name in ("Patient0011", ".git", "._patient0001"):
        (root / "database_nifti" / name).mkdir()
    with pytest.warns(UserWarning, match="1 not taken, since their names do not begin with patient: Patient0011"):
        assert load(root).skipped[0].endswith(": Patient0011")
