import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


def test_undrawn_classes_do_not_count():
    truth = torch.tensor([[0, 1, 1, 2]])
    target = torch.tensor([[0, 1, 1, 0]])  # class 2 is not drawn
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
