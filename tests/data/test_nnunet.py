import numpy as np
import pydantic
import pytest
import torch
from nnunet_tree import BRATS, LABELS, by_case, change, picture, read, volume, write_array, write_nnunet

from labeldrop_bench.data.base import IGNORED
from labeldrop_bench.data.nnunet import NnunetOptions, load


@pytest.fixture
def five(tmp_path):
    return write_nnunet(tmp_path / "Dataset001_Five", {f"c{i}": volume(i) for i in range(5)}, LABELS)


def test_volumes_without_a_change_of_grid_come_back(five):
    dataset = read(five)
    assert dataset.label_space.classes == ("background", "a", "b")
    assert dataset.domains == ("all",)
    assert {name: len(split) for name, split in dataset.splits().items()} == {"train": 3, "validation": 1, "test": 1}
    for i in range(5):
        _, image, truth = by_case(dataset)[f"c{i}"]
        expected, labels = volume(i)
        expected = torch.from_numpy((expected - expected.mean()) / expected.std())
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)  # float32: six digits of values up to 2
        assert torch.equal(truth, torch.from_numpy(labels))
    assert dataset.train.patients == dataset.train.cases


@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("axes", ["LPS", "ASR", "RAS"])
def test_every_order_of_axes_and_every_library_reads_the_same(five, tmp_path, ending, axes):
    """Images and label maps may even be stored in different directions."""
    folder = write_nnunet(tmp_path / "Dataset002_Other", {}, LABELS, ending=ending)
    for i in range(5):
        image, labels = volume(i)
        write_array(folder / "imagesTr" / f"c{i}_0000{ending}", image[0], (1, 1, 1), axes)
        write_array(folder / "labelsTr" / f"c{i}{ending}", labels, (1, 1, 1), "RAS" if axes == "LPS" else axes)
    change(folder, numTraining=5)
    one, other = by_case(read(five)), by_case(read(folder))
    for case, (split, image, truth) in one.items():
        assert other[case][0] == split
        assert torch.equal(other[case][1], image)
        assert torch.equal(other[case][2], truth)


def test_resampling_keeps_places_in_millimetres(tmp_path):
    """Half the spacing along D, the same along H, a third along W; the box stays where it is in the head."""
    cases = {}
    for i in range(5):
        labels = np.zeros((40, 20, 60), np.uint8)
        labels[10:20, 5:9, 30:48] = 1
        cases[f"c{i}"] = ((labels * 3.0 + 1)[None].astype(np.float32), labels)
    folder = write_nnunet(tmp_path / "Dataset003_R", cases, {"background": 0, "a": 1}, spacing=(0.5, 1, 1 / 3))
    dataset = read(folder, size=(20, 20, 20), spacing=(1, 1, 1))
    truth = torch.zeros(20, 20, 20, dtype=torch.uint8)
    truth[5:10, 5:9, 10:16] = 1
    assert (dataset.train.truth[:] == truth).all()
    image = dataset.train.images[:][0, 0]
    assert image[6:9, 6:8, 12:14].min() > image[12:].max()
    # By default nothing is resampled where all have the same spacing.
    whole = read(folder, size=(40, 20, 60))
    assert torch.equal(whole.train.truth[0], torch.from_numpy(cases["c0"][1]))
    torch.testing.assert_close(dataset.train.spacing, torch.ones(3, 3, dtype=torch.float64))
    torch.testing.assert_close(whole.test.spacing, torch.tensor([[0.5, 1, 1 / 3]], dtype=torch.float64))


