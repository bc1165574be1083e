import time

import numpy as np
import pydantic
import pytest
import torch

from labeldrop_bench import data
from labeldrop_bench.data._brain import CENTRE, EXTENT, NAMES, PAIRED, SIGNAL, SINGLE, VOLUMES, draw_subject
from labeldrop_bench.data.brain_phantom import BrainPhantomOptions

SMALL = {"size": (20, 24, 20), "train": 3, "validation": 2, "test": 2}
BOTH = {"predictable": 0.3, "sporadic": 0.2}
MILLILITRES = 0.064  # a voxel of 4 mm


def phantom(**options):
    return data.get("brain_phantom").load(BrainPhantomOptions(**{**SMALL, **options}))


@pytest.fixture(scope="module")
def subjects():
    return [draw_subject((40, 48, 40), np.random.SeedSequence([5, i])) for i in range(30)]


def test_same_options_same_data_other_seed_other_data():
    first, again, other = phantom(seed=3, noise=BOTH), phantom(seed=3, noise=BOTH), phantom(seed=4, noise=BOTH)
    for name, split in first.splits().items():
        for field in ("images", "target", "annotated", "truth", "known"):
            assert torch.equal(getattr(split, field)[:], getattr(again.splits()[name], field)[:])
        assert not torch.equal(split.truth[:], other.splits()[name].truth[:])


def test_known_data():
    # Pins the generator: results files of different versions are comparable only while this holds. Exact but for
    # single voxels on a border, where another machine's sine may round differently.
    counts = torch.bincount(phantom().train.truth[:].flatten().long(), minlength=29)
    torch.testing.assert_close(counts[:5], torch.tensor([21213, 1362, 1423, 1874, 1712]), atol=8, rtol=0)


def test_the_labels_are_those_of_the_paper():
    dataset = phantom()
    assert dataset.label_space.classes == ("background", *NAMES)
    assert len(NAMES) == 28
    assert {"caudate L", "caudate R", "accumbens L", "amygdala R", "3rd ventricle", "corpus callosum"} < set(NAMES)
    assert [NAMES.index(f"{name} L") % 2 for name in PAIRED] == [0] * len(PAIRED)
    assert dataset.domains == ("T1",)
    for split in dataset.splits().values():
        assert split.annotated.all()
        assert split.known.all()


def test_all_structures_are_there_in_proportion(subjects):
    counts = np.array([np.bincount(subject.labels.ravel(), minlength=29)[1:] for subject in subjects])
    volumes = counts * MILLILITRES
    assert counts.min() >= 2
    for i, name in enumerate(NAMES):
        least, mean, most = VOLUMES[name.removesuffix(" L").removesuffix(" R")]
        assert volumes[:, i].min() > least, name
        assert volumes[:, i].max() < most, name
        # Standard deviations are up to .4 of the mean, that of 30 subjects' mean is up to .08.
        assert volumes[:, i].mean() == pytest.approx(mean, rel=0.15), name


def test_halves_lie_on_their_sides_and_mirror_each_other(subjects):
    centres = np.array([[np.argwhere(s.labels == v).mean(0) for v in range(1, 29)] for s in subjects])
    middle = centres[:, 2 * len(PAIRED) :, 0].mean(1, keepdims=True)  # of what lies in the middle
    left, right = centres[:, 0 : 2 * len(PAIRED) : 2], centres[:, 1 : 2 * len(PAIRED) : 2]
    assert (left[..., 0] < middle).all()  # x runs from left to right
    assert (right[..., 0] > middle).all()
    # As far from the middle, as far in front and above: on average over subjects to a quarter of a voxel.
    np.testing.assert_allclose((left + right)[..., 0].mean(0) / 2, middle.mean(), atol=0.3)
    np.testing.assert_allclose(left[..., 1:].mean(0), right[..., 1:].mean(0), atol=0.4)
    # But no brain is its own mirror image.
    swap = np.array([0, *(v + 1 if v % 2 else v - 1 for v in range(1, 25)), *range(25, 29)])
    assert all((swap[np.flip(s.labels, 0)] != s.labels)[s.labels > 0].mean() > 0.1 for s in subjects)


def test_structures_lie_where_they_should(subjects):
    def place(name):
        """Mean place in mm over the subjects; x, y and z as in `_brain`."""
        value = NAMES.index(name) + 1
        voxels = np.mean([np.argwhere(s.labels == value).mean(0) for s in subjects], 0)
        return (voxels + 0.5) * 4 - np.divide(EXTENT, 2) + CENTRE

    x, y, z = np.transpose([place(f"{name} R") for name in PAIRED])
    at = {name: i for i, name in enumerate(PAIRED)}
    assert x[at["thalamus"]] < x[at["pallidum"]] < x[at["putamen"]]  # from the middle outwards
    assert y[at["thalamus"]] < y[at["amygdala"]] < y[at["accumbens"]]  # from the back forwards
    assert y[at["hippocampus"]] < y[at["amygdala"]]
    assert z[at["cerebellum"]] < z[at["amygdala"]] < z[at["accumbens"]] < z[at["putamen"]] < z[at["lateral ventricle"]]
    assert place("corpus callosum")[2] > place("3rd ventricle")[2] > place("brainstem")[2]


