import numpy as np
import pytest
import torch
from scipy import ndimage

from labeldrop_bench.data._brain import NAMES, draw_subject
from labeldrop_bench.data.base import IGNORED, make_samples
from labeldrop_bench.data.label_noise import PIECE, NoiseOptions, add_noise, displace_outlines, mislabel
from labeldrop_bench.label_space import LabelSpace

EVERY = list(range(1, 29))


@pytest.fixture(scope="module")
def brains():
    return [draw_subject((40, 48, 40), np.random.SeedSequence([2, i])).labels for i in range(12)]


def rng(seed=0):
    return np.random.default_rng(seed)


def displaced(brains, probability, values=EVERY):
    return [displace_outlines(labels, probability, values, rng(i)) for i, labels in enumerate(brains)]


def in_plane_outline(labels):
    """Voxels with a neighbour of another label in their coronal slice: axes 0 and 2."""
    cross = ndimage.generate_binary_structure(2, 1)[:, None, :]
    return ndimage.maximum_filter(labels, footprint=cross) != ndimage.minimum_filter(labels, footprint=cross)


def moved_pieces(before, after, axis):
    """Where two neighbours along an axis differ, the height there and whether the outline between them has moved."""
    first, second = (np.moveaxis(labels, axis, 0).astype(int) for labels in (before, after))
    height = np.moveaxis(np.broadcast_to(np.arange(before.shape[2]) + 0.5, before.shape), axis, 0) / before.shape[2]
    lower_first = first[:-1] < first[1:]
    pair = first[:-1] != first[1:]
    low_before, low_after = (np.where(lower_first, x[:-1], x[1:]) for x in (first, second))
    high_before, high_after = (np.where(lower_first, x[1:], x[:-1]) for x in (first, second))
    moved = (low_after > low_before) | (high_after < high_before)
    return height[:-1][pair], moved[pair]


@pytest.mark.parametrize("probability", [0.1, 0.4])
def test_as_many_pieces_of_outlines_move_as_asked_for(brains, probability):
    noisy = displaced(brains, probability)
    pieces = [moved_pieces(a, b, axis) for a, b in zip(brains, noisy, strict=True) for axis in (0, 2)]
    height, moved = (np.concatenate(part) for part in zip(*pieces, strict=True))
    # 12 x 48 slices of some 60 independent places each: standard errors are below .01 times the square root of p. Where
    # the field changes its tail within a pair, the pair counts once or not at all: a few per cent of p.
    assert moved.mean() == pytest.approx(probability * (1.5 - height).mean(), rel=0.06)
    for low, high in ((0.2, 0.4), (0.6, 0.8)):  # more errors below
        band = (height > low) & (height < high)
        assert moved[band].mean() == pytest.approx(probability * (1.5 - (low + high) / 2), rel=0.1)


def test_predictable_errors_sit_on_outlines_of_the_coronal_plane_by_one_voxel(brains):
    for before, after in zip(brains, displaced(brains, 0.5), strict=True):
        wrong = before != after
        assert wrong.any()
        assert not (wrong & ~in_plane_outline(before)).any()
        # What a voxel becomes is the label of a neighbour in its slice.
        neighbours = [np.roll(before, step, axis) for axis in (0, 2) for step in (-1, 1)]
        assert np.any([neighbour == after for neighbour in neighbours], axis=0)[wrong].all()


def test_outlines_that_face_the_coronal_plane_never_move(brains):
    before, after = brains[0], displaced(brains[:1], 0.5)[0]
    only_between_slices = ~in_plane_outline(before)
    differs_in_next_slice = np.zeros_like(only_between_slices)
    differs_in_next_slice[:, :-1] = before[:, 1:] != before[:, :-1]
    hidden = only_between_slices & differs_in_next_slice
    assert hidden.sum() > 500
    assert (before == after)[hidden].all()


def test_outlines_are_smooth_in_coronal_slices_and_ragged_in_the_others(brains):
    rates = {0: [], 1: [], 2: []}
    for before, after in zip(brains, displaced(brains, 0.2), strict=True):
        outline, wrong = in_plane_outline(before), before != after
        for axis, rate in rates.items():
            here, there = (np.moveaxis(x, axis, 0) for x in (outline, wrong))
            both = here[:-1] & here[1:] & (np.moveaxis(before, axis, 0)[:-1] == np.moveaxis(before, axis, 0)[1:])
            rate.append(there[1:][both & there[:-1]].mean() / there[1:][both].mean())
    # How much likelier is an error beside an error? Across slices not at all: 1, with a standard error of about .03.
    assert np.mean(rates[1]) == pytest.approx(1, abs=0.12)
    assert min(np.mean(rates[0]), np.mean(rates[2])) > 2


def test_predictable_errors_go_both_ways(brains):
    bigger = np.concatenate([(b > a)[b != a] for a, b in zip(brains, displaced(brains, 0.3), strict=True)])
    assert bigger.mean() == pytest.approx(0.5, abs=0.03)


