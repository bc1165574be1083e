"""Predictive variance: the fused operator against the plain one, against integrals, and its noise."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from predictive_variance_cases import KEY, MODES, cases, make, one_class, run
from strategies import FLOATS, LAYOUTS, lay_out

from labeldrop_bench import ops, reference
from labeldrop_bench.ops import _native
from labeldrop_bench.reference.philox import normals

CPU = _native._MODULES["cpu"]


def assert_close_to_exact(case, reduction="mean", upstream=None):
    """The float32 arithmetic against the plain version in float64, with the same key.

    A normal number is off by up to 1e-6 (test_philox.py), sigma by 4 ulp, x by as much of its size: that is 2e-6 of
    |z| + 7 sigma at most. The loss follows with a slope of at most 2 (focal) for each class. So does the slope in the
    gradient, which s has times sigma eps / 2. The sums over T <= 65 samples and over pixels are relatively exact to
    1e-6. A wrong sign, sample or weight changes these numbers by a tenth and more.
    """
    exact_loss, exact_gradient = run(reference, replace(case, logits=case.logits.double()), reduction, upstream)
    loss, gradient = run(ops, case, reduction, upstream)
    z, s = case.logits.double().abs().chunk(2, dim=1)
    sigma = float((s / 2).exp().max())
    size = float(z.max()) + 7 * sigma
    classes = case.active.shape[2]
    pixels = case.target.numel() if reduction == "sum" else 1
    assert float((loss.double() - exact_loss).abs().max()) <= 4e-6 * (1 + size) * classes * pixels

    pixels = 1
    if reduction == "mean":
        weight = torch.ones(case.target.shape) if case.pixel_weight is None else case.pixel_weight
        pixels = float(weight[case.target != case.ignore_index].sum()) or 1.0
    largest = (1 if upstream is None else float(upstream.abs().max())) / pixels
    storage = torch.finfo(case.logits.dtype)
    rounding = storage.eps / 2 * exact_gradient.abs() + storage.smallest_normal * storage.eps
    allowed = 4e-6 * (1 + size) * max(1, 3.5 * sigma) * largest + rounding
    assert bool(((gradient.double() - exact_gradient).abs() <= allowed).all())


# ---- against the plain version ----


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@given(data=st.data())
def test_fused_equals_reference(dtype, reduction, data):
    case = data.draw(cases(dtype))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    shape = case.target.shape if reduction == "none" else ()
    assert_close_to_exact(case, reduction, torch.randn(shape, generator=generator))


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 6, 7, 8, 63, 64, 65, 100, 250])  # around groups of 4, and 64
@pytest.mark.parametrize(("average", "gamma"), MODES)
def test_any_number_of_samples(samples, average, gamma):
    # scale 0.1: each factor 1 + u of the product of likelihoods is near 2, so that 250 of them overflow
    for scale in (0.1, 2.0):
        assert_close_to_exact(make(scale=scale, samples=samples, average=average, gamma=gamma), "none")


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("average", "gamma"), MODES)
def test_every_instruction_set(average, gamma):
    for classes, layout in ((2, "contiguous"), (2, "channels_last"), (33, "contiguous")):
        case = make(classes, (2, 5, 131), average=average, gamma=gamma)
        assert_close_to_exact(replace(case, logits=lay_out(case.logits, layout)))


@pytest.mark.parametrize(("average", "gamma"), MODES)
@settings(max_examples=8)
@given(data=st.data())
def test_gradcheck(average, gamma, data):
    case = data.draw(cases(torch.float64, most_classes=2))
    case = replace(case, average=average, gamma=gamma)
    cut = {"logits": case.logits[..., :3].detach().requires_grad_(), "target": case.target[..., :3]}
    if case.pixel_weight is not None:
        cut["pixel_weight"] = case.pixel_weight[..., :3]
    case = replace(case, **cut)
    reduction = data.draw(st.sampled_from(["mean", "sum", "none"]))
    assert torch.autograd.gradcheck(lambda x: case(ops, x, reduction), case.logits)


@pytest.mark.parametrize(("average", "gamma"), MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_variance_it_is_the_focal_loss(average, gamma, dtype):
    """At s = -60, sigma is 1e-13. Small losses keep their digits: to 1e-5 of float32, however small they are."""
    case = make(2, (1, 41), dtype=dtype, samples=10, average=average, gamma=gamma)
    z = torch.linspace(-30, 30, 41, dtype=dtype).expand(1, 2, -1)
    case = replace(case, logits=torch.cat([z, torch.full_like(z, -60)], dim=1), active=torch.ones_like(case.active))
    plain = replace(case, samples=1, logits=case.logits.double())
    loss, gradient = run(ops, case, "none")
    expected, expected_gradient = run(reference, plain, "none")
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=0)
    # sigma itself, 1e-13, is what a small slope may be off by
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=tolerance, atol=1e-12)


# ---- against integrals ----


def integral(f, nodes=200):
    """Mean of f over N(0, 1), by Gauss-Hermite quadrature; right to 1e-9 for the functions here."""
    x, weight = np.polynomial.hermite_e.hermegauss(nodes)
    return float((f(torch.from_numpy(x)) * torch.from_numpy(weight)).sum() / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize(("z", "s"), [(0.0, 0.0), (2.0, 1.0), (-3.0, 2.0), (1.0, -4.0)])
def test_mean_of_the_loss_is_its_integral(z, s, gamma, positive):
    """Within 4 standard errors, which chance passes once in 16 000 trials; the key is fixed, so there is one trial."""
    pixels, samples, sigma = 2000, 50, math.exp(s / 2)
    loss, gradient = run(ops, one_class(z, s, samples, pixels, positive, gamma=gamma))

    def focal(eps):
        toward = (z + sigma * eps) * (1 if positive else -1)
        return -F.logsigmoid(toward) * torch.sigmoid(-toward) ** gamma

    def slope(eps):
        h = 1e-5 / sigma
        return (focal(eps + h) - focal(eps - h)) / (2 * h * sigma)

    for got, f in (
        (loss, focal),
        (gradient[0, 0].sum(), slope),
        (gradient[0, 1].sum(), lambda eps: slope(eps) * eps * sigma / 2),
    ):
        mean = integral(f)
        variance = integral(lambda eps, f=f, mean=mean: (f(eps) - mean) ** 2)
        assert abs(float(got) - mean) <= 4 * math.sqrt(variance / (pixels * samples)) + 1e-6


@pytest.mark.parametrize(("z", "s"), [(0.0, 0.0), (2.0, 1.0), (-3.0, 2.0)])
def test_mean_of_the_probability_is_its_integral(z, s):
    """exp(-L) of one pixel is a mean of probabilities; 4 standard errors, as above."""
    samples = 4096
    loss, _ = run(ops, one_class(z, s, samples, pixels=1, average="probability"))
    mean = integral(lambda eps: torch.sigmoid(z + math.exp(s / 2) * eps))
    variance = integral(lambda eps: (torch.sigmoid(z + math.exp(s / 2) * eps) - mean) ** 2)
    assert abs(math.exp(-float(loss)) - mean) <= 4 * math.sqrt(variance / samples)


# ---- the noise ----


@pytest.mark.parametrize(("average", "gamma"), MODES)
def test_a_key_stands_for_the_noise(average, gamma):
    """Bitwise the same at any number of threads, in any layout, and cut into dimensions in any way."""
    case = make(3, (3, 64, 61), average=average, gamma=gamma, samples=6)  # enough work for four threads
    threads = torch.get_num_threads()
    expected = run(ops, case), run(ops, case, "none")[0]
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            for layout in LAYOUTS:
                same = replace(case, logits=lay_out(case.logits, layout))
                assert torch.equal(run(ops, same, "none")[0], expected[1])
                for got, wanted in zip(run(ops, same), expected[0], strict=True):
                    assert torch.equal(got, wanted)
    finally:
        torch.set_num_threads(threads)
    flat = replace(case, logits=case.logits.flatten(2), target=case.target.flatten(1))
    assert torch.equal(run(ops, flat, "none")[0], expected[1].flatten(1))
    assert not torch.equal(run(ops, replace(case, key=KEY + 1), "none")[0], expected[1])


def test_every_sample_class_and_pixel_has_noise_of_its_own():
    case = make(3, (2, 8, 9), labels=1, samples=1)
    case = replace(case, logits=torch.zeros_like(case.logits), target=torch.zeros_like(case.target))
    case = replace(case, active=torch.ones_like(case.active), candidates=torch.zeros_like(case.active))
    slope = run(ops, case, "sum")[1][:, :3]
    expected = normals(KEY, 1, (2, 3, 8, 9))[0].sigmoid()
    assert len(expected.unique()) == expected.numel()
    torch.testing.assert_close(slope.double(), expected, rtol=0, atol=1e-6)


def test_without_a_key_torch_draws_one():
    case = replace(make(samples=3), key=None)
    torch.manual_seed(1)
    first, second = run(ops, case), run(ops, case)
    torch.manual_seed(1)
    again = run(ops, case)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])


def test_backward_has_the_noise_of_forward():
    """An upstream gradient of 2 makes backward compute anew what forward has computed for an upstream of 1."""
    case = replace(make(samples=3), key=None)
    torch.manual_seed(1)
    gradient = run(ops, case)[1]
    torch.manual_seed(1)
    assert torch.equal(run(ops, case, upstream=torch.tensor(2.0))[1], 2 * gradient)


_MEMORY = """
import resource, sys, torch
from labeldrop_bench import ops
logits = torch.zeros(1, 4, 250_000, requires_grad=True)
target, table = torch.zeros(1, 250_000, dtype=torch.uint8), torch.ones(1, 1, 2, dtype=torch.bool)
def peak(samples):
    ops.predictive_variance(logits, target, table, table, samples=samples).backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
