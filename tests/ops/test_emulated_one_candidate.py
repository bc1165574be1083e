"""Pixels whose classes are all active and of which one is the candidate: the CUDA kernels have a way of their own."""

from dataclasses import replace

import pytest
import torch
from emulated_cases import assert_equals_reference, make, run
from strategies import FLOATS, LAYOUTS, lay_out

from labeldrop_bench import ops

INFINITY, LOWEST = float("inf"), torch.finfo(torch.float32).min


def annotated(classes, shape, **options):
    """A case whose first labels have one candidate each among all classes; the last two have what they had."""
    case = make("set_cross_entropy", classes, shape, **options)
    candidates, active = case.candidates.clone(), case.active.clone()
    candidates[:, :classes], active[:, :classes] = torch.eye(classes, dtype=torch.bool), True
    return replace(case, candidates=candidates, active=active)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 8, 9, 13, 16, 21, 30, 32])
def test_equals_reference(emulated_cuda, classes, dtype):
    for seed, layout in enumerate(LAYOUTS):
        for weighted in (False, True):
            case = annotated(classes, (2, 5, 48), seed=seed, dtype=dtype, weighted=weighted)
            # the first row has one candidate everywhere, the second one has one label, the rest has everything
            labels = torch.arange(48) % classes
            case.target[:, 0], case.target[:, 1] = labels, classes // 2
            case = replace(case, logits=lay_out(case.logits, layout))
            upstream = torch.randn(case.target.shape, dtype=torch.float64)
            assert_equals_reference(emulated_cuda, case, "none", seed % 3, upstream)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("classes", [2, 4, 7, 13, 32])
def test_losses_keep_their_digits(emulated_cuda, classes, layout):
    """At any gap to the next class: a difference of two log-sum-exps would be 0, and 1 - probability, too."""
    gaps = torch.cat([torch.linspace(0, 80, 41), -torch.linspace(0, 80, 41), torch.tensor([1e4, -1e4, -1e-3])])
    for candidate in (0, classes - 1):
        case = annotated(classes, (1, 4 * len(gaps)))
        logits = torch.full((1, classes, 4 * len(gaps)), 3.0)
        logits[:, candidate] += gaps.repeat(4)
        target = torch.full_like(case.target, candidate)
        case = replace(case, logits=lay_out(logits, layout), target=target)
        with emulated_cuda():
            loss, gradient = run(ops, case, "none")
        above = logits[:, candidate] - 3
        exact = torch.nn.functional.softplus(
            -above.double() + torch.tensor(classes - 1.0).double().log(), threshold=750
        )
        # exponents, in units of log 2, are rounded once: to 2^-25 of them, and so is e^-gap, to gap 4.3e-8
        rounding = exact * above.abs().clamp(max=90) * 4.3e-8
        assert ((loss - exact).abs() <= 2e-6 * exact + rounding).all()
        torch.testing.assert_close(gradient[:, candidate].double(), torch.expm1(-exact), rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("value", [INFINITY, -INFINITY, float("nan"), LOWEST])
def test_numbers_at_the_end(emulated_cuda, value, layout):
    """As on the CPU: of the candidate, of another class, of all classes."""
    for classes in (3, 13):
        case = annotated(classes, (1, 4 * 12), seed=1)
        logits, target = case.logits.clone(), torch.arange(48)[None] % classes
        logits[:, 1, 4:12] = value
        if value != -INFINITY:  # of which all classes give NaN, and not everywhere the same gradient
            logits[:, :, 16] = value
        logits[:, :, 20:24] = LOWEST
        case = replace(case, logits=lay_out(logits, layout), target=target)
        expected = run(ops, case, "none")
        with emulated_cuda():
            found = run(ops, case, "none")
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7, equal_nan=True)
