"""How many kernels a step of a loss launches, where `annotated` comes to the device anew in each."""

import ctypes
from contextlib import contextmanager
from itertools import product

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import labeldrop_bench as lb

# The tables, the divisor of a mean, the loss, its gradient's scale; of a Dice the tables, two for the sums, their mean,
# the gradient.
MOST = {"pixels": 4, "dice": 5}
# Memory and views of it; and the first upstream gradient, a tensor of ones.
FREE = {"empty", "empty_like", "empty_strided", "detach", "view", "select", "slice", "unbind", "squeeze", "as_strided"}
FREE |= {"to", "ones_like", "fill_"}
NOISE = {"randint", "random_"}  # its key


@contextmanager
def launches(module):
    """The kernels that are launched meanwhile."""
    seen = []
    pointer, number = ctypes.c_void_p, ctypes.c_size_t
    note = ctypes.CFUNCTYPE(None, pointer, pointer, number, ctypes.c_uint, number)(lambda *call: seen.append(call[0]))
    module.emulation_listen(note)
    try:
        yield seen
    finally:
        module.emulation_listen(None)


def step_of(name, **options):
    loss = lb.losses.create(name, num_classes=5, **options)
    logits = torch.randn(2, loss.out_channels, 6, 6, requires_grad=True)
    target = torch.randint(0, 5, (2, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def step():
        annotated = torch.rand(2, 5).round_().bool().index_fill_(1, torch.tensor([0]), True)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            (gradient,) = torch.autograd.grad(loss(logits, target, annotated), logits)
        assert gradient.isfinite().all()
        return {event.name.removeprefix("aten::") for event in found.events() if event.name.startswith("aten::")}

    return step


@pytest.mark.parametrize(
    ("name", "reduction"),
    [*product(lb.losses.names(), ("mean", "sum")), ("marginal_ce+marginal_dice", "mean")],
)
def test_a_step_launches_few_kernels_and_none_of_torch(emulated_cuda, name, reduction):
    step = step_of(name, reduction=reduction)
    with emulated_cuda():
        step()  # brings the label space to the device
        with launches(emulated_cuda.module) as seen:
            of_torch = step()
    assert of_torch - FREE <= (NOISE if name == "predictive_variance" else set())
    assert len(seen) <= MOST["dice" if "dice" in name else "pixels"]


def test_a_dice_of_the_whole_batch_is_as_quick(emulated_cuda):
    step = step_of("marginal_ce+marginal_dice", batch=True)
    with emulated_cuda():
        step()
        with launches(emulated_cuda.module) as seen:
            of_torch = step()
    assert of_torch <= FREE
    assert len(seen) <= MOST["dice"]


@pytest.mark.parametrize("name", ["marginal_ce", "smile", "marginal_dice"])
def test_class_weights_cost_no_launch(emulated_cuda, name):
    weights = [0.1, 0.3, 0.7, 1.1, 0.2][name == "smile" :]
    step = step_of(name, class_weights=weights)
    with emulated_cuda():
        step()
        with launches(emulated_cuda.module) as seen:
            of_torch = step()
    assert of_torch <= FREE
    assert len(seen) <= MOST["dice" if "dice" in name else "pixels"]
