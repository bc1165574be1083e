"""Sigmoid focal loss: what it is, and where floating point is hard."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sigmoid_cases import one_class, random_case, sigmoid_cases

from labeldrop_bench import ops, reference


def all_active(logits, target):
    """Binary labels: logits and target [N, K, S], one class at a time in turn on the sample dimension."""
    samples, classes, pixels = logits.shape
    positive = target.bool().reshape(-1)
    return one_class(logits.reshape(1, -1), positive), (samples, classes, pixels)


@pytest.mark.parametrize("operator", [ops.sigmoid_focal, reference.sigmoid_focal])
def test_gamma_0_is_binary_cross_entropy(operator):
    torch.manual_seed(0)
    logits, target = 5 * torch.randn(2, 3, 50, dtype=torch.float64), torch.randint(0, 2, (2, 3, 50))
    case, shape = all_active(logits, target)
    logits.requires_grad_()
    expected = F.binary_cross_entropy_with_logits(logits, target.double(), reduction="none")
    expected.sum().backward()
    loss, gradient = case.run(operator, torch.ones(1, logits.numel()), reduction="none")
    torch.testing.assert_close(loss.view(shape), expected.detach())
    torch.testing.assert_close(gradient.view(shape), logits.grad)


@pytest.mark.parametrize("operator", [ops.sigmoid_focal, reference.sigmoid_focal])
@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, None), (3.7, 0.9)])
def test_focal_loss_as_it_is_written(operator, gamma, alpha):
    """From p itself; in float64 and for |z| < 10 the cancellation in 1 - p does not matter."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 50, dtype=torch.float64).clamp(-9, 9), torch.randint(0, 2, (2, 3, 50))
    case, shape = all_active(logits, target)
    logits.requires_grad_()
    p = 1 / (1 + (-logits).exp())
    p_of_label = torch.where(target == 1, p, 1 - p)
    factor = 1 if alpha is None else torch.where(target == 1, torch.tensor(alpha).double(), 1 - alpha)
    expected = -factor * (1 - p_of_label) ** gamma * p_of_label.log()
    expected.sum().backward()
    loss, gradient = case.run(operator, torch.ones(1, logits.numel()), gamma=gamma, alpha=alpha, reduction="none")
    torch.testing.assert_close(loss.view(shape), expected.detach())
    torch.testing.assert_close(gradient.view(shape), logits.grad)


@given(sigmoid_cases(), st.sampled_from([0.0, 1.0, 2.0]))
def test_exchanging_the_labels_turns_the_sign(case, gamma):
    loss, gradient = case.run(ops.sigmoid_focal, gamma=gamma)
    turned = case.with_logits(-case.logits)
    exchanged = type(case)(
        turned.logits, case.target, ~case.candidates, case.active, case.ignore_index, dict(case.weights)
    )
    loss_exchanged, gradient_exchanged = exchanged.run(ops.sigmoid_focal, gamma=gamma)
    torch.testing.assert_close(loss_exchanged, loss)
    torch.testing.assert_close(gradient_exchanged, -gradient)


def test_candidates_that_are_not_active_do_not_matter():
    torch.manual_seed(0)
    case = random_case(torch.randn(2, 5, 40))
    results = [
        type(case)(case.logits, case.target, candidates, case.active).run(ops.sigmoid_focal, gamma=2.0)
        for candidates in (case.candidates & case.active, case.candidates | ~case.active)
    ]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("positive", [False, True])
def test_accuracy(gamma, positive):
    """Value and gradient over all logits of any use, against float64.

    Within 8 ulp where they are not tiny: three or four factors, each right to 2 ulp. What is tiny keeps its digits: the
    exponential's argument is rounded to 80 eps / 2 without fused multiply-add, and multiplied by gamma in a power.
    """
    z = torch.cat([torch.linspace(-80, 80, 20_001), torch.logspace(-30, 1.9, 2001), -torch.logspace(-30, 1.9, 2001)])
    case = one_class(z.unsqueeze(0), torch.full(z.shape, positive))
    upstream = torch.ones(1, len(z))
    fused = case.run(ops.sigmoid_focal, upstream, gamma=gamma, reduction="none")
    exact = case.double().run(reference.sigmoid_focal, upstream, gamma=gamma, reduction="none")
    eps = torch.finfo(torch.float32).eps
    for value, expected in zip(fused, exact, strict=True):
        error = (value.double() - expected).abs()
        assert bool((error <= 8 * eps * (1e-3 + expected.abs())).all())
        normal = expected.abs() > 1e-30
        assert bool((error <= 64 * eps * expected.abs())[normal].all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
def test_extreme_logits(dtype, gamma):
    z = torch.tensor([[-1e4, 1e4, -200.0, 200.0] * 5], dtype=dtype)
    for positive in (False, True):
        case = one_class(z, torch.full((z.shape[1],), positive))
        sign = 1 if positive else -1
        wrong = (-sign * z[0]).clamp(min=0)  # how far the prediction is off: the loss, for any gamma
        for operator in (ops.sigmoid_focal, reference.sigmoid_focal):
            loss, gradient = case.run(operator, torch.ones(1, z.shape[1]), gamma=gamma, reduction="none")
            torch.testing.assert_close(loss[0], wrong, rtol=1e-6, atol=1e-30)
            torch.testing.assert_close(gradient[0, 0], -sign * (wrong > 0).to(dtype), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_bad_alpha_is_named(alpha):
    case = one_class(torch.zeros(1, 3), torch.ones(3))
    with pytest.raises(ValueError, match=rf"sigmoid_focal: alpha must be None or in \[0, 1\], got {alpha}"):
        case.loss(ops.sigmoid_focal, alpha=alpha)
