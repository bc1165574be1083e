"""nnU-Net's ways to scale intensities, by their definitions."""

import numpy as np
import pytest
import torch
from nnunet_tree import LABELS, picture, read, volume, write_nnunet

from labeldrop_bench import data
from labeldrop_bench.data import intensities
from labeldrop_bench.data.edits import edited
from labeldrop_bench.data.intensities import scheme_of
from labeldrop_bench.records import DataConfig

LEVEL = {1: 300.0, 2: 700.0}


def ct(seed, shift=0.0):
    """A volume in Hounsfield units whose labels have intensities of their own, background far away."""
    rng = np.random.default_rng(seed)
    _, labels = volume(seed)
    image = rng.normal(-900, 20, labels.shape)
    for value, level in LEVEL.items():
        image[labels == value] = rng.normal(level + shift, 50, int((labels == value).sum()))
    return image[None].astype(np.float32), labels


def made(folder, cases=None, **options):
    cases = cases or {f"c{i}": ct(i) for i in range(5)}
    return write_nnunet(folder, cases, LABELS, **{"channel_names": ("CT",), **options}), cases


def statistics(cases, names, values=(1, 2)):
    """Percentiles, mean and sd of the voxels of some labels, of each case as often as of the others."""
    voxels = np.concatenate([cases[name][0][0][np.isin(cases[name][1], values)] for name in names])
    return *np.percentile(voxels, (0.5, 99.5)), voxels.mean(), voxels.std()


def scaled(image, numbers):
    low, high, mean, sd = numbers
    return (image.clip(low, high) - mean) / sd


def assert_scaled(samples, cases, numbers):
    """All images, within what a sample of ten thousand is off."""
    for case, image in zip(samples.cases, samples.images, strict=True):
        expected = scaled(cases[case.split("/")[-1]][0], numbers)
        torch.testing.assert_close(image, torch.from_numpy(expected).float(), atol=0.06, rtol=0.01)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("CT", "ct"), ("ct", "ct"), ("noNorm", "nonorm"), ("zscore", "zscore"), ("rescale_to_0_1", "rescale_to_0_1"),
        ("rgb_to_0_1", "rgb_to_0_1"), ("T1", "zscore"), ("CT_2", "zscore"), ("R", "zscore"),
    ],
)  # fmt: skip
def test_a_channels_name_says_its_scheme(name, scheme):
    assert scheme_of(name) == scheme


def test_ct_is_scaled_by_the_labelled_voxels_of_the_training_split(tmp_path):
    folder, cases = made(tmp_path / "Dataset001_CT")
    dataset = read(folder)
    numbers = statistics(cases, dataset.train.cases)
    assert abs(numbers[2]) > 100  # background, which is at -900, has no part in it
    for split in dataset.splits().values():
        assert_scaled(split, cases, numbers)
    changed = {name: (image + 500 * (name in dataset.test.cases), labels) for name, (image, labels) in cases.items()}
    other = read(made(tmp_path / "Dataset002_Other", changed)[0])
    assert other.train.cases == dataset.train.cases
    assert torch.equal(other.train.images[:], dataset.train.images[:])


def test_ct_looks_only_at_what_training_sees(tmp_path):
    folder, cases = made(
        tmp_path / "Dataset001_CT", {f"{d}{i}": ct(i, 500 * (d == "b")) for d in "ab" for i in range(5)}
    )
    dataset = read(folder, domains={"A": ["a*"], "B": ["b*"]})
    both = statistics(cases, dataset.train.cases)
    assert_scaled(dataset.test, cases, both)
    hidden = edited(dataset, DataConfig(name="nnunet", hidden={"A": ["b"], "B": ["b"]}))
    assert_scaled(hidden.test, cases, statistics(cases, dataset.train.cases, values=(1,)))
    in_a = [case for case in dataset.train.cases if case.startswith("a")]
    only_a = edited(dataset, DataConfig(name="nnunet", train_domains=["A"]))
    assert_scaled(only_a.test, cases, statistics(cases, in_a))
    with pytest.raises(ValueError, match=r"channel 0 is CT, .* none of 6 shows a label; .*normalisation = \"zscore\""):
        edited(dataset, DataConfig(name="nnunet", hidden={d: ["a", "b"] for d in "AB"}))


