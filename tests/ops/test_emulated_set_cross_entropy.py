"""Set cross-entropy's CUDA kernels: pixels with one candidate, numbers at the end, and what is of one pixel alone."""

from contextlib import nullcontext
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
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 8, 9, 13, 16, 21, 30, 32, 33, 64, 105])
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
@pytest.mark.parametrize("classes", [2, 4, 7, 13, 32, 40, 105])
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
    for classes in (3, 13, 70):
        case = annotated(classes, (1, 4 * 12), seed=1)
        logits, target = case.logits.clone(), torch.arange(48)[None] % classes
        logits[:, 1, 4:12] = value
        logits[:, :, 16] = value
        logits[:, :, 20:24] = LOWEST
        case = replace(case, logits=lay_out(logits, layout), target=target)
        expected = run(ops, case, "none")
        with emulated_cuda():
            found = run(ops, case, "none")
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7, equal_nan=True)


def extremes(shape, classes, generator):
    """Logits of which every second pixel is far from usual: gaps of 50 to 1e30, infinities, NaN, in any class."""
    logits = torch.randn(shape[0], classes, shape[1], generator=generator) * 3
    values = torch.tensor([70.0, -70, 150, -150, 3e4, -3e4, 1e30, -1e30, INFINITY, -INFINITY, float("nan"), LOWEST])
    chosen = values[torch.randint(len(values), logits.shape, generator=generator)]
    pixels = torch.rand(shape, generator=generator) < 0.5
    there = (torch.rand(logits.shape, generator=generator) < 0.3) & pixels[:, None]
    return torch.where(there, logits + chosen, logits)


@pytest.mark.parametrize("dtype", FLOATS[:2])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("classes", [2, 3, 4, 8, 13, 32, 40])
def test_extremes_as_on_the_cpu(emulated_cuda, classes, layout, dtype):
    """Several candidates, inactive classes, skipped pixels: numbers where the CPU has numbers, and the same ones."""
    generator = torch.Generator().manual_seed(classes)
    case = make("set_cross_entropy", classes, (2, 192), dtype=dtype, weighted=classes % 2 == 1)
    case = replace(case, logits=lay_out(extremes((2, 192), classes, generator).to(dtype), layout))
    expected = run(ops, case, "none")
    with emulated_cuda():
        found = run(ops, case, "none")
    for one, other in zip(found, expected, strict=True):
        # each is within 1e-6 of the exact number, and half types are rounded once more
        torch.testing.assert_close(one, other, rtol=max(1e-5, torch.finfo(other.dtype).eps), atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("classes", [2, 4, 6, 8, 14, 32, 40, 105])
def test_bits_do_not_depend_on_neighbours(emulated_cuda, classes, layout):
    """Whatever the other pixels of a thread are: far from usual, skipped, no label, with inactive classes."""
    generator = torch.Generator().manual_seed(classes)
    case = annotated(classes, (2, 1024), seed=classes)
    usual = torch.randn(2, classes, 1024, generator=generator)
    kept = torch.rand(2, 1024, generator=generator) < 0.3
    alike = torch.full_like(case.target, classes)  # a label of any table
    mixed = torch.where(kept, alike, torch.randint(-1, classes + 2, alike.shape, generator=generator))
    strange = torch.where(kept[:, None], usual, extremes((2, 1024), classes, generator))
    with emulated_cuda():
        loss, gradient = run(ops, replace(case, logits=lay_out(usual, layout), target=alike), "none")
        for logits, target in ((usual, mixed), (strange, alike), (strange, mixed)):
            other, others = run(ops, replace(case, logits=lay_out(logits, layout), target=target), "none")
            assert torch.equal(other[kept], loss[kept])
            assert torch.equal(others.movedim(1, -1)[kept], gradient.movedim(1, -1)[kept])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [3, 13, 40])
def test_nothing_has_a_probability(emulated_cuda, classes, dtype):
    """Where all active logits are -inf, loss and gradient are NaN, as the plain version's, on either device."""
    case = make("set_cross_entropy", classes, (1, 64), dtype=dtype)
    active = case.active[0, case.target[0].clamp(0)] & (case.target[0] != case.ignore_index)[:, None]
    gone = active & (torch.arange(64) % 3 == 0)[:, None]
    logits = case.logits.masked_fill(gone.T[None], -INFINITY)
    for layout in LAYOUTS[:2]:
        for device in (nullcontext, emulated_cuda):
            with device():
                loss, gradient = run(ops, replace(case, logits=lay_out(logits, layout)), "none")
            assert torch.equal(loss[0].isnan(), gone.any(1))
            assert torch.equal(gradient[0].T.isnan(), gone)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("gap", [1e-3, 20.0, 55.0, 1000.0])
def test_one_logarithm_for_several_pixels(emulated_cuda, gap, layout):
    """The product of a thread's odds overflows from a gap of 22 (8 pixels) or 44 (4 pixels) on."""
    for classes in (2, 3, 4, 8, 14, 32):
        case = annotated(classes, (1, 1024), seed=classes)
        logits = torch.randn(1, classes, 1024, generator=torch.Generator().manual_seed(0))
        logits[:, 0] += gap
        target = torch.ones_like(case.target)
        target[:, 600:] = torch.arange(424) % classes
        case = replace(case, logits=lay_out(logits, layout), target=target)
        assert_equals_reference(emulated_cuda, case, "sum", 0, torch.tensor(1.0))
