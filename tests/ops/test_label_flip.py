"""Label-flip loss: what it is, its switch and its soft target, and where floating point is hard."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sigmoid_cases import one_class, sigmoid_cases

from labeldrop_bench import ops, reference

BOTH = pytest.mark.parametrize("operator", [ops.label_flip, reference.label_flip])
GAMMAS = [0.0, 0.5, 1.0, 2.0, 3.7]


def pixels(z, f, positive):
    """One class; z, f and positive broadcast to [S]."""
    z, f, positive = torch.broadcast_tensors(torch.as_tensor(z), torch.as_tensor(f), torch.as_tensor(positive))
    return one_class(torch.stack([z, f]), positive)


def run(case, operator=ops.label_flip, **options):
    """Loss [S] and gradients by z and f [S]."""
    loss, gradient = case.run(operator, torch.ones(case.target.shape), reduction="none", **options)
    return loss[0], *gradient[0]


@BOTH
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("detach_target", [False, True])
def test_the_loss_as_it_is_written(operator, gamma, detach_target):
    """From p and q themselves; in float64 and for |z|, |f| < 10 the cancellation in 1 - p does not matter."""
    torch.manual_seed(0)
    z, f = (3 * torch.randn(300, dtype=torch.float64).clamp(-3, 3) for _ in range(2))
    x = torch.randint(0, 2, (300,))
    loss, by_z, by_f = run(pixels(z, f, x), operator, gamma=gamma, detach_target=detach_target)

    z.requires_grad_()
    f.requires_grad_()
    p, q = 1 / (1 + (-z).exp()), 0.5 / (1 + (-f).exp())
    d = ((p > 0.5) != (x == 1)).double()
    t = (1 - x) * q + x * (1 - q)
    t = t.detach() if detach_target else t

    def focal(p, t):
        return -t * (1 - p) ** gamma * p.log() - (1 - t) * p**gamma * (1 - p).log()

    expected = focal(p, t) + focal(q, d)
    expected.sum().backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(by_z, z.grad)
    torch.testing.assert_close(by_f, f.grad)


@BOTH
@pytest.mark.parametrize("gamma", GAMMAS)
def test_without_flips_it_is_the_focal_loss(operator, gamma):
    """f = -80: q = 2^-116. Where prediction and label disagree, -log q is added."""
    z = torch.linspace(-20, 20, 401, dtype=torch.float64)
    for positive in (False, True):
        case = pixels(z, -80.0, positive)
        loss, by_z, _ = run(case, operator, gamma=gamma)
        plain = one_class(z.unsqueeze(0), torch.full(z.shape, positive))
        expected, gradient = plain.run(
            reference.sigmoid_focal, torch.ones(plain.target.shape), gamma=gamma, reduction="none"
        )
        disagrees = (z > 0) != positive
        torch.testing.assert_close(loss, expected[0] + disagrees * (80 + math.log(2)))
        torch.testing.assert_close(by_z, gradient[0, 0])


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_switch_is_at_z_0(operator, dtype):
    """Also where p rounds to 1/2. With f = 0, q = 1/4: l(q, 1) - l(q, 0) = log 4 - log(4 / 3)."""
    tiny = torch.finfo(dtype).smallest_normal
    z = torch.tensor([-1e-3, -1e-9, -tiny, -0.0, 0.0, tiny, 1e-9, 1e-3], dtype=dtype)
    for positive in (False, True):
        loss, _, by_f = run(pixels(z, torch.zeros((), dtype=dtype), positive), operator)
        disagrees = (torch.arange(8) >= 5) != positive
        expected = math.log(2) + torch.where(disagrees, math.log(4), math.log(4 / 3))
        torch.testing.assert_close(loss, expected.to(dtype), rtol=0, atol=2e-3)  # what z = 1e-3 changes
        assert torch.equal(by_f < 0, disagrees)  # the flip probability is to grow


@BOTH
def test_detached_target(operator):
    torch.manual_seed(0)
    z, f = (3 * torch.randn(200, dtype=torch.float64) for _ in range(2))
    case = pixels(z, f, torch.randint(0, 2, (200,)))
    loss, by_z, by_f = run(case, operator, gamma=2.0)
    loss_detached, by_z_detached, by_f_detached = run(case, operator, gamma=2.0, detach_target=True)
    assert torch.equal(loss, loss_detached)
    assert torch.equal(by_z, by_z_detached)
    # then f only sees whether prediction and label agree
    agreeing = run(pixels(torch.full_like(z, 1.0), f, True), operator, gamma=2.0, detach_target=True)[2]
    disagreeing = run(pixels(torch.full_like(z, 1.0), f, False), operator, gamma=2.0, detach_target=True)[2]
    torch.testing.assert_close(
        by_f_detached, torch.where((z > 0) == (case.target[0] == 1), agreeing, disagreeing), rtol=1e-12, atol=1e-15
    )
    assert not torch.allclose(by_f, by_f_detached)


@given(sigmoid_cases(2), st.sampled_from([0.0, 1.0, 2.0]))
def test_exchanging_the_labels_turns_the_sign_of_z(case, gamma):
    classes = case.active.shape[-1]
    sign = torch.cat([-torch.ones(classes), torch.ones(classes)]).view(1, -1, *[1] * (case.logits.ndim - 2))
    # not at 0, where the prediction is "no" on either side
    case = case.with_logits(torch.where(case.logits == 0, 1, case.logits))
    exchanged = type(case)(
        case.logits * sign, case.target, ~case.candidates, case.active, case.ignore_index, dict(case.weights)
    )
    loss, gradient = case.run(ops.label_flip, gamma=gamma)
    loss_exchanged, gradient_exchanged = exchanged.run(ops.label_flip, gamma=gamma)
    torch.testing.assert_close(loss_exchanged, loss)
    torch.testing.assert_close(gradient_exchanged, gradient * sign)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("detach_target", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_accuracy(gamma, detach_target, positive):
    """Over all channels of any use, against float64: 8 ulp of 1 + the size.

    The gradients are sums of terms of both signs, up to 1 for z and up to |z| / 8 for f, each right to a few ulp. The
    loss has no such sums, so it keeps its digits, as far as the exponentials do (see sigmoid_focal).
    """
    torch.manual_seed(0)
    z, f = (
        torch.cat([torch.empty(20_000).uniform_(-80, 80), 3 * torch.randn(10_000), 1e-3 * torch.randn(10_000)])[
            torch.randperm(40_000)
        ]
        for _ in range(2)
    )
    case = pixels(z, f, positive)
    options = {"gamma": gamma, "detach_target": detach_target}
    fused, exact = run(case, **options), run(case.double(), reference.label_flip, **options)
    eps = torch.finfo(torch.float32).eps
    sizes = (exact[0].abs(), exact[1].abs(), exact[2].abs() + z.abs() / 8)
    for value, expected, size in zip(fused, exact, sizes, strict=True):
        assert bool(((value.double() - expected).abs() <= 8 * eps * (1 + size)).all())
    normal = exact[0] > 1e-8  # below, the reference's 1 - t has lost its digits
    assert bool(((fused[0].double() - exact[0]).abs() <= 64 * eps * exact[0])[normal].all())


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
def test_extreme_channels(operator, dtype, gamma):
    """q is 0 or 1/2, p is 0 or 1, and the loss is known."""
    for z, f, positive in [(z, f, x) for z in (-1e4, 1e4) for f in (-1e4, 1e4) for x in (False, True)]:
        case = pixels(torch.full((20,), z, dtype=dtype), torch.tensor(f, dtype=dtype), positive)
        loss, by_z, by_f = run(case, operator, gamma=gamma)
        disagrees = (z > 0) != positive
        q = 0.5 if f > 0 else 0.0
        first = abs(z) * (1 - q if disagrees else q)
        second = math.log(2) / 2**gamma if f > 0 else -f + math.log(2) if disagrees else 0.0
        assert loss.tolist() == pytest.approx([first + second] * 20, rel=1e-6)
        slope = (1 if z > 0 else -1) * (1 - q if disagrees else q)
        assert by_z.tolist() == pytest.approx([slope] * 20, rel=1e-6)
        assert by_f.tolist() == pytest.approx([-1.0 if disagrees and f < 0 else 0.0] * 20, abs=1e-6)