def test_only_named_structures_move(brains):
    values = [NAMES.index("putamen L") + 1]
    before, after = brains[0], displaced(brains[:1], 0.5, values)[0]
    wrong = before != after
    assert wrong.any()
    near = ndimage.maximum_filter(before == values[0], footprint=ndimage.generate_binary_structure(3, 1))
    assert not (wrong & ~near).any()


def test_nothing_is_displaced_without_a_probability_and_ignored_voxels_stay(brains):
    assert np.array_equal(displaced(brains[:1], 0.0)[0], brains[0])
    labels = brains[0].copy()
    labels[:, :, 10:14] = IGNORED
    after = displace_outlines(labels, 0.5, EVERY, rng())
    assert np.array_equal(after == IGNORED, labels == IGNORED)


def test_sporadic_errors_are_as_frequent_as_asked_for_and_whole(brains):
    probability, errors, chances, lost = 0.1, 0, 0, 0
    for seed in range(10):
        for i, before in enumerate(brains):
            after = mislabel(before, probability, EVERY, rng(100 * seed + i))
            for value in np.unique(before)[1:]:
                region = before == value
                wrong = after[region] != value
                chances += 1
                if not wrong.any():
                    continue
                errors += 1
                lost += (after[region][wrong] == 0).mean()
                assert wrong.sum() == min(region.sum(), round(PIECE * before.size))
                assert len(np.unique(after[region][wrong])) == 1  # all of it becomes the same
    # Binomial, 3360 chances: standard errors .005, and .027 for which of them become background.
    assert errors / chances == pytest.approx(probability, abs=0.016)
    assert lost / errors == pytest.approx(0.5, abs=0.09)


def test_a_piece_of_a_large_structure_is_in_one_place(brains):
    white = NAMES.index("white matter L") + 1
    after = mislabel(brains[0], 1.0, [white], rng(1))
    places = np.argwhere(brains[0] != after)
    assert len(places) == round(PIECE * brains[0].size)
    # A ball of as many voxels has a radius of 4.5; between gyri it must reach farther.
    assert np.linalg.norm(places - places.mean(0), axis=1).max() < 12


def test_one_structures_errors_do_not_depend_on_another(brains):
    some = mislabel(brains[0], 0.5, EVERY, rng(3)) != brains[0]
    without = brains[0].copy()
    without[without == 28] = 0
    again = mislabel(without, 0.5, EVERY, rng(3)) != without
    rest = brains[0] != 28
    assert np.array_equal(some & rest, again & rest)


def test_a_structure_that_is_alone_becomes_background():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2, 2, 2] = 1
    assert not any(mislabel(labels, 1.0, [1, 2], rng(seed)).any() for seed in range(20))


def samples_of(brains, cases):
    space = LabelSpace.of_classes(("background", *NAMES))
    labels = torch.from_numpy(np.stack(brains))
    n = len(brains)
    ones = torch.ones(n, 29, dtype=torch.bool)
    return make_samples(space, torch.zeros(n, 1, *labels.shape[1:]), labels, ones, torch.zeros(n).long(), cases, cases)


def test_noise_of_a_case_depends_on_its_name_and_the_seed_alone(brains):
    options = NoiseOptions(predictable=0.2, sporadic=0.1)
    both = add_noise(samples_of(brains[:2], ["a", "b"]), options, NAMES)
    alone = add_noise(samples_of(brains[1:2], ["b"]), options, NAMES)
    renamed = add_noise(samples_of(brains[1:2], ["c"]), options, NAMES)
    assert torch.equal(both.target[1], alone.target[0])
    assert not torch.equal(both.target[1], renamed.target[0])
    assert torch.equal(both.truth[:], samples_of(brains[:2], ["a", "b"]).truth[:])


def test_the_kinds_have_streams_of_their_own(brains):
    samples = samples_of(brains[:4], list("abcd"))
    sporadic = add_noise(samples, NoiseOptions(sporadic=0.3), NAMES).target[:]
    both = add_noise(samples, NoiseOptions(sporadic=0.3, predictable=0.1), NAMES).target[:]
    # The same structures are gone: outlines move by a voxel, so that what the two differ in is on an outline.
    for a, b in zip(sporadic.numpy(), both.numpy(), strict=True):
        assert not ((a != b) & ~in_plane_outline(a)).any()


def test_no_noise_changes_nothing(brains):
    samples = samples_of(brains[:1], ["a"])
    assert torch.equal(add_noise(samples, NoiseOptions(), NAMES).target[:], samples.target[:])


def test_pictures_are_refused():
    space = LabelSpace.of_classes(3)
    flat = make_samples(
        space, torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8), torch.ones(1, 3).bool(),
        torch.zeros(1).long(), ["a"], ["a"],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"noise: samples must be volumes \[n, X, Y, Z\], got shape \(1, 4, 4\)"):
        add_noise(flat, NoiseOptions(sporadic=0.5), ("one", "two"))
