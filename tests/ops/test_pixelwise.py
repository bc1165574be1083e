"""What holds for every loss that scores each class of a pixel by itself: fused against plain, weights, bad input."""

import math
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sigmoid_cases import assert_equals_exact, random_case, sigmoid_cases
from strategies import FLOATS, INTEGERS, LAYOUTS, lay_out

from labeldrop_bench import ops, reference
from labeldrop_bench.ops import _native, label_flip, sigmoid_focal
from labeldrop_bench.ops._pixel_operator import PixelOperator
from labeldrop_bench.ops._tables import pack_tables

CPU = _native._MODULES["cpu"]
GAMMAS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.7])
CHANNELS = {"sigmoid_focal": 1, "label_flip": 2}
OPTIONS = {
    "sigmoid_focal": st.fixed_dictionaries({"gamma": GAMMAS, "alpha": st.sampled_from([None, 0.0, 0.25, 1.0])}),
    "label_flip": st.fixed_dictionaries({"gamma": GAMMAS, "detach_target": st.booleans()}),
}
every_operator = pytest.mark.parametrize("name", list(CHANNELS))


def operators(name):
    return getattr(ops, name), getattr(reference, name)


def example(name, *shape, dtype=torch.float32, classes=5):
    torch.manual_seed(0)
    channels = CHANNELS[name]
    return random_case(3 * torch.randn(2, channels * classes, *(shape or (6, 7))).to(dtype), channels)


# ---- fused against plain ----


@every_operator
@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_fused_equals_reference(name, dtype, data):
    case = data.draw(sigmoid_cases(CHANNELS[name], dtype))
    reduction = data.draw(st.sampled_from(["mean", "sum", "none"]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    upstream = torch.randn(case.target.shape if reduction == "none" else (), generator=generator)
    assert_equals_exact(operators(name), case, upstream, reduction=reduction, **data.draw(OPTIONS[name]))


@pytest.mark.usefixtures("isa")
@every_operator
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_instruction_set_layout_and_target_type(name, layout):
    # one and two words of bits; in place and through scratch
    for classes, integer in zip((1, 8, 16, 33), INTEGERS, strict=True):
        case = example(name, 5, 131, classes=classes)
        target = torch.where(case.target == -100, 100, case.target).to(integer)
        case = replace(case, logits=lay_out(case.logits, layout), target=target, ignore_index=100)
        for gamma in (0.0, 2.0, 1.5):
            assert_equals_exact(operators(name), case, gamma=gamma)


@every_operator
@settings(max_examples=15)
@given(data=st.data())
def test_gradcheck(name, data):
    case = data.draw(sigmoid_cases(CHANNELS[name], torch.float64, max_classes=4)).double()
    options = {**data.draw(OPTIONS[name]), **({"detach_target": False} if name == "label_flip" else {})}
    # 1e-3 away from z = 0, where the label-flip loss has a jump
    logits = case.logits[..., :3].clamp(-20, 20)
    logits = torch.where(logits.abs() < 1e-3, 1e-3, logits).detach().requires_grad_()
    weights = dict(case.weights)
    if "pixel_weight" in weights:
        weights["pixel_weight"] = weights["pixel_weight"][..., :3]
    case = replace(case, target=case.target[..., :3], weights=weights)
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda z, reduction=reduction: case.loss(operators(name)[0], z, reduction=reduction, **options), logits
        )


# ---- what is ignored ----


@every_operator
@given(data=st.data())
def test_what_does_not_count_gets_no_gradient_and_is_never_looked_at(name, data):
    case = data.draw(sigmoid_cases(CHANNELS[name]))
    options = {"reduction": data.draw(st.sampled_from(["mean", "sum"])), **data.draw(OPTIONS[name])}
    bad = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    spoilt = case.with_logits(torch.where(case.counted, case.logits, bad))
    for operator in operators(name):
        loss, gradient = case.run(operator, **options)
        assert (gradient[~case.counted] == 0).all()
        spoilt_loss, spoilt_gradient = spoilt.run(operator, **options)
        torch.testing.assert_close(spoilt_loss, loss)  # the layout may differ, and with it the order of a sum
        torch.testing.assert_close(spoilt_gradient, gradient)
        assert (spoilt_gradient[~case.counted] == 0).all()


@every_operator
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_and_counts_is_seen(name, gamma, bad, dtype):
    clean = example(name, 40, dtype=dtype)
    for channel in range(0, clean.logits.shape[1], 3):
        logits = clean.logits.clone()
        logits[:, channel] = bad
        case = clean.with_logits(logits)
        for operator in operators(name):
            loss = case.loss(operator, reduction="none", gamma=gamma)
            assert torch.equal(loss.isnan(), case.counted[:, channel])
        gradient = case.run(operators(name)[0], reduction="sum", gamma=gamma)[1]
        assert torch.equal(gradient[:, channel].isnan(), case.counted[:, channel])


# ---- weights and reductions ----


@every_operator
@given(data=st.data())
def test_reductions_and_weights(name, data):
    """The unweighted loss of one class at a time, put together by hand."""
    case = data.draw(sigmoid_cases(CHANNELS[name], torch.float64, max_classes=5)).double()
    operator, options = operators(name)[0], data.draw(OPTIONS[name])
    classes = case.active.shape[-1]
    expected = torch.zeros(case.target.shape, dtype=torch.float64)
    for k in range(classes):
        alone = replace(case, active=case.active & (torch.arange(classes) == k), weights={})
        weight = case.weights.get("class_weight", torch.ones(classes).double())[k]
        expected += weight * alone.loss(operator, reduction="none", **options)
    expected = torch.where(case.pixel_weight != 0, expected * case.pixel_weight, 0)
    divisor = case.pixel_weight.sum() if (case.pixel_weight != 0).any() else 1
    for reduction, value in (
        ("none", expected),
        ("sum", expected.sum()),
        ("mean", expected.sum() / divisor),
    ):
        torch.testing.assert_close(case.loss(operator, reduction=reduction, **options), value)


@every_operator
def test_nothing_to_learn_from(name):
    case = example(name)
    for nothing in (
        replace(case, target=torch.full_like(case.target, -100)),
        replace(case, weights={"pixel_weight": torch.zeros(case.target.shape)}),
        replace(case, active=torch.zeros_like(case.active)),
    ):
        for operator in operators(name):
            for reduction in ("mean", "sum"):
                loss, gradient = nothing.run(operator, reduction=reduction)
                assert loss == 0
                assert (gradient == 0).all()


@every_operator
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 3, 0, 5)])
def test_empty_tensors(name, shape):
    case = random_case(torch.zeros(shape[0], CHANNELS[name] * 3, *shape[2:]), CHANNELS[name])
    loss, gradient = case.run(operators(name)[0])
    assert loss == 0
    assert gradient.shape == case.logits.shape