def test_the_default_spacing_is_the_median_of_the_set(tmp_path):
    folder = write_nnunet(tmp_path / "Dataset003_M", {}, LABELS)
    for i, spacing in enumerate([(1, 2, 3), (1, 2, 3), (2, 2, 3), (1, 4, 3), (1, 2, 9)]):
        image, labels = volume(i)
        write_array(folder / "imagesTr" / f"c{i}_0000.nii.gz", image[0], spacing, "LPS")
        write_array(folder / "labelsTr" / f"c{i}.nii.gz", labels, spacing, "LPS")
    change(folder, numTraining=5)
    median, asked = read(folder), read(folder, spacing=(1, 2, 3))
    assert torch.equal(median.train.images[:], asked.train.images[:])
    assert not torch.equal(median.train.images[:], read(folder, spacing=(1, 2, 4)).train.images[:])


def test_the_default_size_is_the_median_at_the_spacing(tmp_path):
    """Multiples of 16, the nearest one and at least one; stored in any order of axes."""
    folder = write_nnunet(tmp_path / "Dataset003_S", {}, LABELS)
    for i, depth in enumerate([30, 30, 40, 60, 60]):
        image, labels = volume(i, shape=(depth, 70, 20))
        for part, name, values in (("images", f"c{i}_0000", image[0]), ("labels", f"c{i}", labels)):
            write_array(folder / f"{part}Tr" / f"{name}.nii.gz", values, (3, 1, 1), ("LPS", "ASR")[i % 2])
    change(folder, numTraining=5)
    assert read(folder, size=None).train.images.shape[2:] == (48, 64, 16)
    assert read(folder, size=None, spacing=(1, 2, 2)).train.images.shape[2:] == (128, 32, 16)
    assert read(folder, size=32).train.images.shape[2:] == (32, 32, 32)


def test_pictures_and_slices_have_a_default_size_too(tmp_path):
    cases = {f"c{i}": picture(i, shape=(44, 20)) for i in range(5)}
    one = write_nnunet(tmp_path / "Dataset003_P", cases, LABELS, ending=".png")
    two = write_nnunet(tmp_path / "Dataset004_P", cases, LABELS)
    for folder in (one, two):
        assert read(folder, size=None).train.images.shape[1:] == (1, 48, 16)
        assert read(folder, size=32).train.images.shape[1:] == (1, 32, 32)
    with pytest.raises(ValueError, match=r"size must be two numbers for pictures \(.png\), and spacing left out"):
        read(one, size=None, spacing=(1, 1, 1))
    mixed = write_nnunet(tmp_path / "Dataset005_M", {**cases, "d": volume(0)}, LABELS)
    with pytest.raises(ValueError, match=r"size must be given.*5 of 6 cases are single slices, the others volumes"):
        read(mixed, size=None)
    assert read(mixed, size=None, domains={"flat": "c*"}).train.images.shape[1:] == (1, 48, 16)


def test_nothing_that_can_be_read_is_told_case_by_case(five):
    for path in (five / "imagesTr").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="nnunet: 5 problem"):
        read(five, size=None)


def test_cut_to_what_is_not_zero_then_the_middle_filled_up_with_the_lowest(tmp_path):
    def shown(i):
        image, labels = np.zeros((1, 40, 30, 50), np.float32), np.zeros((40, 30, 50), np.uint8)
        inside, drawn = volume(i, (20, 16, 17))
        image[0, 18:38, 3:19, 30:47], labels[18:38, 3:19, 30:47] = inside - 5, drawn
        return image, labels

    folder = write_nnunet(tmp_path / "Dataset004_Z", {f"c{i}": shown(i) for i in range(5)}, LABELS)
    for case, (_, image, truth) in by_case(read(folder, size=(16, 18, 17))).items():
        inside, drawn = volume(int(case[1:]), (20, 16, 17))
        expected = np.full((16, 18, 17), inside.min() - 5)
        expected[:, 1:17] = inside[0, 2:18] - 5
        expected = torch.from_numpy((expected - expected.mean()) / expected.std()).float()
        torch.testing.assert_close(image[0], expected, atol=1e-4, rtol=0)
        assert torch.equal(truth[:, 1:17], torch.from_numpy(drawn[2:18]))
        assert not truth[:, [0, 17]].any()


