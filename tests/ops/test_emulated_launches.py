"""Launches of the CUDA kernels on the emulated device: any number of classes, and calls of the runtime that fail."""

from dataclasses import replace

import pytest
import torch
from dice_problems import MODES, assert_fused_is_exact, problem_of
from emulated_cases import KEY, LOSSES, assert_equals_reference, displaced, make
from emulation.device import ORDERS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import FLOATS, lay_out

import labeldrop_bench as lb
from labeldrop_bench import ops

CLASSES = st.integers(2, 512)
PIXELS = st.integers(1, 70)  # more than two warps, and no multiple of anything
LAYOUTS = st.sampled_from(("contiguous", "channels_last", "not aligned"))


def placed(logits, layout):
    return displaced(logits) if layout == "not aligned" else lay_out(logits, layout)


# 32 pixels of so many classes take 48 KiB of shared memory exactly, or a little more, in one type or another
@example(classes=380, pixels=65, layout="contiguous", dtype=torch.float32, order=0)
@example(classes=381, pixels=65, layout="contiguous", dtype=torch.float32, order=1)
@example(classes=382, pixels=33, layout="contiguous", dtype=torch.bfloat16, order=2)
@example(classes=512, pixels=33, layout="contiguous", dtype=torch.float64, order=2)
@settings(max_examples=40)
@given(classes=CLASSES, pixels=PIXELS, layout=LAYOUTS, dtype=st.sampled_from(FLOATS), order=st.sampled_from(ORDERS))
@pytest.mark.parametrize("name", LOSSES)
def test_any_number_of_classes(emulated_cuda, name, classes, pixels, layout, dtype, order):
    case = make(name, classes, (2, pixels), classes, dtype, **LOSSES[name][2][0])
    case = replace(case, logits=placed(case.logits, layout))
    assert_equals_reference(emulated_cuda, case, "mean", order, torch.tensor(1.5))


@settings(max_examples=40)
@given(classes=CLASSES, pixels=PIXELS, layout=LAYOUTS, dtype=st.sampled_from(FLOATS), order=st.sampled_from(ORDERS))
@pytest.mark.parametrize("mode", MODES)
def test_any_number_of_classes_of_dice(emulated_cuda, mode, classes, pixels, layout, dtype, order):
    problem = problem_of(classes, pixels, mode, dtype, integer=torch.int16)
    problem = replace(problem, case=replace(problem.case, logits=placed(problem.case.logits, layout)))
    with emulated_cuda(order):
        assert_fused_is_exact(problem)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "not aligned"])
def test_the_most_classes_of_a_block(emulated_cuda, layout, dtype):
    """As many as a thread has registers for, times the threads: one more is refused with both numbers."""
    for classes in (2048, 2049, 4096):  # 2048: with several pixels a thread
        case = make("set_cross_entropy", classes, (1, 8), dtype=dtype)
        case = replace(case, logits=placed(case.logits, layout))
        assert_equals_reference(emulated_cuda, case, "mean", 0, torch.tensor(1.5))
    case = make("set_cross_entropy", 4097, (1, 8), dtype=dtype)
    with emulated_cuda(), pytest.raises(RuntimeError) as error:
        case(ops, placed(case.logits, layout))
    assert str(error.value) == (
        "set_cross_entropy: logits: 4097 classes, and a block takes at most 4096; use the CPU or backend='reference'"
    )


def test_what_no_block_can_hold_is_refused_with_both_sizes(emulated_cuda):
    loss = lb.losses.create("marginal_dice", num_classes=5000)
    message = (
        r"^dice_sums: logits: 5000 classes need \d{5,} bytes of shared memory, and this device has 65536; use the "
        r"CPU or backend='reference'$"
    )
    with emulated_cuda(), pytest.raises(RuntimeError, match=message):
        loss(torch.randn(1, 5000, 8), torch.arange(8).view(1, 8))


def steps():
    """A forward and a backward pass of every operator, and those without a gradient."""
    annotated, target = torch.tensor([[True, True, False]]), torch.tensor([[[0, 1], [2, 1]]])

    def loss(name, classes):
        logits = torch.randn(1, classes * LOSSES.get(name, (1,))[0], 6, requires_grad=True)
        if name == "dice_sums":
            loss = lb.losses.create("marginal_dice", num_classes=classes)
            return torch.autograd.grad(loss(logits, torch.arange(6).view(1, 6) % 2), logits)
        case = make(name, classes, (1, 6), **LOSSES[name][2][0])
        return torch.autograd.grad(3 * case(ops, logits), logits)

    yield from (
        pytest.param(lambda name=name, classes=classes: loss(name, classes), id=f"{name}-K{classes}")
        for name in (*LOSSES, "dice_sums")
        for classes in (3, 1500)  # more shared memory than there is without asking for it, where a tile has all classes
        if classes == 3 or name == "dice_sums"
    )
    yield pytest.param(lambda: (ops.drop_labels(target, annotated),), id="drop_labels")
    yield pytest.param(lambda: (ops.label_dropout(annotated, torch.full((3,), 0.5), KEY),), id="label_dropout")


@pytest.mark.parametrize("step", list(steps()))
def test_a_call_of_the_runtime_that_fails_is_told_and_leaves_nothing_behind(emulated_cuda, step):
    """Each call in turn, whatever it is: the runtime keeps its error, which later launches must not be taken for."""
    module, calls = emulated_cuda.module, 0
    with emulated_cuda():
        expected = results(step)
        while error := error_of(step, module, calls):
            assert error.endswith(": CUDA launch failed: unknown error")
            assert module.emulation_last_error() == 0
            assert all(torch.equal(*pair) for pair in zip(results(step), expected, strict=True))
            calls += 1
    assert calls >= 1


def error_of(step, module, calls):
    """What is said if that call of the runtime fails which comes after so many others; nothing if there is none."""
    module.emulation_fail_after(calls)
    try:
        results(step)
    except RuntimeError as error:
        return str(error)
    finally:
        module.emulation_fail_after(-1)
    return ""


def results(step):
    torch.manual_seed(0)
    return step()