# ---- a citizen of PyTorch ----


@every_operator
@pytest.mark.parametrize(("reduction", "with_gradient"), [("mean", True), ("sum", False), ("none", False)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck(name, reduction, with_gradient, layout):
    case = example(name)
    registered: PixelOperator = {"sigmoid_focal": sigmoid_focal, "label_flip": label_flip}[name].__globals__[
        "_OPERATOR"
    ]
    logits = lay_out(case.logits, layout).requires_grad_()
    inputs = (
        pack_tables(name, case.candidates, case.active),
        None,
        torch.rand(5),
        torch.rand(2, 6, 7),
        None,
        [2.0, 0.5],
    )
    torch.library.opcheck(
        registered.forward, (logits, case.target, *inputs, case.ignore_index, reduction, with_gradient)
    )
    upstream, divisor = torch.randn(case.target.shape if reduction == "none" else ()), torch.tensor(3.0).double()
    # its derivative is refused on purpose, so its registration is checked without one
    torch.library.opcheck(
        registered.backward, (upstream, divisor, logits.detach(), case.target, *inputs, case.ignore_index)
    )


@every_operator
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_deterministic(name, layout):
    case = example(name, 50, 61, classes=9)
    case = case.with_logits(lay_out(case.logits, layout))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 3, 5):
            torch.set_num_threads(count)
            results.append(case.run(operators(name)[0], gamma=2.0))
    finally:
        torch.set_num_threads(threads)
    for loss, gradient in results[1:]:  # the sum over pixels has one order, however many threads
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


# ---- bad input ----


@every_operator
@pytest.mark.parametrize("gamma", [-0.1, math.nan, math.inf, 1e39])
def test_bad_gamma_is_named(name, gamma):
    with pytest.raises(
        ValueError, match=rf"{name}: gamma must be finite and not negative, .*{re.escape(f'got {gamma}')}"
    ):
        example(name).loss(operators(name)[0], gamma=gamma)


@every_operator
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": torch.zeros(2, 6, 8, dtype=torch.uint8)}, ValueError, r"target must be.*got \[2, 6, 8\]"),
        ({"active": torch.ones(2, 7, 5, dtype=torch.bool)}, ValueError, "candidates and active must have one shape"),
        ({"active": torch.ones(2, 6, 5)}, TypeError, "active must be bool, got torch.float32"),
        ({"weights": {"class_weight": torch.ones(4)}}, ValueError, r"class_weight must have shape \[5\], got \[4\]"),
        ({"weights": {"pixel_weight": torch.ones(2, 6)}}, ValueError, r"pixel_weight must have shape \[2, 6, 7\]"),
        ({"weights": {"class_weight": -torch.ones(5)}}, ValueError, "class_weight must be finite and not negative"),
    ],
)
def test_bad_arguments_are_named(name, change, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        replace(example(name), **change).loss(operators(name)[0])


@every_operator
def test_wrong_channels_and_labels_are_named(name):
    case = example(name)
    with pytest.raises(ValueError, match=rf"{name}: logits must have (2 x )?5 channels.*got 6"):
        case.loss(operators(name)[0], torch.zeros(2, 6, 6, 7))
    case.target[1, 2, 3] = 6
    with pytest.raises(ValueError, match=rf"{name}: target values.*0 to 5.*got 6 at position \[1, 2, 3\]"):
        case.loss(operators(name)[0])