def test_signal_is_like_t1(subjects):
    def mean(*names):
        values = [NAMES.index(name) + 1 for name in names]
        return np.mean([s.image[np.isin(s.labels, values)].mean() for s in subjects])

    def both(name):
        return mean(f"{name} L", f"{name} R")

    white, grey, fluid = both("white matter"), both("grey matter"), both("lateral ventricle")
    # Partial volumes bring tissues nearer to their neighbours than SIGNAL has them.
    assert white > 1.15 * grey > 1.5 * fluid
    assert grey < both("caudate") < both("thalamus") < white
    assert set(SIGNAL) == {*PAIRED, *SINGLE}
    for subject in subjects[:5]:
        assert subject.image.min() == 0  # outside
        assert (subject.image[subject.labels > 0] > 0).all()


def test_bias_and_noise_are_there(subjects):
    def level(subject, half):
        white = np.isin(subject.labels, (1, 2))
        return subject.image[:, :, half][white[:, :, half]].mean()

    # The upper and the lower half's white matter differ by the bias field, less in some subjects and more in others.
    ratio = np.array([level(s, slice(20, 40)) / level(s, slice(0, 20)) for s in subjects])
    assert 0.03 < ratio.std() < 0.2
    inside = [s.image[np.isin(s.labels, (1, 2))].std() for s in subjects]
    assert 0.05 < np.mean(inside) < 0.25


def test_images_and_truth_do_not_change_with_the_noise():
    clean, noisy, other = phantom(), phantom(noise=BOTH), phantom(noise={**BOTH, "seed": 1})
    for name in ("train", "validation"):
        splits = [dataset.splits()[name] for dataset in (clean, noisy, other)]
        for split in splits:
            assert torch.equal(split.images[:], splits[0].images[:])
            assert torch.equal(split.truth[:], splits[0].truth[:])
        assert torch.equal(splits[0].target[:], splits[0].truth[:])
        assert not torch.equal(splits[1].target[:], splits[0].target[:])
        assert not torch.equal(splits[1].target[:], splits[2].target[:])
    for field in ("images", "target", "truth"):
        assert torch.equal(getattr(noisy.test, field)[:], getattr(clean.test, field)[:])


def test_more_subjects_leave_those_there_were():
    few, many = phantom(noise=BOTH), phantom(noise=BOTH, train=4)
    assert torch.equal(few.train.images[:], many.train.images[:3])
    assert torch.equal(few.train.target[:], many.train.target[:3])
    assert torch.equal(few.test.images[:], many.test.images[:])


def test_all_subjects_differ():
    truths = torch.cat([split.truth[:].flatten(1) for split in phantom().splits().values()])
    assert len(torch.unique(truths, dim=0)) == len(truths) == 7


def test_size_changes_sampling_and_not_the_subject():
    coarse, fine = (draw_subject(size, np.random.SeedSequence(1)).labels for size in ((20, 24, 20), (60, 72, 60)))
    assert (fine[1::3, 1::3, 1::3] != coarse).mean() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (40, 48)}, "size"),
        ({"size": 40}, "size"),
        ({"size": (40, 48, 8)}, "size"),
        ({"train": 0}, "train"),
        ({"noise": {"predictable": 0.6}}, "noise.predictable"),
        ({"noise": {"sporadic": -0.1}}, "noise.sporadic"),
        ({"noise": {"sporadic": float("nan")}}, "noise.sporadic"),
        ({"noise": {"rate": 0.1}}, "noise.rate"),
        ({"gap": 1}, "gap"),
    ],
)
def test_bad_options_name_the_key(options, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        BrainPhantomOptions(**options)


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        (["caudat L"], r"noise\.structures: there is no label 'caudat L'; did you mean 'caudate L'"),
        (["caudate L", "caudate L"], r"noise\.structures: the labels must all differ"),
        (["background"], r"noise\.structures: there is no label 'background'"),
    ],
)
def test_bad_structures_are_named(structures, message):
    with pytest.raises(ValueError, match=message):
        phantom(noise={"structures": structures})


def test_speed():
    start = time.process_time()
    phantom(size=(40, 48, 40), train=3, validation=2, test=2, noise=BOTH)
    # Seven volumes take .6 s; three leave room for a slow or busy machine. The default, 35, is five times this.
    assert time.process_time() - start < 3
