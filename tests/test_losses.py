"""The modules and the table of losses. The contract tests run over every registered name."""

import pytest
import torch
from strategies import FLOATS, LAYOUTS, lay_out

import labeldrop_bench as lb

NAMES = (*lb.losses.names(), "ce+dice", "marginal_ce+marginal_dice", "adaptive_ce+leaf_dice")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def example(loss, dtype=torch.float32, layout="contiguous", samples=3, device="cpu"):
    """logits, target, annotated. A predicted variance is next to nothing: what is left does not depend on the noise."""
    torch.manual_seed(0)
    logits = torch.randn(samples, loss.out_channels, 6, 9)
    if isinstance(loss, lb.PredictiveVariance):
        logits[:, loss.label_space.num_classes - 1 :] = -80
    target = torch.randint(0, loss.label_space.num_labels, (samples, 6, 9), dtype=torch.uint8)
    target[0, 0] = 200
    annotated = torch.ones(samples, loss.label_space.num_labels, dtype=torch.bool)
    annotated[1:, 2:] = False
    return lay_out(logits.to(device, dtype), layout), target.to(device), annotated.to(device)


def create(name, **options):
    return lb.losses.create(name, num_classes=4, ignore_index=200, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_fused_equals_reference(name, dtype, layout, device):
    results = []
    for backend in ("fused", "reference"):
        loss = create(name, backend=backend).to(device)
        logits, target, annotated = example(loss, dtype, layout, device=device)
        value = loss(logits.requires_grad_(), target, annotated)
        value.backward()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        results.append((value.detach(), logits.grad.double()))
    assert results[1][1].abs().max() > 1e-4
    # gradients are below 1 / pixels = 0.006, and stored with an error of half an ulp; twice that for two roundings.
    # What is smaller than a float16 can hold is off by its smallest step, 6e-8.
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=torch.finfo(dtype).eps + 1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_targets_may_have_a_channel(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    assert loss(logits, target.unsqueeze(1), annotated) == loss(logits, target, annotated)


@pytest.mark.parametrize("name", NAMES)
def test_no_annotation_means_all_labels(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    assert loss(logits, target) == loss(logits, target, torch.ones_like(annotated))


@pytest.mark.parametrize("name", NAMES)
def test_predictions(name):
    """The most probable class; in the sigmoid family, background where no probability is above a half."""
    loss = create(name)
    logits = example(loss)[0]
    logits[0, :, 0] = -1.0
    prediction, probabilities = loss.predict(logits), loss.probabilities(logits)
    assert prediction.shape == (3, 6, 9)
    assert prediction.dtype == torch.int64
    if loss.out_channels == 4:
        torch.testing.assert_close(probabilities, logits.softmax(1))
        assert torch.equal(prediction, probabilities.argmax(1))
    else:
        assert loss.out_channels in (3, 6)
        torch.testing.assert_close(probabilities, logits[:, :3].sigmoid())
        assert (prediction[0, 0] == 0).all()
        background = torch.full_like(probabilities[:, :1], 0.5)
        assert torch.equal(prediction, torch.cat([background, probabilities], dim=1).argmax(1))


@pytest.mark.parametrize("name", lb.losses.names())
def test_the_table_names_the_channels(name):
    info = lb.losses.LOSSES[name]
    expected = {"K": 11, "K - 1": 10, "2 (K - 1)": 20}[info.channels]
    assert lb.losses.create(name, num_classes=11).out_channels == expected
    assert info.formula
    assert info.source


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_learn_from(name):
    """A batch without supervision gives 0 with a gradient of 0, and no NaN."""
    loss = create(name)
    logits, target, annotated = example(loss)
    annotated[:, 1:] = False
    value = loss(logits.requires_grad_(), torch.full_like(target, 200), annotated)
    value.backward()
    assert value == 0 or "dice" in name  # a Dice of classes that are nowhere is that of what is predicted: nothing
    assert value.isfinite()
    assert (logits.grad == 0).all()


def value_and_gradient(loss, logits, target, annotated, weight=None):
    """Of one step."""
    torch.manual_seed(1)  # of the noise, where there is any
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, annotated, **({} if weight is None else {"pixel_weight": weight}))
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"class_weights": [0.5, 2.0, 3.0]}], ids=str)
@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_of_weight_2_is_two_pixels(name, backend, options):
    """So a weight means the same in every loss and sum: 0 is a pixel that is not there, whatever its logits are."""
    if "class_weights" in options and create(name).out_channels == 4:
        options = {"class_weights": [1.0, *options["class_weights"]]}
    loss = create(name, backend=backend, **options)
    logits, target, annotated = example(loss, torch.float64)
    logits, target = logits.flatten(2), target.flatten(1)
    weight = torch.tensor([0, 1, 2, 0, 3, 1]).repeat(9)  # of the pixels of each sample
    logits[..., weight == 0] = torch.nan
    value, gradient = value_and_gradient(loss, logits, target, annotated, weight.double().expand(3, 1, -1))
    repeated = torch.arange(54).repeat_interleave(weight)
    expected, parts = value_and_gradient(loss, logits[..., repeated], target[:, repeated], annotated)
    added = torch.zeros_like(gradient).index_add(2, repeated, parts)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, added)
    assert (gradient[..., weight == 0] == 0).all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_1_are_no_weights(name, dtype, layout):
    """To the last bit."""
    loss = create(name)
    arguments = example(loss, dtype, layout)
    plain = value_and_gradient(loss, *arguments)
    weighted = value_and_gradient(loss, *arguments, torch.ones(arguments[1].shape))
    of_classes = create(name, class_weights=torch.ones(loss.probabilities(arguments[0]).shape[1]))
    if not isinstance(loss, lb.SumOfLosses):  # which would not be computed in one pass any more
        assert torch.equal(value_and_gradient(of_classes, *arguments)[1], plain[1])
    torch.testing.assert_close(value_and_gradient(of_classes, *arguments)[0], plain[0])
    assert torch.equal(weighted[0], plain[0])
    assert torch.equal(weighted[1], plain[1])


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_runs(name):
    assert create(name).runs_on("cpu")
    assert not create(name).runs_on("xpu")
    assert create(name, backend="reference").runs_on("xpu")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_number_of_channels_says_what_was_expected(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    with pytest.raises(ValueError, match=rf"logits must have .*\b[34]\b .*got {loss.out_channels + 1}"):
        loss(torch.cat([logits, logits[:, :1]], dim=1), target, annotated)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_background_must_be_annotated(name, backend):
    loss = create(name, backend=backend)
    logits, target, annotated = example(loss)
    annotated[1, 0] = False
    with pytest.raises(ValueError, match=r"annotated\[:, 0\] is background's and must be True, got False in sample 1"):
        loss(logits, target, annotated)
    with pytest.raises(
        ValueError, match=r"annotated must be bool \[N, L\] = \[3, 4\], got torch.bool with shape \[2, 4\]"
    ):
        loss(logits, target, annotated[:2])
    with pytest.raises(ValueError, match=r"annotated must be bool .* got torch.float32"):
        loss(logits, target, annotated.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give num_classes or label_space, and only one"),
        ({"num_classes": 3, "label_space": lb.LabelSpace.of_classes(3)}, "give num_classes or label_space"),
        ({"num_classes": 3, "reduction": "avg"}, "reduction must be"),
        ({"num_classes": 3, "backend": "gpu"}, r"backend must be one of \['fused', 'reference'\], got 'gpu'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lb.AdaptiveCrossEntropy(**options)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(ValueError, match="there is no loss 'adaptiv_ce'; did you mean 'adaptive_ce'"):
        lb.losses.create("adaptiv_ce", num_classes=3)


def test_super_labels_in_a_training_step():
    """A "whole heart" pixel may be LV or LA: the network is free to choose, and background is excluded."""
    space = lb.LabelSpace(
        ("background", "LV", "LA"),
        (lb.Label("background", frozenset({0})), lb.Label("heart", frozenset({1, 2}))),
    )
    logits = torch.zeros(1, 3, 1, requires_grad=True)
    loss = lb.MarginalCrossEntropy(label_space=space)(logits, torch.ones(1, 1, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == pytest.approx(torch.tensor(1.5).log().item())
    assert logits.grad.flatten().tolist() == pytest.approx([1 / 3, -1 / 6, -1 / 6])
