"""Set cross-entropy where floating point is hard: extreme logits, half types, many pixels, threads."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from strategies import FLOATS, lay_out

import labeldrop_bench as lb
from labeldrop_bench import ops, reference

pytestmark = pytest.mark.usefixtures("isa")


def table_of(candidates, active, num_classes):
    """One sample, two labels, of which the pixels have the second."""
    table = torch.zeros(2, 1, 2, num_classes, dtype=torch.bool)
    table[0, :, :, candidates] = True
    table[1, :, :, active] = True
    return table[0], table[1]


def loss_and_gradient(logits, candidates, active, backend=ops):
    """Of one pixel, through a row of 20 equal ones, so that whole vectors and the rest are both used."""
    z = torch.as_tensor(logits).view(1, -1, 1).repeat(1, 1, 20).requires_grad_()
    tables = table_of(candidates, active, z.shape[1])
    loss = backend.set_cross_entropy(z, torch.ones(1, 20, dtype=torch.uint8), *tables, reduction="none")
    loss.sum().backward()
    assert loss.isnan().all() or (loss == loss[0, 0]).all()
    return loss.detach()[0, 0], z.grad[0, :, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([1e4, 0.0, 0.0], 0.0),  # the candidate wins by far
        ([0.0, 1e4, 0.0], 1e4),  # it loses by far
        ([-1e4, 1e4, 0.0], 2e4),
        ([0.0, 0.0, -1e4], math.log(2)),
        ([-30.0, 0.0, -math.inf], 30 + math.log1p(math.exp(-30))),
    ],
)
def test_logit_gaps(dtype, logits, expected):
    loss, gradient = loss_and_gradient(torch.tensor(logits, dtype=dtype), [0], [0, 1, 2])
    assert float(loss) == pytest.approx(expected, rel=4 * torch.finfo(dtype).eps)
    assert gradient.isfinite().all()
    expected_gradient = torch.tensor(logits, dtype=torch.float64).softmax(0) - torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_a_small_loss_keeps_its_digits():
    """log(1 + e^-40): the difference of two log-sum-exps would be 0."""
    loss, gradient = loss_and_gradient(torch.tensor([40.0, 0.0]), [0], [0, 1])
    assert float(loss) == pytest.approx(math.exp(-40), rel=1e-5)
    assert gradient.tolist() == pytest.approx([-math.exp(-40), math.exp(-40)], rel=1e-5)


def test_candidates_far_below_the_maximum():
    """Two candidates 200 below: their exponentials relative to the maximum are 0 in float32."""
    loss, gradient = loss_and_gradient(torch.tensor([-200.0, -201.0, 0.0]), [0, 1], [0, 1, 2])
    shares = torch.tensor([0.0, -1.0], dtype=torch.float64).softmax(0)
    assert float(loss) == pytest.approx(200 - math.log(1 + math.exp(-1)), rel=1e-6)
    torch.testing.assert_close(gradient.double(), torch.cat([-shares, torch.ones(1).double()]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_classes", [2, 40, 2000])
@pytest.mark.parametrize("gap", [-40, 0, 25, 34, 36, 38, 39, 41, 42, 43, 60, 200])
def test_sums_of_losses_at_any_gap(num_classes, gap):
    """Pixels whose losses are asked for together share a logarithm, which their odds, multiplied, must have room in."""
    z = torch.zeros(1, num_classes, 36)
    z[:, 0] = -gap
    tables = table_of([0], list(range(num_classes)), num_classes)
    loss = ops.set_cross_entropy(z, torch.ones(1, 36, dtype=torch.uint8), *tables, reduction="sum")
    # log(1 + (K - 1) e^gap)
    expected = F.softplus(torch.tensor(math.log(num_classes - 1) + gap, dtype=torch.float64))
    assert float(loss) == pytest.approx(36 * float(expected), rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinite_logits(dtype):
    inf = math.inf
    loss, gradient = loss_and_gradient(torch.tensor([0.0, -inf, 0.0], dtype=dtype), [0, 1], [0, 1, 2])
    assert float(loss) == pytest.approx(math.log(2), rel=1e-6)
    assert gradient.tolist() == pytest.approx([-0.5, 0.0, 0.5])
    # no candidate has a chance: as F.cross_entropy
    loss, gradient = loss_and_gradient(torch.tensor([-inf, 0.0, 0.0], dtype=dtype), [0], [0, 1, 2])
    assert loss == inf
    assert gradient.tolist() == pytest.approx([-1.0, 0.5, 0.5])
    # nothing but the candidates has one
    loss, gradient = loss_and_gradient(torch.tensor([0.0, -inf, -inf], dtype=dtype), [0], [0, 1, 2])
    assert loss == 0
    assert gradient.tolist() == [0.0, 0.0, 0.0]
    for logits in (
        [-inf, -inf, -inf],
        [inf, 0.0, 0.0],
        [0.0, inf, 0.0],
        [math.nan, 0.0, 0.0],
        [0.0, math.nan, math.nan],
    ):
        loss, _ = loss_and_gradient(torch.tensor(logits, dtype=dtype), [0], [0, 1, 2])
        assert loss.isnan(), logits


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_inactive_or_ignored_never_leaks(bad, dtype):
    loss, gradient = loss_and_gradient(torch.tensor([0.0, bad, 0.0], dtype=dtype), [0], [0, 2])
    assert float(loss) == pytest.approx(math.log(2), rel=1e-6)
    assert gradient.tolist() == pytest.approx([-0.5, 0.0, 0.5])

    logits = torch.randn(1, 3, 40).to(dtype)
    logits[:, :, 7] = bad
    target = torch.zeros(1, 40, dtype=torch.int16)
    target[:, 7] = -100
    for backend in (ops, reference):
        z = logits.clone().requires_grad_()
        table = table_of([0], [0, 1, 2], 3)
        backend.set_cross_entropy(z, target, *table, reduction="sum").backward()
        assert z.grad.isfinite().all()
        assert (z.grad[:, :, 7] == 0).all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_float16_does_not_underflow(layout):
    """A mean over 4 M pixels has gradients near 1e-7, below float16; the scaled upstream enters before the rounding."""
    torch.manual_seed(0)
    logits = lay_out(torch.randn(1, 2, 2048, 2048).half(), layout).requires_grad_()
    target = torch.randint(0, 2, (1, 2048, 2048), dtype=torch.uint8)
    loss = lb.CrossEntropy(num_classes=2)(logits, target)
    (65536 * loss).backward()
    exact = logits.detach().double().softmax(1)
    exact.scatter_add_(1, target.long().unsqueeze(1), torch.full_like(exact[:, :1], -1.0))
    exact *= 65536 / target.numel()
    # half an ulp of float16, and 2^-25 below its normal range; float32's own error is 1e-7 relative
    allowed = (2**-11 + 1e-6) * exact.abs() + 2**-25 * 1.001
    assert bool(((logits.grad.double() - exact).abs() <= allowed).all())
    assert (logits.grad != 0).float().mean() > 0.99


def test_half_types_round_to_nearest_even():
    """The kernel's own conversions, through gradients that are known exactly: sum reduction, upstream of any value."""
    for dtype, limit in ((torch.float16, 7e4), (torch.bfloat16, 1e38)):
        values = torch.cat([torch.logspace(-9, 5, 4001), torch.tensor([0.0, 65519.0, 65520.0, 5.9604645e-8])])
        # halfway between two neighbours, the lower and the upper one being even; float16's subnormal numbers too
        step = torch.finfo(dtype).eps
        halfway = torch.tensor([1 + step / 2, 1 + 3 * step / 2, 2**-25, 3 * 2**-25])
        values = torch.cat([values[values < limit], halfway])
        logits = torch.zeros(1, 2, len(values), dtype=dtype)
        logits[:, 1] = -math.inf  # p = (1, 0)
        logits.requires_grad_()
        table = table_of([1], [0, 1], 2)
        loss = ops.set_cross_entropy(logits, torch.ones(1, len(values), dtype=torch.uint8), *table, reduction="none")
        loss.backward(values.view(1, -1))
        assert torch.equal(logits.grad[0, 0], values.to(dtype))
        assert torch.equal(logits.grad[0, 1], -values.to(dtype))


