"""Data in nnU-Net's raw format: files that are not taken, channels, colours, directions, headers without a place."""

import numpy as np
import pytest
import torch
from nnunet_tree import LABELS, by_case, change, picture, read, volume, write_array, write_nnunet


@pytest.fixture
def five(tmp_path):
    return write_nnunet(tmp_path / "Dataset001_Five", {f"c{i}": volume(i) for i in range(5)}, LABELS)


def test_no_file_is_passed_over_in_silence(five):
    """Hidden files are no data, as for nnU-Net; whatever else is not taken is told with the reason."""
    for part in ("imagesTr", "labelsTr"):
        for path in list((five / part).iterdir()):
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + b"\0" * 150)
    (five / "imagesTr" / "c9.nii.gz").touch()
    (five / "imagesTr" / "c9_0000.nii").touch()
    (five / "imagesTr" / "c0_0000.nii.gz").rename(five / "imagesTr" / "c0_0000.NII.GZ")
    with pytest.warns(UserWarning, match="not taken"):
        dataset = read(five, domains={"x": "c[0-3]"})
    images = five / "imagesTr"
    assert dataset.skipped == (
        f"{images}: 1 not taken, since the ending is not .nii.gz: c9_0000.nii",
        f"{images}: 1 not taken, since no channel number such as _0000 stands before their ending: c9.nii.gz",
        f"{images}: 1 not taken, since no domain selects them: c4",
    )
    assert set(by_case(dataset)) == {f"c{i}" for i in range(4)}
    write_array(images / "c1_0001.nii.gz", volume(1)[0][0], (1, 1, 1))
    with pytest.raises(ValueError, match=r"1 problem.*\n.*c1_0001.nii.gz: channel 1 is not in channel_names"):
        read(five)


def test_data_beside_a_header_is_not_left_over(tmp_path):
    cases = {f"c{i}": volume(i) for i in range(5)}
    folder = write_nnunet(tmp_path / "Dataset014_M", cases, LABELS, ending=".mhd")
    assert (folder / "labelsTr" / "c0.raw").is_file()
    first = read(folder)
    assert first.skipped == ()
    place = folder / "labelsTr" / "c0.raw"
    place.write_bytes(bytes(place.stat().st_size))
    assert not by_case(read(folder))["c0"][2].any()


def test_two_channels_may_have_one_name(tmp_path):
    """In nnU-Net a channel's name chooses its normalisation: phases of CT share one."""
    cases = {f"c{i}": volume(i, channels=3) for i in range(5)}
    folder = write_nnunet(tmp_path / "Dataset015_C", cases, LABELS, channel_names=("CT", "CT", "PET"))
    whole = read(folder).train.images[:]
    assert whole.shape[1] == 3
    torch.testing.assert_close(read(folder, channels=[1, "PET"]).train.images[:], whole[:, 1:])
    with pytest.raises(ValueError, match=r"has 2 channels named 'CT'; say their numbers: channels = \[0, 1\]"):
        read(folder, channels=["CT"])


def test_a_constant_channel_leaves_the_others_alone(tmp_path):
    cases = {f"c{i}": volume(i, channels=2) for i in range(5)}
    for image, _ in cases.values():
        image[1] = 1000.1
    folder = write_nnunet(tmp_path / "Dataset016_C", cases, LABELS, channel_names=("T1", "T2"), spacing=(1, 1, 1.5))
    images = read(folder, spacing=(1, 1, 1), size=(18, 20, 24)).train.images[:]
    torch.testing.assert_close(images[:, 0].flatten(1).std(1, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert not images[:, 1].any()


def test_grey_stored_as_colour_and_colour_stored_as_grey(tmp_path):
    """Programs that shrink PNG files store what has no colours as grey; others store grey three times."""
    one = write_nnunet(tmp_path / "Dataset017_G", {}, LABELS, ending=".png")
    three = write_nnunet(tmp_path / "Dataset018_C", {}, LABELS, ending=".png", channel_names=("R", "G", "B"))
    for i in range(5):
        (grey,), labels = picture(i)
        write_array(one / "imagesTr" / f"c{i}_0000.png", np.stack([grey] * 3, -1), ())
        write_array(three / "imagesTr" / f"c{i}_0000.png", grey, ())
        for folder in (one, three):
            write_array(folder / "labelsTr" / f"c{i}.png", labels, ())
            change(folder, numTraining=5)
    single, triple = (by_case(read(folder, size=(24, 20))) for folder in (one, three))
    for name, (_, image, _) in single.items():
        assert torch.equal(image.expand(3, -1, -1), triple[name][1])


def test_slices_are_turned_to_the_direction_that_most_have(tmp_path):
    folder = write_nnunet(tmp_path / "Dataset019_S", {}, LABELS)
    for i, axes in enumerate(["LPS", "LPS", "RAS", "LPS", "ASR"]):
        (image,), labels = picture(i)
        write_array(folder / "imagesTr" / f"c{i}_0000.nii.gz", image[None, ::-1, ::-1], (5, 0.5, 0.25), axes)
        write_array(folder / "labelsTr" / f"c{i}.nii.gz", labels[None, ::-1, ::-1], (5, 0.5, 0.25), "RAS")
    change(folder, numTraining=5)
    dataset = read(folder, size=(24, 20))
    for name, (_, image, truth) in by_case(dataset).items():
        expected, labels = picture(int(name[1:]))
        expected = torch.from_numpy((expected - expected.mean()) / expected.std()).float()
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
        assert torch.equal(truth, torch.from_numpy(labels))
    resized = read(folder, size=(48, 40)).train.spacing
    torch.testing.assert_close(resized, torch.tensor([[0.25, 0.125]] * 3, dtype=torch.float64))
    write_array(folder / "labelsTr" / "c1.nii.gz", picture(1)[1][None], (5, 0.5, 0.5), "RAS")
    with pytest.raises(ValueError, match=r"1 problem.*\n.*c1.nii.gz: lies up to 4.75 mm from c1_0000.nii.gz"):
        read(folder, size=(24, 20))


@pytest.mark.parametrize("skip_bad", [False, True])
def test_headers_without_a_place_are_their_cases_problem(tmp_path, skip_bad):
    """They also take part in the median spacing, before any case is read."""
    import nibabel

    folder = write_nnunet(tmp_path / "Dataset020_H", {f"c{i}": volume(i) for i in range(9)}, LABELS)
    broken = {"zero": np.diag([1.0, 1, 0, 1]), "nan": np.diag([1, 1, np.nan, 1]), "shear": np.eye(4)}
    broken["shear"][0, 1] = 0.3
    for i, affine in enumerate(broken.values()):
        path = folder / "imagesTr" / f"c{i}_0000.nii.gz"
        made = nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), None)
        made.header["sform_code"] = 1
        made.header["srow_x"], made.header["srow_y"], made.header["srow_z"] = affine[:3]
        nibabel.save(nibabel.Nifti1Image(made.dataobj, None, made.header), path)
    if skip_bad:
        with pytest.warns(UserWarning, match="3 problem"):
            assert set(by_case(read(folder, skip_bad=True))) == {f"c{i}" for i in range(3, 9)}
    else:
        with pytest.raises(ValueError, match="3 problem") as error:
            read(folder)
        assert str(error.value).count("the header gives voxels no size or place") == 2
        assert "c2_0000.nii.gz: the axes must be at right angles, got one of 73.3 degrees" in str(error.value)
