import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from labeldrop_bench import metrics
from labeldrop_bench.cost import LiveBytes
from labeldrop_bench.metrics import IGNORED, dice_per_image, foreground_dice


@st.composite
def cases(draw):
    """prediction, truth [n, *spatial] of any integer dtype, annotated [n, K], K. Few pixels, so empty classes occur."""
    k = draw(st.integers(2, 6))
    shape = (draw(st.integers(1, 4)), *draw(st.lists(st.integers(1, 4), min_size=0, max_size=3)))
    dtypes = st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    prediction, truth = (torch.randint(k, shape, generator=generator).to(draw(dtypes)) for _ in range(2))
    annotated = torch.rand(shape[0], k, generator=generator) < 0.6
    annotated[:, 0] = True
    return prediction, truth, annotated, k


def plain_dice(prediction, truth, value):
    """Dice of two sets of pixel positions."""
    p, t = ({i for i, v in enumerate(x.flatten().tolist()) if v == value} for x in (prediction, truth))
    return 2 * len(p & t) / (len(p) + len(t)) if p or t else math.nan


def mean(values):
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


@given(cases())
def test_dice_is_the_set_definition(case):
    prediction, truth, _, k = case
    expected = [[plain_dice(p, t, c) for c in range(k)] for p, t in zip(prediction, truth, strict=True)]
    result = dice_per_image(prediction, truth, k)
    # Whole numbers and one division in float64 on both sides: exactly equal.
    assert torch.equal(result.nan_to_num(-1), torch.tensor(expected, dtype=torch.float64).nan_to_num(-1))
    assert result.dtype == torch.float64


@given(cases())
def test_foreground_dice_averages_images_then_classes_over_what_is_annotated(case):
    prediction, target, annotated, k = case
    by_class = [
        mean(plain_dice(prediction[i], target[i], c) for i in range(len(target)) if annotated[i, c])
        for c in range(1, k)
    ]
    result = foreground_dice(prediction, target, annotated)
    # Sums of a few float64 numbers in another order.
    assert result.item() == pytest.approx(mean(by_class), rel=1e-12, nan_ok=True)


@given(cases())
def test_dice_is_symmetric_and_follows_the_samples(case):
    prediction, truth, _, k = case
    result = dice_per_image(prediction, truth, k).nan_to_num(-1)
    assert torch.equal(result, dice_per_image(truth, prediction, k).nan_to_num(-1))
    assert torch.equal(result.flip(0), dice_per_image(prediction.flip(0), truth.flip(0), k).nan_to_num(-1))


def test_conventions():
    prediction, truth = torch.tensor([[0, 0, 1, 3]]), torch.tensor([[0, 2, 1, 0]])
    result = dice_per_image(prediction, truth, 5)[0]
    assert result[:4].tolist() == [0.5, 1.0, 0.0, 0.0]  # 2: missed; 3: false positive on an empty truth
    assert result[4].isnan()  # both empty


def test_unannotated_classes_do_not_count():
    truth = torch.tensor([[0, 1, 1, 2]])
    target = torch.tensor([[0, 1, 1, 0]])  # class 2 is unannotated
    annotated = torch.tensor([[True, True, False]])
    assert foreground_dice(truth, target, annotated) == 1
    assert foreground_dice(truth, target, torch.ones_like(annotated)) == 0.5
    assert foreground_dice(truth, target, torch.tensor([[True, False, False]])).isnan()


ZEROS = torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("prediction", "truth", "error", "message"),
    [
        (ZEROS, torch.zeros(2, 4, dtype=torch.int64), ValueError, r"\(2, 3\) and \(2, 4\)"),
        (torch.zeros(2, 3), ZEROS, TypeError, r"prediction must be an integer.*float32"),
        (ZEROS, torch.zeros(2, 3, dtype=torch.bool), TypeError, r"truth.*torch.bool"),
        (torch.full((2, 3), 4), ZEROS, ValueError, r"prediction must lie in 0 \.\.\. 3.*4 to 4"),
        (ZEROS, torch.full((2, 3), -1), ValueError, r"truth must lie in 0 \.\.\. 3.*-1"),
        (torch.tensor(0), torch.tensor(0), ValueError, "same shape"),
    ],
)
def test_dice_errors(prediction, truth, error, message):
    with pytest.raises(error, match=message):
        dice_per_image(prediction, truth, 4)


