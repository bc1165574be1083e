"""Calls that go straight to the kernels, with tables that were kept: the same as through torch's operators."""

import gc
import weakref
from unittest import mock

import pytest
import torch
from every_loss import NAMES, create, every_loss, example
from hypothesis import given
from hypothesis import strategies as st
from strategies import FLOATS, LAYOUTS, annotations, label_spaces, lay_out
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import labeldrop_bench as lb
from labeldrop_bench import ops, rules
from labeldrop_bench.losses import _kept_tables
from labeldrop_bench.ops import _dice_operator, _pixel_kernel

OPTIONS = ({}, {"reduction": "sum"}, {"reduction": "none"}, {"weighted": True}, {"pixel_weight": True})


class Watch(TorchDispatchMode):
    """Somebody who looks at every operator that torch calls."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def made(name, option):
    """A loss, and what else it is called with."""
    options = {key: value for key, value in option.items() if key == "reduction"}
    loss = create(name, **options)
    if "weighted" in option:
        loss = create(name, class_weights=[0.5, 1.0, 2.0, 0.0][: 4 if loss.activation == "softmax" else 3])
    given = {"pixel_weight": torch.rand(2, 5, 7) * (torch.rand(2, 5, 7) < 0.8)} if "pixel_weight" in option else {}
    return loss, given


def step(loss, given, logits, target, annotated, factor):
    """Value and gradient."""
    torch.manual_seed(1)
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, target, annotated, **given)
    (factor * value).backward(torch.ones_like(value))
    return value.detach(), logits.grad


@every_loss
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("option", range(len(OPTIONS)))
def test_equals_the_registered_operator(name, dtype, option):
    """Bit for bit; but for the few numbers between a Dice and its sums, which the kernels form in float64."""
    if "+" in name and option in (1, 2, 3):
        pytest.skip("a sum has no such option")
    loss, given = made(name, OPTIONS[option])
    torch.manual_seed(0)
    logits = torch.randn(2, loss.out_channels, 5, 7).to(dtype)
    target = torch.randint(0, 4, (2, 5, 7))
    target[0, 0] = -100
    for annotated in (None, torch.tensor([[True, True, False, True], [True, False, False, True]])):
        for layout, factor in zip(LAYOUTS, (1.0, 0.5, 3.0), strict=True):
            arguments = (loss, given, lay_out(logits, layout), target, annotated, factor)
            direct = step(*arguments)
            with Watch() as watch:
                watched = step(*arguments)
            operator = "labeldrop." + (loss.operator if hasattr(loss, "operator") else "dice_sums")
            assert f"{operator}.default" in watch.seen
            for mine, theirs in zip(direct, watched, strict=True):
                assert mine.dtype == theirs.dtype
                if operator == "labeldrop.dice_sums":
                    eps = torch.finfo(mine.dtype).eps
                    torch.testing.assert_close(mine, theirs, rtol=4 * eps, atol=4 * eps * float(theirs.abs().max()))
                else:
                    assert torch.equal(mine, theirs)


@every_loss
def test_goes_past_the_registered_operator(name, monkeypatch):
    """Otherwise the tests above compare it with itself."""

    def fail(*_):
        raise AssertionError("dispatched")

    for operator in ops.PIXEL_OPERATORS.values():
        monkeypatch.setattr(operator, "forward", fail)
        monkeypatch.setattr(operator, "backward", fail)
    monkeypatch.setattr(_dice_operator, "_forward", fail)
    monkeypatch.setattr(_dice_operator, "_backward", fail)
    loss = create(name)
    for factor in (1.0, 0.3):
        assert step(loss, {}, *example(loss), factor)[1].any()
    with torch.inference_mode():
        loss(*example(loss))


# ---- what is no matter of memory alone ----


def test_what_is_direct():
    x = torch.randn(2, 3)
    for tensor in (x, x.requires_grad_(), torch.nn.Parameter(x.detach()), x.detach().t(), torch.zeros(2).bool(), None):
        assert ops.is_direct(tensor)
    with torch.inference_mode():
        assert ops.is_direct(torch.zeros(2))
    assert ops.is_direct(x.detach(), None, torch.zeros(1))


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "tensor",
    [
        [1.0],
        torch.zeros(2, device="meta"),
        torch.zeros(2).as_subclass(Subclass),
        torch._neg_view(torch.zeros(2)),
        torch.zeros(2).to_sparse(),
        FakeTensorMode().from_tensor(torch.zeros(2)),
    ],
    ids=["list", "meta", "subclass", "negated", "sparse", "fake"],
)
def test_what_is_not(tensor):
    assert not ops.is_direct(torch.zeros(1), tensor)


def test_nobody_else_may_be_looking():
    found = []

    def look(x):
        found.append(ops.is_direct(torch.zeros(1)))
        return x * 2

    make_fx(look)(torch.ones(2))
    make_fx(look, tracing_mode="fake")(torch.ones(2))
    torch.jit.trace(look, torch.ones(2), check_trace=False)
    torch.func.grad(lambda x: look(x).sum())(torch.ones(2))
    torch.vmap(look)(torch.ones(2))
    torch.func.jvp(look, (torch.ones(2),), (torch.ones(2),))
    torch.compile(look, backend="eager")(torch.ones(2))
    with torch.autograd.forward_ad.dual_level():
        look(torch.ones(2))
    with FakeTensorMode():
        found.append(ops.is_direct(torch.zeros(1)))
    assert len(found) == 9
    assert not any(found)


# ---- another upstream ----


class _Context:
    gradient_is_fresh = True

    def __init__(self, inputs, divisor, gradient):
        self.saved_tensors = (*inputs[:7], divisor, gradient)
        self.parameters, self.ignore_index = inputs[7:]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("factor", [0.5, -4.0, 3.7, 1e-3, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["adaptive_ce", "smile", "label_flip", "predictive_variance"])
def test_a_gradient_that_is_multiplied_equals_one_that_is_computed_anew(name, factor, dtype):
    loss = create(name)
    operator = ops.PIXEL_OPERATORS[loss.operator]
    logits, target, annotated = example(loss, size=9)
    (tables,) = loss._tables(annotated, logits)
    parameters = operator.parameters(**loss._own_options())
    key = torch.tensor([5]) if operator.noisy else None
    inputs = _pixel_kernel.Inputs(logits.to(dtype), target, tables, None, None, None, key, parameters, -100)
    with torch.no_grad():
        _, divisor, gradient = operator.kernel.forward(inputs, "mean", with_gradient=dtype != torch.float16)
        upstream = torch.tensor(factor, dtype=_pixel_kernel.accumulation_dtype(logits.to(dtype)))
        anew = operator.backward(upstream, divisor, *inputs[:7], list(parameters), -100)
        found = operator.gradient(_Context(inputs, divisor, gradient), upstream)
    # Powers of two change no digit; half types and what is not finite are computed anew; else it is one more rounding.
    rounds = factor not in (0.5, -4.0) and dtype in (torch.float32, torch.float64)
    tolerance = 2 * torch.finfo(dtype).eps if rounds else 0.0
    torch.testing.assert_close(found, anew, rtol=tolerance, atol=0.0, equal_nan=True)
    in_place = gradient is not None and found.data_ptr() == gradient.data_ptr()
    if not abs(factor) < float("inf") or dtype == torch.float16 or (dtype == torch.bfloat16 and factor in (3.7, 1e-3)):
        assert not in_place
    else:
        assert in_place


@every_loss
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_gradient_is_not_copied_on_its_way(name, factor):
    """What the forward pass has formed is what the leaf gets."""
    loss = create(name)
    logits, target, annotated = example(loss, size=64)
    logits.requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.data_ptr()) or tensor, lambda t: t
    ):
        value = loss(logits, target, annotated)
    (factor * value).backward()
    if getattr(loss, "operator", "dice_sums") != "dice_sums":
        assert logits.grad.data_ptr() in saved


# ---- what a loss that somebody keeps holds ----


class Box:
    """A saved tensor in the hands of a hook: it lives as long as the graph keeps it."""

    def __init__(self, tensor):
        self.tensor = tensor


@every_loss
@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_logged_loss_holds_nothing_of_the_logits_size(name, factor, dtype):
    """Undetached, after backward, as `losses.append(loss)` does."""
    loss = create(name)
    logits, target, annotated = example(loss, size=37)
    leaf = logits.to(dtype).requires_grad_()
    boxes, sizes = [], []

    def box(tensor):
        boxed = Box(tensor)
        boxes.append(weakref.ref(boxed))
        sizes.append(tensor.numel())
        return boxed

    with torch.autograd.graph.saved_tensors_hooks(box, lambda boxed: boxed.tensor):
        value = factor * loss(leaf * 1, target, annotated)
    value.backward()
    gc.collect()
    assert max(sizes) == leaf.numel()
    assert not any(boxed() for boxed in boxes)
    node = value.grad_fn
    while node is not None:  # a chain, but for sums
        assert not [each for each in getattr(node, "__dict__", {}).values() if isinstance(each, torch.Tensor)]
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)


# ---- tables that are kept ----


SINGLE = [name for name in NAMES if "+" not in name]


@given(space=label_spaces(max_classes=9), name=st.sampled_from(SINGLE), data=st.data())
def test_kept_tables_equal_fresh_ones(space, name, data):
    loss = lb.losses.create(name, label_space=space)
    for _ in range(3):
        annotated = data.draw(annotations(data.draw(st.integers(1, 4)), space.num_labels))
        for _ in range(2):  # the second time it is found
            kept = loss._tables(annotated, torch.empty(0))
            fresh = loss._packed(annotated, torch.float32)
            assert all(torch.equal(a, b) for a, b in zip(kept, fresh, strict=True))


@every_loss
def test_annotated_that_was_changed_is_asked_again(name):
    loss = create(name)
    logits, target, annotated = example(loss)

    def value():
        torch.manual_seed(0)
        return loss(logits, target, annotated)

    for column in (3, 1, 2, 3, 1):
        if column == 2:
            annotated.numpy()[:, column] ^= True  # past torch's count of changes
        else:
            annotated[:, column] ^= True
        found = value()
        with mock.patch.dict(_kept_tables._BATCHES, clear=True), mock.patch.dict(_kept_tables._SAMPLES, clear=True):
            assert found == value()


def test_a_rule_that_was_changed_is_asked_again(monkeypatch):
    loss = create("adaptive_ce")
    logits, target, annotated = example(loss)
    before = loss(logits, target, annotated)
    monkeypatch.setitem(rules.RULES, "adaptive", rules.standard)
    assert loss(logits, target, annotated) == create("ce")(logits, target, annotated) != before


def test_a_rule_of_somebody_else_is_asked_each_time(monkeypatch):
    left = [rules.adaptive, rules.standard, rules.marginal]
    monkeypatch.setitem(rules.RULES, "adaptive", lambda *arguments: left.pop()(*arguments))
    loss = create("adaptive_ce")
    logits, target, annotated = example(loss)
    assert len({float(loss(logits, target, annotated)) for _ in range(3)}) == 3


def test_a_rule_may_be_any_callable(monkeypatch):
    class Rule(dict):  # not hashable
        def __call__(self, *arguments):
            return rules.marginal(*arguments)

    monkeypatch.setitem(rules.RULES, "adaptive", Rule())
    loss = create("adaptive_ce")
    assert loss(*example(loss)) == create("marginal_ce")(*example(loss))


def test_a_table_of_somebody_else_needs_no_rule():
    class Own(lb.losses.softmax.SetCrossEntropy):
        def table(self, annotated):
            return rules.marginal(annotated, self.member, self.exhaustive)

    loss = Own(num_classes=4)
    assert loss(*example(loss)) == create("marginal_ce")(*example(loss))


def test_a_table_of_somebody_else_is_asked_each_time():
    class Own(lb.AdaptiveCrossEntropy):
        rows = rules.standard

        def table(self, annotated):
            return type(self).rows(annotated, self.member, self.exhaustive)

    loss = Own(num_classes=4)
    logits, target, annotated = example(loss)
    values = []
    for Own.rows in map(staticmethod, (rules.adaptive, rules.standard, rules.marginal)):
        values.append(float(loss(logits, target, annotated)))
    assert len(set(values)) == 3
    loss.table = lambda annotated: rules.standard(annotated, loss.member, loss.exhaustive)
    assert float(loss(logits, target, annotated)) == values[1]


@pytest.mark.parametrize("name", ["marginal_ce", "smile", "marginal_dice", "marginal_ce+marginal_dice"])
def test_a_label_space_that_was_changed_is_asked_again(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    before = loss(logits, target, annotated)
    for term in getattr(loss, "terms", [loss]):
        term.exhaustive.numpy()[1:] = False  # scribbles, past torch's count of changes
    changed = loss(logits, target, annotated)
    assert changed != before
    assert changed == lb.losses.create(
        name,
        label_space=lb.LabelSpace(
            loss.label_space.classes,
            tuple(
                lb.Label(label.name, label.classes, exhaustive=value == 0)
                for value, label in enumerate(loss.label_space.labels)
            ),
        ),
    )(logits, target, annotated)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_weights_that_were_changed_are_asked_again(name, dtype):
    loss = create(name)
    weights = [3.0, 1.0, 2.0, 0.5][: loss.out_channels // loss.channels_per_class]
    loss = create(name, class_weights=weights)
    logits, target, annotated = example(loss)

    def value(asked):
        torch.manual_seed(0)
        return asked(logits.to(dtype), target, annotated)

    before = value(loss)
    loss.class_weights.numpy()[1] = 7.0  # past torch's count of changes
    weights[1] = 7.0
    assert value(loss) == value(create(name, class_weights=weights)) != before


def test_options_of_a_dice_are_told_apart():
    logits, target, annotated = example(create("adaptive_dice"))
    values = [
        float(create("adaptive_dice", **options)(logits, target, annotated))
        for options in ({}, {"include_background": False}, {})
    ]
    assert values[0] == values[2] != values[1]


def test_few_patterns_are_kept(monkeypatch):
    monkeypatch.setattr(_kept_tables, "MOST_SAMPLES", 10)
    monkeypatch.setattr(_kept_tables, "MOST_BATCHES", 5)
    monkeypatch.setattr(_kept_tables, "_SAMPLES", {})
    monkeypatch.setattr(_kept_tables, "_BATCHES", {})
    for pattern in range(64):
        annotated = torch.tensor([[bool(pattern >> bit & 1) for bit in range(6)]] * 2)
        (found,) = _kept_tables.kept("rule", _kept_tables.content(annotated), 6, lambda new: (new.int(),))
        assert torch.equal(found, annotated.int())
        assert len(_kept_tables._SAMPLES) <= 10
        assert len(_kept_tables._BATCHES) <= 5


def test_tables_first_asked_for_in_inference_mode_train_afterwards(monkeypatch):
    monkeypatch.setattr(_kept_tables, "_BATCHES", {})
    monkeypatch.setattr(_kept_tables, "_SAMPLES", {})
    loss = create("marginal_ce+marginal_dice")
    logits, target, annotated = example(loss)
    with torch.inference_mode():
        loss(logits, target, annotated)
    loss(logits.requires_grad_(), target, annotated).backward()


@pytest.mark.parametrize("name", SINGLE)
def test_background_that_is_not_annotated_is_an_error_each_time(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    annotated[1, 0] = False
    for _ in range(2):
        with pytest.raises(ValueError, match=r"annotated\[:, 0\].*must be True, got False in sample 1"):
            loss(logits, target, annotated)