def test_exponential_and_logarithm_over_their_range():
    """Two classes and a gap d: loss softplus(d). Within 4 ulp of float64 wherever it is a normal float32."""
    d = torch.cat([torch.linspace(-87, 87, 100_001), torch.logspace(-30, 2, 2001), -torch.logspace(-30, 1.9, 2001)])
    logits = torch.stack([torch.zeros_like(d), d]).unsqueeze(0)
    loss = ops.set_cross_entropy(
        logits, torch.ones(1, len(d), dtype=torch.uint8), *table_of([0], [0, 1], 2), reduction="none"
    )
    exact = F.softplus(d.double(), threshold=1e9)
    assert float(((loss[0].double() - exact).abs() / exact).max()) <= 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_deterministic(layout):
    torch.manual_seed(0)
    logits = lay_out(torch.randn(3, 14, 50, 61), layout)
    target = torch.randint(0, 14, (3, 50, 61))
    annotated = torch.rand(3, 14) < 0.5
    annotated[:, 0] = True
    loss = lb.MarginalCrossEntropy(num_classes=14)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 2, 3, 5):
            torch.set_num_threads(count)
            z = logits.clone(memory_format=torch.preserve_format).requires_grad_()
            value = loss(z, target, annotated)
            value.backward()
            results.append((value.detach(), z.grad))
    finally:
        torch.set_num_threads(threads)
    for value, gradient in results[1:]:  # stronger than asked: also across thread counts
        assert torch.equal(value, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_gradient_keeps_the_layout():
    z = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    lb.CrossEntropy(num_classes=3)(z, torch.zeros(2, 4, 5, dtype=torch.uint8)).backward()
    assert z.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_more_than_two_to_the_31_elements():
    """64-bit indices: the last pixels of a tensor of 2^31 + elements are read and written where they are."""
    pixels = 2**30 + 64
    if _free_gib() < 14:
        pytest.skip("needs 14 GiB of free memory")
    logits = torch.zeros(1, 2, pixels, dtype=torch.bfloat16)
    logits[0, 0, -3] = 5
    target = torch.zeros(1, pixels, dtype=torch.uint8)
    target[0, -3] = 1
    logits.requires_grad_()
    loss = lb.CrossEntropy(num_classes=2, reduction="sum")(logits, target)
    loss.backward()
    assert float(logits.grad[0, 0, -3]) == pytest.approx(1 / (1 + math.exp(-5)), rel=1e-2)
    assert float(logits.grad[0, 1, -2]) == pytest.approx(0.5)


def _free_gib():
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
