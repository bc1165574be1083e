"""Set cross-entropy in every form that its CPU kernel has for a vector of pixels: one row of the tables for all of
them, with each kind of row, or rows of their own. The labels are runs of random lengths, so that one tile has all."""

import math
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench import ops, reference
from labeldrop_bench.ops import _native

CPU = _native._MODULES["cpu"]
ISAS = [isa for isa in (0, 1, 2) if isa <= CPU.current_isa()]
IGNORED = 255
# around a vector (4, 8, 16), a unit (16) and a tile of few classes (512)
PIXELS = (1, 3, 8, 15, 16, 17, 31, 33, 64, 100, 511, 512, 513, 545)
# few classes, which have code of their own, and around one, two and four words of bits
CLASSES = (2, 3, 4, 5, 6, 9, 14, 31, 32, 33, 64, 65, 130)


@contextmanager
def instruction_set(isa):
    best = CPU.current_isa()
    assert CPU.select_isa(isa)
    try:
        yield
    finally:
        CPU.select_isa(best)


@st.composite
def tables(draw, samples, num_labels, num_classes):
    """Candidates and active classes `[N, L, K]`: every kind of row, also of one class alone."""
    rows = []
    for _ in range(samples * num_labels):
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        order = torch.randperm(num_classes, generator=generator)
        candidates = draw(st.one_of(st.just(1), st.integers(1, num_classes)))
        active = draw(st.one_of(st.just(num_classes), st.just(candidates), st.integers(candidates, num_classes)))
        row = torch.zeros(2, num_classes, dtype=torch.bool)
        row[0, order[:candidates]] = True
        row[1, order[:active]] = True
        rows.append(row)
    return torch.stack(rows, dim=1).unflatten(1, (samples, num_labels)).unbind()


@st.composite
def problems(draw, scales=(1.0, 10.0, 1e4)):
    """Logits `[N, K, S]`, target `[N, S]` in runs, candidates, active."""
    samples = draw(st.integers(1, 3))
    num_classes, pixels = draw(st.sampled_from(CLASSES)), draw(st.sampled_from(PIXELS))
    num_labels = draw(st.sampled_from([1, 2, 4, 7, 8, 15, 16, 40]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    longest = draw(st.sampled_from([1, 8, 40, 1000]))
    lengths = torch.randint(1, longest + 1, (samples * pixels,), generator=generator)
    labels = torch.randint(0, num_labels, lengths.shape, generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < draw(st.sampled_from([0.0, 0.3]))] = IGNORED
    target = labels.repeat_interleave(lengths)[: samples * pixels].to(torch.uint8).view(samples, pixels)
    logits = torch.randn(samples, num_classes, pixels, generator=generator) * draw(st.sampled_from(scales))
    return logits, target, *draw(tables(samples, num_labels, num_classes))


# the kernel's least sum is e^-43.3 for each class; to the largest, no gap makes a difference
HEIGHTS = (0.0, 30.0, 41.0, 42.0, 42.6, 43.3, 43.4, 59.0, 61.0, 100.0, 1e4, 3e9, 3e38)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pixels", [1, 16, 517])
@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 9, 33])
def test_one_class_far_above_the_others(isa, num_classes, pixels, dtype):
    """A candidate, another active class or an inactive one: a pixel's references follow from its own logits alone."""
    generator = torch.Generator().manual_seed(num_classes + pixels)
    rows = torch.zeros(2, 1, 3, num_classes, dtype=torch.bool)  # candidates, active
    for label, (candidates, active) in enumerate([([0], [0, 1]), ([0, 1], [0, 1]), ([1], range(num_classes))]):
        rows[0, 0, label, candidates] = True
        rows[1, 0, label, list(active)] = True
    logits = torch.randn(1, num_classes, pixels, generator=generator)
    target = torch.randint(0, 3, (1, pixels), generator=generator).to(torch.uint8)
    above = torch.randint(0, num_classes, (pixels,), generator=generator)
    heights = torch.tensor(HEIGHTS)[torch.randint(0, len(HEIGHTS), (pixels,), generator=generator)]
    logits[0, above, torch.arange(pixels)] += heights
    exact_loss, exact_gradient = run(reference, logits, target, *rows, dtype=torch.float64)
    with instruction_set(isa):
        loss, gradient = run(ops, logits, target, *rows, dtype=dtype)
    eps = (8 if dtype == torch.float32 else 16) * torch.finfo(dtype).eps  # in float64 the reference is as far off
    assert bool(((loss.double() - exact_loss).abs() <= eps * (1 + logits.abs().amax(dim=1))).all())
    # a gap's rounding, up to the gap beside which a class vanishes
    assert bool(((gradient.double() - exact_gradient).abs() <= eps * (1 + exact_loss.clamp(max=100))).all())
    inactive = ~rows[1, 0][target.long()].movedim(2, 1)
    assert bool((gradient[inactive] == 0).all())