def test_of_combined_sources_one_unit_means_the_same(tmp_path, monkeypatch):
    """With statistics of its own, each source would make the same of voxels that differ by 500 units."""
    monkeypatch.setenv("LABELDROP_DATA", str(tmp_path))
    (tmp_path / "nnUNet_raw").mkdir()
    cases, sources = {}, []
    for name, shift in (("Dataset001_One", 0), ("Dataset002_Two", 500)):
        mine = {f"{name[-3:]}{i}": ct(i, shift) for i in range(5)}
        made(tmp_path / "nnUNet_raw" / name, mine)
        cases |= mine
        sources.append({"name": "nnunet", "dataset": name, "size": [18, 20, 16], "domain": name[-3:]})
    info = data.get("combined")
    dataset = info.load(info.options.model_validate({"sources": sources}))
    numbers = statistics(cases, [case.split("/")[-1] for case in dataset.train.cases])
    for split in dataset.splits().values():
        assert_scaled(split, cases, numbers)


def test_a_source_that_is_no_ct_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELDROP_DATA", str(tmp_path))
    (tmp_path / "nnUNet_raw").mkdir()
    cases = {f"c{i}": ct(i) for i in range(5)}
    made(tmp_path / "nnUNet_raw" / "Dataset001_CT", cases)
    made(tmp_path / "nnUNet_raw" / "Dataset002_MR", {f"m{i}": volume(i) for i in range(5)}, channel_names=("T2",))
    sources = [
        {"name": "nnunet", "dataset": f"Dataset00{n}_{name}", "size": [18, 20, 16], "domain": name}
        for n, name in ((1, "CT"), (2, "MR"))
    ]
    info = data.get("combined")
    train = info.load(info.options.model_validate({"sources": sources})).train
    first, second = (train.take((train.domain == d).nonzero().flatten()) for d in (0, 1))
    assert_scaled(first, cases, statistics(cases, [case.split("/")[-1] for case in first.cases]))
    for image in second.images:
        assert (float(image.mean()), float(image.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


def test_few_of_many_voxels_do(tmp_path, monkeypatch):
    folder, _ = made(tmp_path / "Dataset001_CT")
    whole = read(folder).train
    monkeypatch.setattr(intensities, "MOST", 3000)  # of thirty thousand
    part = read(folder).train
    assert not torch.equal(part.images.scaling, whole.images.scaling)
    torch.testing.assert_close(part.images[:], whole.images[:], atol=0.05, rtol=0.05)


def test_every_other_scheme(tmp_path):
    images = {f"c{i}": (np.concatenate([volume(i)[0] * 50] * 4), volume(i)[1]) for i in range(5)}
    names = ("noNorm", "rescale_to_0_1", "rgb_to_0_1", "anything")
    folder, _ = made(tmp_path / "Dataset001_All", images, channel_names=names)
    train = read(folder).train
    for case, image in zip(train.cases, train.images, strict=True):
        x = torch.from_numpy(images[case][0][0])
        expected = x, (x - x.min()) / (x.max() - x.min()), x / 255, (x - x.mean()) / x.std(correction=0)
        torch.testing.assert_close(image, torch.stack(expected), atol=1e-5, rtol=1e-5)
    chosen = read(folder, channels=["rgb_to_0_1", "noNorm"]).train
    assert torch.equal(chosen.images[:], train.images[:][:, [2, 0]])


def test_a_colour_that_is_none_is_its_cases_problem(tmp_path):
    cases = {f"c{i}": volume(i) for i in range(5)}
    cases["c3"] = (cases["c3"][0] * 200, cases["c3"][1])
    folder, _ = made(tmp_path / "Dataset001_R", cases, channel_names=("rgb_to_0_1",))
    with pytest.raises(ValueError, match=r"1 problem\(s\):\n.*c3_0000.nii.gz: rgb_to_0_1 is for values from 0 to 255"):
        read(folder)


def test_normalisation_may_be_said(tmp_path):
    folder, cases = made(tmp_path / "Dataset001_CT")
    image = read(folder, normalisation="nonorm").train.images[0]
    assert torch.equal(image, torch.from_numpy(cases[read(folder).train.cases[0]][0]))
    with pytest.raises(ValueError, match=r"normalisation must be one for each channel \(CT\), got \['ct', 'zscore'\]"):
        read(folder, normalisation=["ct", "zscore"])


def test_ct_of_pictures(tmp_path):
    """The same for two-dimensional cases; the case without a label has no part in it."""
    cases = {f"c{i}": picture(i) for i in range(5)}
    folder, _ = made(tmp_path / "Dataset001_P", cases, ending=".png")
    train = read(folder, size=(24, 20)).train
    assert_scaled(train, cases, statistics(cases, train.cases))
    empty = {**cases, train.cases[0]: (cases[train.cases[0]][0], np.zeros((24, 20), np.uint8))}
    again = read(made(tmp_path / "Dataset002_P", empty, ending=".png")[0], size=(24, 20)).train
    assert_scaled(again, cases, statistics(cases, train.cases[1:]))