def test_annotated_must_fit():
    maps = torch.zeros(2, 3, dtype=torch.int64)
    for bad in (torch.ones(3, 4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"annotated must be \[n, K\] with n = 2"):
            foreground_dice(maps, maps, bad)


@given(cases())
def test_pixels_of_unknown_truth_count_for_nothing(case):
    """What is predicted there makes no difference, and Dice is that of the other pixels alone."""
    prediction, truth, _, k = case
    if truth[0].ndim == 0:
        return
    unknown = truth.long().flatten(1)
    unknown[:, 0] = IGNORED
    flat = prediction.long().flatten(1)
    result = dice_per_image(flat, unknown, k).nan_to_num(-1)
    assert torch.equal(result, dice_per_image(flat[:, 1:], truth.long().flatten(1)[:, 1:], k).nan_to_num(-1))


def surface(mask):
    """Pixels of a mask with a neighbour, by an edge or at the image's border, that is not of it."""
    return mask & ~ndimage.binary_erosion(mask)


@given(masks=st.data())
def test_hd95_by_its_definition(masks):
    """Against distances computed pair by pair."""
    size = masks.draw(st.tuples(st.integers(2, 7), st.integers(2, 7)))
    draw = arrays(np.uint8, (2, *size), elements=st.integers(0, 1))
    prediction, truth = masks.draw(draw)
    hd95, _ = metrics.surfaces_per_image(torch.tensor(prediction)[None], torch.tensor(truth)[None], 2, [1.0])
    found, there = (np.argwhere(surface(m.astype(bool))) for m in (prediction, truth))
    if not len(found) and not len(there):
        assert hd95[0, 1].isnan()
    elif not len(found) or not len(there):
        assert hd95[0, 1] == pytest.approx(math.hypot(*size))
    else:
        apart = np.linalg.norm(found[:, None] - there[None], axis=-1)
        expected = max(np.percentile(apart.min(1), 95), np.percentile(apart.min(0), 95))
        assert hd95[0, 1].item() == pytest.approx(expected, abs=1e-5)


def test_surface_dice_of_a_shift():
    truth = torch.zeros(2, 20, 20, dtype=torch.uint8)
    truth[:, 5:11, 5:11] = 1
    prediction = truth.roll(2, 2).long()
    prediction[1] = 0
    _, far = metrics.surfaces_per_image(prediction, truth, 3, [1.0, 1.0])
    _, near = metrics.surfaces_per_image(prediction, truth, 3, [2.0, 1.0])
    assert 0 < far[0, 1] < 1
    assert near[0, 1] == 1
    assert far[1, 1] == 0  # missed altogether
    assert far[:, 2].isnan().all()  # neither there nor predicted
    assert far[:, 0].isnan().all()  # background
    hd95, _ = metrics.surfaces_per_image(prediction, truth, 3, [1.0, 1.0])
    assert hd95[0, 1] == 2
    assert hd95[1, 1] == pytest.approx(20 * math.sqrt(2))
    with pytest.raises(ValueError, match="one for each of the 2 foreground classes, got 1"):
        metrics.surfaces_per_image(prediction, truth, 3, [1.0])


def test_surfaces_of_volumes_and_ignored_pixels():
    truth = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    truth[:, 2:5, 2:5, 2:5] = 1
    prediction = truth.clone()
    prediction[0, 7, 7, 7] = 1  # far away ...
    hd95, nsd = metrics.surfaces_per_image(prediction, truth, 2, [1.0])
    assert nsd[0, 1] < 1
    truth[0, 7, 7, 7] = IGNORED  # ... where nobody knows
    hd95, nsd = metrics.surfaces_per_image(prediction, truth, 2, [1.0])
    assert (hd95[0, 1], nsd[0, 1]) == (0, 1)


@given(data=st.data())
def test_calibration_by_its_definition(data):
    p = data.draw(arrays(np.float64, (2, 2, 3, 4), elements=st.floats(0, 1)))
    truth = data.draw(arrays(np.uint8, (2, 3, 4), elements=st.sampled_from([0, 1, 2, IGNORED])))
    bins = data.draw(st.integers(1, 20))
    ece, brier = metrics.calibration_per_image(torch.tensor(p), torch.tensor(truth), bins)
    assert ece[:, 0].isnan().all()
    for i in range(2):
        counts = truth[i] != IGNORED
        for c in (1, 2):
            values, hits = p[i, c - 1][counts], (truth[i] == c)[counts].astype(float)
            if not len(values):
                assert ece[i, c].isnan()
                assert brier[i, c].isnan()
                continue
            assert brier[i, c].item() == pytest.approx(np.mean((values - hits) ** 2))
            which = np.minimum((values * bins).astype(int), bins - 1)
            parts = [abs(values[which == b].mean() - hits[which == b].mean()) * (which == b).mean() for b in set(which)]
            assert ece[i, c].item() == pytest.approx(sum(parts), abs=1e-12)


def test_a_sure_and_right_network_is_calibrated():
    truth = torch.tensor([[[0, 1, 2, 1]]])
    right = torch.stack([truth == 1, truth == 2], 1).double()
    for wanted, p in ((0.0, right), (1.0, 1 - right)):
        ece, brier = metrics.calibration_per_image(p, truth, 15)
        assert ece[0, 1:].tolist() == brier[0, 1:].tolist() == [wanted, wanted]


def blobs(seed, k, size=(24, 20, 22), n=2):
    """Class maps of k - 1 blobs and background."""
    noise = np.random.default_rng(seed).normal(size=(n, k, *size))
    smooth = np.stack([[ndimage.gaussian_filter(one, 2.0) for one in image] for image in noise])
    return torch.from_numpy(smooth.argmax(1))


@pytest.mark.filterwarnings("ignore")  # MONAI's, of an empty class and of its own arguments
@pytest.mark.parametrize("spacing", [None, torch.tensor([[1.5, 1.5, 4.0], [0.7, 1.1, 0.3]], dtype=torch.float64)])
@pytest.mark.parametrize("size", [(24, 20, 22), (30, 26)])
def test_surfaces_are_those_of_monai(size, spacing):
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    k, tolerances = 6, [1.0, 2.0, 0.5, 3.0, 1.4]
    truth, prediction = blobs(0, k, size), blobs(1, k, size)
    prediction[0] = torch.where(prediction[0] == 2, 0, prediction[0])  # missed
    apart = None if spacing is None else spacing[:, : len(size)]
    hd95, nsd = metrics.surfaces_per_image(prediction, truth, k, tolerances, spacing=apart)
    hot = [torch.stack([image == c for c in range(k)], 1) for image in (prediction, truth)]
    options = {"spacing": None if apart is None else apart.tolist()}
    theirs = compute_hausdorff_distance(*hot, percentile=95, **options).double()
    there = theirs.isfinite()
    assert int(there.sum()) == 2 * (k - 1) - 1
    # their quantile interpolates in float32
    torch.testing.assert_close(hd95[:, 1:][there], theirs[there], rtol=1e-5, atol=0)
    assert torch.allclose(nsd[:, 1:], compute_surface_dice(*hot, tolerances, **options).double(), atol=1e-6)


def test_a_tolerance_is_met_by_a_shift_of_as_much():
    """0.7 x 12 - 0.7 x 10 is more than 1.4 in floating point."""
    truth = torch.zeros(1, 20, 20, dtype=torch.uint8)
    truth[:, 5:11, 3:17] = 1
    prediction = truth.roll(2, 1).long()
    _, nsd = metrics.surfaces_per_image(prediction, truth, 2, [1.4], spacing=torch.tensor([[0.7, 0.7]]).double())
    assert nsd[0, 1] == 1


@given(data=st.data())
def test_calibration_of_parts_is_that_of_the_whole(data):
    p = torch.tensor(data.draw(arrays(np.float64, (2, 3, 5, 4), elements=st.floats(0, 1))))
    truth = torch.tensor(data.draw(arrays(np.uint8, (2, 5, 4), elements=st.sampled_from([0, 1, 2, 3, IGNORED]))))
    whole, before = metrics.calibration_per_image(p, truth, 7), p.clone()
    parts = metrics.Calibration(2, 4, 7)
    cut = data.draw(st.integers(1, 4))
    for part in (slice(0, cut), slice(cut, None)):
        parts.add(p[:, :, part], truth[:, part])
    for one, other in zip(whole, parts.result(), strict=True):
        # sums of a few float64 numbers in another order
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12, equal_nan=True)
    assert torch.equal(p, before)


