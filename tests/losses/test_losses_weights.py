"""What class weights and pixel weights are; test_losses.py has what holds for every loss."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

import labeldrop_bench as lb

WEIGHTED = [name for name in lb.losses.names() if "dice" not in name and name != "predictive_variance"]


def example(loss, samples=3):
    torch.manual_seed(0)
    logits = torch.randn(samples, loss.out_channels, 5, 7, dtype=torch.float64)
    target = torch.randint(0, 4, (samples, 5, 7))
    target[0, 0] = -100
    return logits.requires_grad_(), target


def test_class_weights_of_cross_entropy_are_those_of_pytorch():
    weights = [0.5, 2.0, 0.0, 1.5]
    for reduction in ("mean", "sum", "none"):
        loss = lb.CrossEntropy(num_classes=4, class_weights=weights, reduction=reduction)
        logits, target = example(loss)
        expected = F.cross_entropy(logits, target, torch.tensor(weights).double(), reduction=reduction)
        value = loss(logits, target)
        torch.testing.assert_close(value, expected)
        upstream = torch.randn_like(value)
        gradients = [torch.autograd.grad(v, logits, upstream)[0] for v in (value, expected)]
        torch.testing.assert_close(*gradients)


def test_class_weights_with_partial_labels():
    """A pixel that reads the background row weighs as background; a super-label as the mean of its classes."""
    space = lb.LabelSpace(
        ("background", "LV", "LVM", "LA"),
        (
            lb.Label("background", frozenset({0})),
            lb.Label("LV", frozenset({1})),
            lb.Label("LV or LA", frozenset({1, 3})),
        ),
    )
    options = {"label_space": space, "reduction": "none"}
    logits = torch.randn(2, 4, 3, dtype=torch.float64)
    target = torch.tensor([[0, 1, 2], [0, 1, 2]])
    annotated = torch.tensor([[True, True, True], [True, False, True]])
    plain = lb.MarginalCrossEntropy(**options)(logits, target, annotated)
    weighted = lb.MarginalCrossEntropy(class_weights=[1.0, 2.0, 3.0, 6.0], **options)(logits, target, annotated)
    factors = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(weighted, plain * factors)


def test_class_weights_of_bce_scale_the_terms():
    weights = torch.tensor([2.0, 0.0, 0.5]).double()
    loss = lb.BinaryCrossEntropy(num_classes=4, class_weights=weights)
    logits, target = example(loss)
    counted = target >= 0
    yes = F.one_hot(target.clamp(min=0), 4)[..., 1:].movedim(-1, 1).double()
    terms = F.binary_cross_entropy_with_logits(logits, yes, reduction="none") * weights.view(1, 3, 1, 1)
    torch.testing.assert_close(loss(logits, target), terms.sum(1)[counted].mean())


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", [name for name in lb.losses.names() if "dice" in name])
def test_class_weights_of_dice_make_a_weighted_mean(name, batch, backend):
    """Over the classes that count; "sum" and "none" have the factors alone."""
    weights = torch.tensor([0.5, 2.0, 0.0, 1.5]).double()
    options = {"num_classes": 4, "batch": batch, "backend": backend}
    mean, total, each = (
        lb.losses.create(name, class_weights=weights.tolist(), reduction=reduction, **options)
        for reduction in ("mean", "sum", "none")
    )
    logits, target = example(mean)
    annotated = torch.tensor([[True, True, False, True], [True, False, True, True], [True, True, True, False]])
    plain = lb.losses.create(name, reduction="none", **options)(logits, target, annotated)
    included = mean.table(annotated).included
    included = included.any(dim=0, keepdim=True) if batch else included
    torch.testing.assert_close(each(logits, target, annotated), plain * weights)
    torch.testing.assert_close(total(logits, target, annotated), (plain * weights).sum())
    torch.testing.assert_close(mean(logits, target, annotated), (plain * weights).sum() / (included * weights).sum())
    nothing = lb.losses.create(name, class_weights=[0] * 4, **options)(logits, target, annotated)
    assert nothing == 0


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_pixel_weights(name, backend):
    """The mean is weighted; a pixel of weight 0 counts for nothing, whatever its logits are."""
    loss = lb.losses.create(name, num_classes=4, backend=backend)
    plain = lb.losses.create(name, num_classes=4, backend=backend, reduction="none")
    logits, target = example(loss)
    weight = torch.rand(target.shape)
    weight[1] = 0
    with torch.no_grad():
        logits[1, :, 2, 3] = torch.nan
    each = plain(logits.detach(), target).nan_to_num()
    value = loss(logits, target, pixel_weight=weight)
    counted = weight * (target >= 0)
    torch.testing.assert_close(value, (counted * each).sum() / counted.sum())
    value.backward()
    assert (logits.grad[1] == 0).all()
    assert logits.grad[2].abs().sum() > 0
    nothing = loss(logits, target, pixel_weight=torch.zeros_like(weight))
    assert nothing == 0


@pytest.mark.parametrize("name", ["marginal_ce", "smile"])
def test_weights_that_are_wrong_are_named(name):
    count = 4 if name == "marginal_ce" else 3
    with pytest.raises(ValueError, match=rf"class_weights must be {count} numbers, one for each .*got shape \[5\]"):
        lb.losses.create(name, num_classes=4, class_weights=[1.0] * 5)
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="class_weights must be finite and not negative"):
            lb.losses.create(name, num_classes=4, class_weights=[bad] + [1.0] * (count - 1))
    loss = lb.losses.create(name, num_classes=4)
    logits, target = example(loss)
    weight = torch.ones(target.shape)
    weight[0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="pixel_weight must be finite and not negative, got nan"):
        loss(logits, target, pixel_weight=weight)
    with pytest.raises(ValueError, match=r"pixel_weight must be .* = \[3, 5, 7\], got \[3, 5\]: "):
        loss(logits, target, pixel_weight=torch.ones(3, 5))
    with pytest.raises(TypeError, match=r"pixel_weight must be of a floating type, got torch.int64"):
        loss(logits, target, pixel_weight=torch.ones(target.shape, dtype=torch.int64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ce+dice", "marginal_dice", "smile"])
def test_compiled_losses_take_pixel_weights(name):
    """One graph for batches of any size, and MONAI's channel of one."""
    torch.compiler.reset()
    counters.clear()
    loss = lb.losses.create(name, num_classes=4)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for samples in (2, 3, 5):
        logits, target = example(loss, samples)
        weight = torch.rand(samples, 1, 5, 7)
        values = [each(logits, target, pixel_weight=weight) for each in (compiled, loss)]
        gradients = [torch.autograd.grad(value, logits)[0] for value in values]
        torch.testing.assert_close(values[0], values[1])
        torch.testing.assert_close(gradients[0], gradients[1])
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", lb.losses.names())
def test_weights_that_are_learnt_are_refused_or_get_their_gradient(name):
    """Never nothing, in silence."""
    for backend in ("fused", "reference"):
        loss = lb.losses.create(name, num_classes=4, backend=backend)
        logits, target = example(loss)
        weight = torch.rand(target.shape, dtype=torch.float64, requires_grad=True)
        if backend == "fused":
            with pytest.raises(ValueError, match=r"pixel_weight must not require a gradient.*backend='reference'"):
                loss(logits, target, pixel_weight=weight)
            with torch.no_grad():
                loss(logits, target, pixel_weight=weight)
        else:
            loss(logits, target, pixel_weight=weight).backward()
            assert weight.grad.any()
        with pytest.raises(ValueError, match=r"class_weights must not require a gradient.*class_weights.detach\(\)"):
            lb.losses.create(name, num_classes=4, class_weights=torch.ones(3, requires_grad=True))
    one = torch.ones((), requires_grad=True)
    for weights in ([one, 1.0], torch.stack([one, one])):
        with pytest.raises(ValueError, match=r"SumOfLosses: weights must not require a gradient"):
            lb.losses.create(f"{name}+{name}", num_classes=4, weights=weights)
