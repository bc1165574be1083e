"""The sigmoid family's modules: rules, label flips, predicted variance, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F

import labeldrop_bench as lb


def test_smile_is_petits_masked_bce():
    """w_k = 1 where k is annotated, or where another class is drawn; the target of an unannotated class is 0."""
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 6, 7, dtype=torch.float64)
    target = torch.randint(0, 5, (3, 6, 7))
    annotated = torch.rand(3, 5) < 0.5
    annotated[:, 0] = True
    drawn = torch.where(annotated.gather(1, target.flatten(1)).view_as(target), target, 0)
    yes = F.one_hot(drawn, 5)[..., 1:].movedim(-1, 1).double()
    weight = annotated[:, 1:, None, None] | (drawn > 0).unsqueeze(1)
    bce = F.binary_cross_entropy_with_logits(logits, yes, reduction="none")
    expected = (bce * weight).sum(1).mean()
    torch.testing.assert_close(lb.Smile(num_classes=5)(logits, target, annotated), expected)


@pytest.mark.parametrize("name", ["adaptive_bce", "smile", "label_flip"])
def test_background_gives_missing_classes_no_gradient(name):
    loss = lb.losses.create(name, num_classes=4)
    logits = torch.randn(1, loss.out_channels, 8, requires_grad=True)
    loss(logits, torch.zeros(1, 8, dtype=torch.uint8), torch.tensor([[True, True, False, False]])).backward()
    gradient = logits.grad.view(-1, 3, 8)
    assert (gradient[:, 0] != 0).all()
    assert (gradient[:, 1:] == 0).all()


@pytest.mark.parametrize("rule", ["standard", "adaptive", "smile"])
@pytest.mark.parametrize("base", ["bce", "focal"])
@pytest.mark.parametrize("name", ["label_flip", "predictive_variance"])
def test_without_doubt_they_are_the_base_loss(name, base, rule):
    """Flips of probability e^-80 or noise of deviation e^-40, and predictions that agree with the labels."""
    torch.manual_seed(0)
    annotated = torch.tensor([[True, True, False], [True, False, True]])
    target = torch.randint(0, 3, (2, 9))
    loss = lb.losses.create(name, num_classes=3, rule=rule, base=base)
    yes = loss.table(annotated)[0][torch.arange(2).view(2, 1), target].movedim(-1, 1)
    size = torch.rand(2, 2, 9, dtype=torch.float64)
    logits = torch.where(yes, size, -size)
    plain = {"standard": "bce", "adaptive": "adaptive_bce", "smile": "smile"}[rule]
    expected = lb.losses.create(plain, num_classes=3, base=base)(logits, target, annotated)
    value = loss(torch.cat([logits, torch.full_like(logits, -80.0)], dim=1), target, annotated)
    torch.testing.assert_close(value, expected)


def test_flip_probability_lies_between_0_and_a_half():
    loss = lb.LabelFlip(num_classes=3)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        flip = torch.tensor([-6e4, -200, -20, -1, 0, 1, 20, 200, 6e4]).view(1, 1, -1).to(dtype)
        q = loss.flip_probability(torch.cat([torch.zeros_like(flip)] * 2 + [flip] * 2, dim=1))
        assert q.shape == (1, 2, 9)
        assert ((q > 0) & (q < 0.5)).all()
        assert q[0, 0, 4] == 0.25
        assert (q[0, 0].diff() >= 0).all()


def test_standard_deviation():
    logits = torch.tensor([0.0, 0.0, 2 * torch.log(torch.tensor(3.0)), 0.0]).view(1, 4, 1)
    assert lb.PredictiveVariance(num_classes=3).standard_deviation(logits).flatten().tolist() == pytest.approx([3, 1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bce", {"gamma": 1.0}, "gamma belongs to base='focal', got gamma=1.0"),
        ("bce_focal", {"gamma": -1.0}, "gamma must be finite and not negative, .*got -1.0"),
        ("bce_focal", {"gamma": float("nan")}, "gamma must be finite and not negative, .*got nan"),
        ("bce_focal", {"gamma": 1e39}, r"gamma must be finite .*in float32 as well, got 1e\+39"),
        ("smile", {"alpha": 0.5}, "alpha belongs to base='focal'"),
        ("smile_focal", {"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1.5"),
        ("smile", {"base": "hinge"}, r"base must be one of \['bce', 'focal'\], got 'hinge'"),
        (
            "label_flip",
            {"rule": "marginal"},
            r"rule must be one of \['adaptive', 'smile', 'standard'\], got 'marginal'",
        ),
        ("predictive_variance", {"samples": 0}, "samples must be an integer from 1, got 0"),
        ("predictive_variance", {"average": "mean"}, r"average must be one of \['loss', 'probability'\], got 'mean'"),
        ("predictive_variance", {"average": "probability", "base": "focal"}, "needs a likelihood, base='bce'"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        lb.losses.create(name, num_classes=3, **options)
