"""The mean of Dice terms as the kernels form it: values, and derivatives against autograd."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import labeldrop_bench as lb
from labeldrop_bench.ops import EPSILON, DiceMean, DiceTerms
from labeldrop_bench.ops._dice_operator import SumsInMemory

DTYPES = (torch.float32, torch.float64)


@pytest.fixture(params=["cpu", "cuda"], scope="module")
def way(request):
    """Where the kernel runs."""
    return request.getfixturevalue("emulated_cuda") if request.param == "cuda" else nullcontext


def random_mean(samples, labels, classes, options, generator):
    """Sums, and what is to be made of them."""

    def numbers(*size):
        return 9 * torch.rand(size, dtype=torch.double, generator=generator)

    sums = SumsInMemory(numbers(2, samples, classes), numbers(samples, labels), numbers(samples))
    if options["empty"]:
        sums.label_weight.zero_()
    terms = DiceTerms(
        torch.rand(samples, classes, generator=generator) < (0.0 if options["none"] else 0.7),
        numbers(classes) if options["weighted"] else None,
        0.0 if options["overlap"] else EPSILON,
        complement=not options["overlap"],
    )
    positive = torch.rand(samples, labels, classes, generator=generator) < 0.5
    return sums, DiceMean(terms, positive, options["mean"], options["batch"], 1.5, 0.7 if options["partner"] else None)


def by_autograd(sums, mean):
    """Value, derivatives by the overlaps and by the sum of cross-entropies, in float64."""
    overlaps, cross_entropy = (part.clone().requires_grad_() for part in (sums.overlaps, sums.cross_entropy))
    truth = torch.einsum("nl,nlk->nk", sums.label_weight, mean.positive.double())
    parts, terms = torch.stack([*overlaps, truth]), mean.terms
    if mean.batch:
        parts = torch.where(terms.included, parts, 0).sum(dim=1, keepdim=True)
        terms = terms._replace(included=terms.included.any(dim=0, keepdim=True))
    total = terms.of(parts[0], parts[1] + parts[2]).sum()
    weight = terms.weights(total).sum() if mean.mean else torch.tensor(1.0)
    value = mean.factor * total / (weight if weight != 0 else 1)
    if mean.cross_entropy_factor is not None:
        value = value + mean.cross_entropy_factor * cross_entropy.sum() / (sums.label_weight.sum() or 1)
    gradients = torch.autograd.grad(value, (overlaps, cross_entropy), allow_unused=True, materialize_grads=True)
    return value.detach(), gradients[0], gradients[1][:1]


@given(
    samples=st.integers(1, 4),
    labels=st.integers(1, 6),
    classes=st.integers(1, 6) | st.integers(60, 150),  # also more terms than a block has threads
    options=st.fixed_dictionaries(
        dict.fromkeys(("empty", "none", "weighted", "overlap", "mean", "batch", "partner"), st.booleans())
    ),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_autograd(way, dtype, samples, labels, classes, options, seed):
    sums, mean = random_mean(samples, labels, classes, options, torch.Generator().manual_seed(seed))
    with way():
        value, slopes, of_cross_entropy = mean.of(sums, dtype)
    expected = by_autograd(sums, mean)
    assert value.dtype == slopes.dtype == dtype
    assert of_cross_entropy.dtype == torch.double
    eps = torch.finfo(dtype).eps  # of a sum of terms of either sign
    scale = float(expected[0].abs()) + float(mean.terms.weights(expected[0]).sum()) + 1
    torch.testing.assert_close(value.double(), expected[0], rtol=0, atol=8 * eps * scale)
    torch.testing.assert_close(slopes.double(), expected[1], rtol=16 * eps, atol=1e-30)
    torch.testing.assert_close(of_cross_entropy, expected[2], rtol=1e-14, atol=0)


@pytest.mark.parametrize("batch", [False, True])
def test_what_does_not_count_may_be_no_number(way, batch):
    options = dict.fromkeys(("empty", "none", "weighted", "overlap", "partner"), False) | {"mean": True, "batch": batch}
    sums, mean = random_mean(2, 3, 4, options, torch.Generator().manual_seed(0))
    mean.terms.included[:, 2] = False
    mean.terms.included[:, 1] = True
    sums.overlaps[:, :, 2] = float("nan")
    with way():
        value, slopes, _ = mean.of(sums, torch.float32)
    assert value.isfinite()
    assert (slopes[:, :, 2] == 0).all()
    sums.overlaps[0, 0, 1] = float("nan")
    with way():
        assert mean.of(sums, torch.float32)[0].isnan()


@pytest.mark.parametrize("classes", [4, 40])  # in registers, and in shared memory
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["marginal_dice", "marginal_ce+marginal_dice"])
def test_an_upstream_gradient_is_a_factor(emulated_cuda, name, dtype, classes):
    loss = lb.losses.create(name, num_classes=classes, batch=True)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 5, 7, dtype=dtype, generator=generator).requires_grad_()
    target = torch.randint(0, classes, (2, 5, 7), generator=generator)
    annotated = torch.rand(2, classes, generator=generator) < 0.7
    annotated[:, 0] = True
    (expected,) = torch.autograd.grad(-2.5 * loss(logits, target, annotated), logits)
    with emulated_cuda():
        (found,) = torch.autograd.grad(-2.5 * loss(logits, target, annotated), logits)
    eps = torch.finfo(dtype).eps  # times sums of some tens of probabilities, of either sign
    torch.testing.assert_close(found, expected, rtol=64 * eps, atol=64 * eps * float(expected.abs().max()))
