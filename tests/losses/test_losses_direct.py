"""Calls that go straight to the kernels, with tables that were kept: the same as through torch's operators."""

import gc
import weakref

import pytest
import torch
from every_loss import create, every_loss, example
from strategies import FLOATS, LAYOUTS, lay_out
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from labeldrop_bench import ops
from labeldrop_bench.ops import _dice_mean, _dice_operator, _pixel_kernel

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
    """Bit for bit."""
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
            operator = getattr(loss, "operator", "dice_sums")
            if operator == "dice_sums" and option != 2:
                operator = "dice_mean"
            assert f"labeldrop.{operator}.default" in watch.seen
            for mine, theirs in zip(direct, watched, strict=True):
                assert mine.dtype == theirs.dtype
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
    monkeypatch.setattr(_dice_mean, "_OPERATOR", fail)
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
    ((tables,), _) = loss._tables(annotated, logits)
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