peak(1)
few, many = peak(1), peak(100)
print(many - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_memory_does_not_depend_on_the_number_of_samples(tmp_path):
    """The noise of 100 samples would be 200 MB; a twentieth of that leaves room for the allocator's moods."""
    # elsewhere than in the source tree, which may hold the package without its kernels
    command = [sys.executable, "-c", _MEMORY]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) * 1024 < 10e6


# ---- what must not matter, and what must ----


@given(cases())
def test_inactive_classes_and_ignored_pixels_are_not_looked_at(case):
    inactive = torch.cat([~case.active_pixels] * 2, dim=1)  # [N, 2 K, *spatial]
    loss, gradient = run(ops, case)
    assert (gradient[inactive] == 0).all()
    for value in (math.nan, math.inf, -math.inf):
        spoilt = replace(case, logits=torch.where(inactive, value, case.logits))
        for backend in (ops, reference):
            loss_spoilt, gradient_spoilt = run(backend, spoilt)
            assert loss_spoilt.isfinite()
            assert (gradient_spoilt[inactive] == 0).all()
        assert torch.equal(run(ops, spoilt)[0], loss)
        assert torch.equal(run(ops, spoilt)[1], gradient)


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("average", "gamma"), MODES)
def test_an_infinite_or_nan_channel_gives_nan(channel, value, average, gamma):
    case = one_class(1.0, 0.5, 7, 20, average=average, gamma=gamma)
    case.logits[0, channel, 3] = value
    for backend in (ops, reference):
        loss, gradient = run(backend, case, "none")
        assert loss.isnan().nonzero().tolist() == [[0, 3]]
        assert gradient[0, :, :3].isfinite().all()
    assert run(ops, case, "none")[1][0, :, 3].isnan().all()