def test_memory_does_not_grow_with_the_number_of_classes():
    """Beyond the probabilities, which are given."""
    pixels, peaks = 32**3, {}
    for k in (3, 60):
        truth, prediction = torch.randint(k, (2, 1, 32, 32, 32))
        p = torch.rand(1, k - 1, 32, 32, 32)
        measured = {
            "dice": lambda t=truth, q=prediction, k=k: metrics.dice_per_image(q, t, k),
            "surfaces": lambda t=truth, q=prediction, k=k: metrics.surfaces_per_image(q, t, k, [1.0] * (k - 1)),
            "calibration": lambda t=truth, p=p: metrics.calibration_per_image(p, t, 15),
        }
        for name, measure in measured.items():
            with LiveBytes() as live:
                measure()
            peaks[name, k] = live.peak / pixels
    for name in ("dice", "surfaces", "calibration"):
        assert peaks[name, 60] < 1.3 * peaks[name, 3]
        assert peaks[name, 60] < 150  # bytes a pixel: some int64 or float64 maps, places of surface pixels


def test_distances_in_millimetres_by_hand() -> None:
    """The same error of one pixel along different axes, in images with different spacings."""
    truth = torch.zeros(3, 20, 20, 20, dtype=torch.uint8)
    truth[:, 8:12, 5:15, 5:15] = 1
    prediction = torch.zeros_like(truth, dtype=torch.int64)
    prediction[0, 9:13, 5:15, 5:15] = 1
    prediction[1, 8:12, 6:16, 5:15] = 1  # and nothing in the third
    spacing = torch.tensor([[5.0, 1, 1], [5, 2, 1], [5, 1, 1]], dtype=torch.float64)
    hd95, nsd = metrics.surfaces_per_image(prediction, truth, 2, [1.0], spacing=spacing)
    assert hd95[:, 1].tolist() == pytest.approx([5, 2, math.hypot(100, 20, 20)])
    assert (nsd[:2, 1] < 0.95).all()
    _, lenient = metrics.surfaces_per_image(prediction, truth, 2, [5.0], spacing=spacing)
    assert lenient[:, 1].tolist() == [1, 1, 0]
    of_pixels = metrics.surfaces_per_image(prediction, truth, 2, [1.0])
    of_units = metrics.surfaces_per_image(prediction, truth, 2, [1.0], spacing=torch.ones(3, 3))
    assert of_pixels[0][:, 1].tolist() == pytest.approx([1, 1, math.hypot(20, 20, 20)])
    assert all(torch.equal(a[:, 1], b[:, 1]) for a, b in zip(of_pixels, of_units, strict=True))


@pytest.mark.parametrize("spacing", [torch.ones(2, 2), torch.ones(1, 3), torch.tensor([[1.0, 0.0, 1.0]] * 2)])
def test_a_spacing_is_positive_and_has_a_number_for_each_axis(spacing: torch.Tensor) -> None:
    maps = torch.zeros(2, 4, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"spacing must be positive and of shape \(2, 3\)"):
        metrics.surfaces_per_image(maps.long(), maps, 2, [1.0], spacing=spacing)