def spoil(logits, data):
    """The logits with NaN and infinities in them, mostly in few pixels."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    logits = logits.clone()
    for value in (math.nan, math.inf, -math.inf, -math.inf):
        share = data.draw(st.sampled_from([0.0, 0.001, 0.1]))
        logits[torch.rand(logits.shape, generator=generator) < share] = value
    return logits


def run(backend, logits, *arguments, dtype=torch.float32):
    """Loss and gradient of each pixel for an upstream gradient of 1."""
    logits = logits.detach().to(dtype).clone().requires_grad_()
    loss = backend.set_cross_entropy(logits, *arguments, ignore_index=IGNORED, reduction="none")
    loss.sum().backward()
    return loss.detach(), logits.grad


def same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
@given(data=st.data())
def test_a_pixel_does_not_depend_on_its_neighbours(isa, data):
    """Bit for bit: in runs, shuffled, or with another pixel beside it whose logits are no numbers."""
    logits, target, *rows = data.draw(problems())
    logits = spoil(logits, data) if data.draw(st.booleans()) else logits
    order = torch.randperm(target.shape[1], generator=torch.Generator().manual_seed(data.draw(st.integers(0, 2**31))))
    with instruction_set(isa):
        loss, gradient = run(ops, logits, target, *rows)
        shuffled_loss, shuffled_gradient = run(ops, logits[:, :, order], target[:, order], *rows)
        spoilt = logits.clone()
        spoilt[:, :, ::7] = math.nan
        untouched = torch.arange(target.shape[1]) % 7 != 0
        loss_beside, gradient_beside = run(ops, spoilt, target, *rows)
    same(shuffled_loss, loss[:, order])
    same(shuffled_gradient, gradient[:, :, order])
    same(loss_beside[:, untouched], loss[:, untouched])
    same(gradient_beside[:, :, untouched], gradient[:, :, untouched])


@pytest.mark.parametrize("isa", ISAS)
@given(data=st.data())
def test_every_row_equals_the_reference(isa, data):
    """A logit is rounded to eps |z|, and so is each probability's exponent: 8 such errors, as in the other tests."""
    logits, target, *rows = data.draw(problems())
    exact_loss, exact_gradient = run(reference, logits, target, *rows, dtype=torch.float64)
    with instruction_set(isa):
        loss, gradient = run(ops, logits, target, *rows)
    allowed = 8 * torch.finfo(torch.float32).eps * (1 + logits.abs().amax(dim=1))
    assert bool(((loss.double() - exact_loss).abs() <= allowed).all())
    assert bool(((gradient.double() - exact_gradient).abs() <= allowed.unsqueeze(1)).all())
    assert bool((loss >= 0).all())


@pytest.mark.parametrize("isa", ISAS)
@given(data=st.data())
def test_no_numbers(isa, data):
    """What the loss is where active logits are NaN or infinite; what is inactive or ignored is never looked at."""
    logits, target, candidates, active = data.draw(problems(scales=(1.0,)))
    logits = spoil(logits, data)
    with instruction_set(isa):
        loss, gradient = run(ops, logits, target, candidates, active)
    counted = (target != IGNORED).flatten()
    label = torch.where(target != IGNORED, target.long(), 0)
    sample = torch.arange(len(target)).unsqueeze(1)
    z, gradient = (tensor.movedim(1, 2).flatten(0, 1) for tensor in (logits, gradient))
    is_candidate, is_active = (table[sample, label].flatten(0, 1) for table in (candidates, active))
    is_bad = ((z.isnan() | (z == math.inf)) & is_active).any(1)
    has_a_chance = [((z != -math.inf) & part).any(1) for part in (is_candidate, is_active)]
    is_nan = counted & (is_bad | ~has_a_chance[1])
    is_infinite = counted & ~is_nan & ~has_a_chance[0]
    assert torch.equal(loss.flatten().isnan(), is_nan)
    assert torch.equal(loss.flatten().isinf(), is_infinite)
    assert bool((gradient[~is_active] == 0).all())
    assert bool((gradient[~counted] == 0).all())
    assert gradient[~is_nan].isfinite().all()
    # candidates without a chance share what there is equally
    share = is_candidate.double() / is_candidate.sum(1, keepdim=True)
    off = (gradient.double() + share)[is_candidate & is_infinite.unsqueeze(1)].abs()
    assert bool((off <= 1e-6).all())