def test_channels_are_standardised_each_and_chosen_by_name(tmp_path):
    cases = {f"c{i}": volume(i, channels=2) for i in range(5)}
    for image, _ in cases.values():
        image[1] *= 1000
    folder = write_nnunet(tmp_path / "Dataset005_C", cases, LABELS, channel_names=("T1", "T2"))
    both, second, turned = read(folder), read(folder, channels=["T2"]), read(folder, channels=["T2", "T1"])
    torch.testing.assert_close(both.train.images[:].std((2, 3, 4), correction=0), torch.ones(3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.train.images[:], both.train.images[:].flip(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(second.train.images[:], both.train.images[:][:, 1:], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"channels: \S+dataset.json has no channel 'T3'. Known: T1, T2"):
        read(folder, channels=["T3"])


def test_regions_super_labels_and_ignore(tmp_path):
    cases = {f"c{i}": volume(i, values=5) for i in range(5)}
    folder = write_nnunet(tmp_path / "Dataset006_B", cases, {**BRATS, "ignore": 4})
    dataset = read(folder)
    assert dataset.label_space.classes == ("background", "whole", "core", "enhancing")
    drawn = torch.from_numpy(cases["c0"][1])
    _, _, truth = by_case(dataset)["c0"]
    assert torch.equal(truth, torch.where(drawn == 4, IGNORED, drawn))
    assert dataset.train.known.all()

    change(folder, labels={"background": 0, "whole heart": [1, 2, 3], "ignore": 4})
    heart = read(folder, classes_of={"whole heart": ["LV", "LVM", "LA"]})
    assert heart.label_space.classes == ("background", "LV", "LVM", "LA")
    assert heart.train.annotated.tolist() == [[True, True]] * 3
    assert heart.train.known.tolist() == [[True, False, False, False]] * 3
    for target, truth in zip(heart.train.target[:], heart.train.truth[:], strict=True):
        assert torch.equal(target == 1, (drawn > 0) & (drawn < 4))
        assert torch.equal(truth == IGNORED, drawn > 0)
    with pytest.raises(ValueError, match=r"classes_of: .* has no label 'heart'.*Known: whole heart"):
        read(folder, classes_of={"heart": "LV"})


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".mha"])
def test_pictures(tmp_path, ending):
    folder = write_nnunet(tmp_path / "Dataset007_P", {f"c{i}": picture(i) for i in range(5)}, LABELS, ending=ending)
    dataset = read(folder, size=(24, 20))
    for case, (_, image, truth) in by_case(dataset).items():
        expected, labels = picture(int(case[1:]))
        expected = torch.from_numpy((expected - expected.mean()) / expected.std()).float()
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
        assert torch.equal(truth, torch.from_numpy(labels))
    assert read(folder, size=(48, 16)).train.images.shape == (3, 1, 48, 16)


def test_a_colour_picture_may_hold_all_channels(tmp_path):
    folder = write_nnunet(tmp_path / "Dataset008_RGB", {}, LABELS, ending=".png", channel_names=("R", "G", "B"))
    for i in range(5):
        red, labels = picture(i)
        write_array(folder / "imagesTr" / f"c{i}_0000.png", np.stack([red[0], red[0] // 2, 255 - red[0]], -1), ())
        write_array(folder / "labelsTr" / f"c{i}.png", labels, ())
    change(folder, numTraining=5)
    dataset = read(folder, size=(24, 20))
    torch.testing.assert_close(dataset.train.images[:][:, 0], -dataset.train.images[:][:, 2], atol=1e-4, rtol=0)
    assert read(folder, size=(24, 20), channels=["B"]).train.images.shape[1] == 1


def test_labels_ts_is_the_test_split(tmp_path):
    cases, test = {f"c{i}": volume(i) for i in range(5)}, {f"t{i}": volume(9 + i) for i in range(2)}
    folder = write_nnunet(tmp_path / "Dataset009_T", cases, LABELS, test=test)
    dataset = read(folder)
    assert dataset.test.cases == ("t0", "t1")
    assert (len(dataset.train), len(dataset.validation)) == (4, 1)
    (folder / "labelsTs" / "t1.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"1 problem.*\n.*labelsTs/t1.nii.gz: not there, but its image is"):
        read(folder)
    (folder / "labelsTs" / "t0.nii.gz").unlink()  # images without any labels: the challenge's, not ours
    assert set(by_case(read(folder))) == set(cases)
    with pytest.raises(ValueError, match="patient 'x' must lie in one split, got imagesTr and imagesTs"):
        read(write_nnunet(tmp_path / "Dataset010_T", {"x1": volume(0)}, LABELS, test={"x2": volume(1)}), group="x")


def test_domains_and_patients(tmp_path):
    names = [f"{site}_{patient}_{frame}" for site in "ab" for patient in range(3) for frame in range(2)]
    folder = write_nnunet(tmp_path / "Dataset011_D", {n: volume(i) for i, n in enumerate(names)}, LABELS)
    domains = {"A": "a_*", "B": ["b_0_*", "b_[12]_*"]}
    options = {"group": r"(\w_\d)_", "validation": 0.3, "test": 0.3}
    dataset = read(folder, domains=domains, **options)
    for split in dataset.splits().values():
        assert [c[0].upper() for c in split.cases] == [dataset.domains[d] for d in split.domain.tolist()]
        assert [c[:3] for c in split.cases] == list(split.patients)
    assert [len(s) for s in dataset.splits().values()] == [4, 4, 4]
    assert len(by_case(read(folder, domains={"A": "a_*"}))) == 6
    other = read(folder, domains=domains, **options, seed=1)
    assert other.test.cases != dataset.test.cases
    with pytest.raises(ValueError, match="in more than one domain: A, B"):
        read(folder, domains={"A": "a_*", "B": "*"})
    with pytest.raises(ValueError, match="a_0_0: group = 'q' does not match"):
        read(folder, group="q")
    with pytest.raises(
        ValueError, match=r"split 'validation' and 'test' has no image of domain 'A' \(2 image\(s\) of 1 "
    ):
        read(folder, domains={"A": "a_0*", "B": "b*"}, group=r"(\w_\d)_")


def test_all_problems_are_listed_at_once_or_left_out(tmp_path):
    cases = {f"c{i}": volume(i, channels=2) for i in range(14)}
    folder = write_nnunet(tmp_path / "Dataset012_X", cases, LABELS, channel_names=("T1", "T2"))
    images, labels = folder / "imagesTr", folder / "labelsTr"
    (images / "c0_0001.nii.gz").unlink()
    (labels / "c1.nii.gz").unlink()
    (images / "c2_0000.nii.gz").unlink()
    (images / "c2_0001.nii.gz").unlink()
    whole = (images / "c3_0000.nii.gz").read_bytes()
    (images / "c3_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    (labels / "c4.nii.gz").write_bytes(b"no volume")
    write_array(labels / "c5.nii.gz", volume(5)[1][:-1], (1, 1, 1))
    write_array(labels / "c6.nii.gz", volume(6)[1], (1, 1, 1.5))
    write_array(labels / "c7.nii.gz", volume(7)[1] * 7, (1, 1, 1))
    write_array(images / "c8_0001.nii.gz", np.full((18, 20, 16), np.nan, np.float32), (1, 1, 1))
    for number in (0, 1):
        write_array(images / f"c9_000{number}.nii.gz", np.zeros((18, 20, 16), np.float32), (1, 1, 1))
    with pytest.raises(ValueError, match="nnunet: 12 problem") as error:
        read(folder)
    for line in (
        "dataset.json: numTraining is 14, but imagesTr and labelsTr have 11 whole cases",
        "imagesTr/c0_0001.nii.gz: not there",
        "labelsTr/c1.nii.gz: not there",
        "imagesTr/c2_0000.nii.gz: not there",
        "imagesTr/c2_0001.nii.gz: not there",
        "imagesTr/c3_0000.nii.gz: cannot be read",
        "labelsTr/c4.nii.gz: cannot be read",
        "labelsTr/c5.nii.gz: (17, 20, 16) voxels, but c5_0000.nii.gz has (18, 20, 16)",
        "labelsTr/c6.nii.gz: lies up to 7.5 mm from c6_0000.nii.gz (spacing 1 x 1 x 1.5 and 1 x 1 x 1 mm)",
        "labelsTr/c7.nii.gz: label values [7, 14] are unknown; known: [0, 1, 2]",
        "imagesTr/c8_0000.nii.gz: holds values that are not finite",
        "imagesTr/c9_0000.nii.gz: is zero everywhere",
    ):
        assert f"\n  {folder / line}" in str(error.value)
    with pytest.warns(UserWarning, match="12 problem"):
        dataset = read(folder, skip_bad=True)
    assert set(by_case(dataset)) == {"c10", "c11", "c12", "c13"}
    assert len(dataset.skipped) == 12


def test_problems_of_pictures(tmp_path):
    folder = write_nnunet(tmp_path / "Dataset013_P", {f"c{i}": picture(i) for i in range(5)}, LABELS, ending=".png")
    write_array(folder / "labelsTr" / "c0.png", picture(0)[1][:-1], ())
    write_array(folder / "labelsTr" / "c1.png", np.zeros((24, 20, 3), np.uint8), ())
    write_array(folder / "imagesTr" / "c2_0000.png", np.stack([picture(2)[0][0], *2 * [picture(2)[0][0] // 2]], -1), ())
    with pytest.raises(ValueError, match="3 problem") as error:
        read(folder, size=(24, 20))
    for line in (
        "labelsTr/c0.png: 20 x 23 pixels, but c0_0000.png has 20 x 24",
        "labelsTr/c1.png: pixel format of a label map must be one of 1, L, LA, P, PA",
        "imagesTr/c2_0000.png: 3 channel(s), but channel_names has 1",
    ):
        assert str(folder / line) in str(error.value)
    with pytest.raises(ValueError, match=r"size must be two numbers for pictures \(.png\)"):
        read(folder)


def test_a_volume_is_no_picture(five):
    with pytest.raises(ValueError, match=r"must be one slice, got \(18, 20, 16\); give three numbers as size"):
        read(five, size=(18, 20))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": {"a": 1}}, "labels: .*must name background = 0"),
        ({"labels": {"background": 0, "a": [1, 0]}}, "labels: .*must have values from 1 on"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2]}}, "label ignore must be one value"),
        ({"labels": {"0": "background", "1": "a"}}, r"not in the format of nnU-Net 2:\s+labels"),
        ({"channel_names": {"1": "T2"}}, "channel_names must give 0, 1"),
        ({"file_ending": None}, "file_ending"),
        ({"labels": {"background": 0, "a": [1, 2], "b": [2, 3]}}, "dataset.json: no class is in all of a, b"),
    ],
)
def test_bad_descriptions(five, keys, message):
    change(five, **keys)
    with pytest.raises(ValueError, match=message):
        read(five)


def test_cases_that_dataset_json_names(five, tmp_path, monkeypatch):
    """nnU-Net's key `dataset`: any names, in any folder, by a path from the data set's folder or from the root."""
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    named = {}
    for i in range(5):
        image, labels = five / "imagesTr" / f"c{i}_0000.nii.gz", five / "labelsTr" / f"c{i}.nii.gz"
        moved = image.rename(tmp_path / "elsewhere" / f"scan {i}.nii.gz")
        named[f"d{i}"] = {"images": [f"../elsewhere/{moved.name}"], "label": str(labels)}
    named["d1"]["images"] = ["$ELSEWHERE/scan 1.nii.gz"]
    change(five, dataset=named)
    cases = by_case(read(five))
    assert set(cases) == set(named)
    for i in range(5):
        assert torch.equal(cases[f"d{i}"][2], torch.from_numpy(volume(i)[1]))
    named["d2"]["images"] *= 2
    named["d3"]["label"] = "labelsTr/c9.nii.gz"
    named["d4"]["images"] = ["scan.mha"]
    change(five, dataset=named)
    with pytest.raises(ValueError, match="nnunet: 5 problem") as error:
        read(five)
    for line in (
        "dataset.json: dataset: d2 must name 1 image(s), one for each channel, got 2",
        "dataset.json: numTraining is 5, but `dataset` names 2 whole cases",
        "labelsTr/c9.nii.gz: not there, but dataset.json names it for d3",
        "scan.mha: must end in .nii.gz, the file_ending of dataset.json, which names it for d4",
        "scan.mha: not there, but dataset.json names it for d4",
    ):
        assert f"\n  {five / line}" in str(error.value)
    change(five, dataset=["c0"])
    with pytest.raises(ValueError, match=r"not in the format of nnU-Net 2:\s+dataset:"):
        read(five)


def test_annotated_labels_of_a_case(tmp_path):
    cases = {f"c{i}": volume(i) for i in range(5)}
    for name in ("c1", "c2", "c4"):
        cases[name][1][cases[name][1] == 2] = 0
    folder = write_nnunet(tmp_path / "Dataset001_Partly", cases, LABELS)
    change(folder, annotated_labels={"c1": ["a"], "c2": ["a"], "c0": ["b", "a"], "c4": ["a"]})
    dataset = read(folder, domains={"all": ["c0", "c1", "c2", "c3"]}, validation=0.3, test=0.3)  # c4 is in none
    for split in dataset.splits().values():
        for case, annotated, known in zip(split.cases, split.annotated.tolist(), split.known.tolist(), strict=True):
            assert annotated == known == [True, True, case in ("c0", "c3")]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"c11": ["a"]}, "dataset.json: annotated_labels: there is no case 'c11'; did you mean 'c1'"),
        ({"c1": ["aa", "b"]}, "annotated_labels: case 'c1': there is no label 'aa'; did you mean 'a'"),
        ({"c1": ["b", "b"]}, "annotated_labels: these label maps hold pixels of labels"),
        ({"c1": ["a"]}, r"c1, domain all: \d+ pixel\(s\) of b\n"),
        ({"c1": "a"}, r"not in the format of nnU-Net 2:\s+annotated_labels.c1"),
    ],
)
def test_annotated_labels_must_fit(five, said, message):
    change(five, annotated_labels=said)
    with pytest.raises(ValueError, match=message):
        read(five)


def test_missing_folders(five, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no 'Dataset001_Fiv'; did you mean 'Dataset001_Five'"):
        load(NnunetOptions(root=five.parent, dataset="Dataset001_Fiv", size=(18, 20, 16)))
    monkeypatch.setenv("LABELDROP_DATA", str(five.parent.parent))
    assert NnunetOptions(folder=five.parent.name, dataset=five.name, size=(16, 16)).find() == five


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (8, 16, 16)}, "size"),
        (
            {"size": (64,)},
            r"size must be \[height, width\] in pixels, \[D, H, W\] in voxels.*got \(64,\); leave it out",
        ),
        ({"size": 8}, "or one number for all axes, each 16 or more, got 8"),
        ({"size": True}, "got True"),
        ({"size": "64"}, "got '64'"),
        ({"size": (16, 16), "spacing": (1, 1, 1)}, "spacing is for volumes"),
        ({"spacing": (1, 1, 0)}, "spacing"),
        ({"validation": 0.5, "test": 0.5}, "must leave something to training"),
        ({"group": "("}, "group must be a regular expression"),
        ({"domains": {}}, "domains"),
        ({"clases_of": {}}, "clases_of"),
    ],
)
def test_bad_options_name_the_key(options, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        NnunetOptions(**{"dataset": "x", "size": (16, 16, 16), **options})