@pytest.mark.parametrize(("average", "gamma"), MODES)
def test_extreme_logits_and_variances(average, gamma):
    """Values and gradients like the plain version's in float64, wherever float32 has numbers for them."""
    z = torch.tensor([0.0, 1e-30, 50.0, -50.0, 1e4, -1e4, 1e30, -1e30])
    s = torch.tensor([-1e30, -300.0, -100.0, 0.0, 10.0, 60.0, 100.0])
    grid = torch.cartesian_prod(z, s).T.unsqueeze(0)  # [1, 2, pixels]
    for positive in (True, False):
        case = one_class(0.0, 0.0, 10, grid.shape[2], positive, average=average, gamma=gamma)
        case = replace(case, logits=grid)
        loss, gradient = run(ops, case, "none")
        expected, expected_gradient = run(reference, replace(case, logits=grid.double()), "none")
        # an x of size 1e30 is rounded, and a slope near 1/2 at x = 0 sees of it what sigma eps is off by: 1e-5
        torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
        allowed = 1e-6 + 1e-5 * expected_gradient.abs()
        if average == "probability":
            # a sample's weight is the exponential of its loss, whose rounding it magnifies
            sigma = (s / 2).exp().repeat(len(z))
            allowed = 4e-6 * (1 + grid[0, 0].abs() + 7 * sigma) * torch.clamp(3.5 * sigma, min=1)
        assert gradient.isfinite().all()
        assert ((gradient.double() - expected_gradient).abs() <= allowed).all()


@pytest.mark.parametrize("backend", [ops, reference])
def test_a_variance_beyond_float32_is_no_number(backend):
    """No finite loss may hide it."""
    loss, _ = run(backend, one_class(1.0, 200.0, 10, 50), "none")
    assert not loss.isfinite().any()


def test_nothing_to_learn_from():
    case = make()
    for empty in (
        replace(case, target=torch.full_like(case.target, -100)),
        replace(case, pixel_weight=torch.zeros(case.target.shape)),
    ):
        loss, gradient = run(ops, empty)
        assert loss == 0
        assert (gradient == 0).all()
