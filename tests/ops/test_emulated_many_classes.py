"""Set cross-entropy of more classes than a thread has registers for: the CUDA kernels split them over a block."""

import ctypes
from dataclasses import replace

import pytest
import torch
from emulated_cases import assert_equals_reference, displaced, make, run
from emulation.device import ORDERS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import FLOATS, INTEGERS, lay_out

from labeldrop_bench import ops

INFINITY = float("inf")
PLACES = ("contiguous", "channels_last", "not aligned", "channels_last, not aligned")


def placed(logits, place):
    """The logits in memory as a path of the kernels wants them, or does not."""
    if place == "channels_last, not aligned":
        return displaced(logits.movedim(1, -1).contiguous()).movedim(-1, 1)
    return displaced(logits) if place == "not aligned" else lay_out(logits, place)


def blobs(case):
    """The same case with neighbours of one label: threads whose pixels have one row of the tables, and others."""
    target = case.target.flatten(1).clone()
    for first in range(0, target.shape[1], 24):
        target[:, first : first + 20] = target[:, first : first + 1]
    return replace(case, target=target.view(case.target.shape))


# around shares of 16 and 32 classes, words of 32 bits, and 128 shares; rows of 16 bytes and of 2
@example(classes=33, pixels=64, place="contiguous", dtype=torch.float32, seed=0, blob=True)
@example(classes=64, pixels=132, place="channels_last", dtype=torch.bfloat16, seed=1, blob=True)
@example(classes=105, pixels=68, place="contiguous", dtype=torch.float16, seed=2, blob=False)
@example(classes=105, pixels=67, place="channels_last", dtype=torch.bfloat16, seed=4, blob=True)
@example(classes=128, pixels=70, place="channels_last", dtype=torch.float32, seed=5, blob=True)
@example(classes=257, pixels=9, place="channels_last, not aligned", dtype=torch.float16, seed=3, blob=False)
@example(classes=512, pixels=36, place="contiguous", dtype=torch.bfloat16, seed=7, blob=True)
@example(classes=512, pixels=33, place="channels_last", dtype=torch.float16, seed=8, blob=False)
@example(classes=2, pixels=70, place="channels_last", dtype=torch.float64, seed=9, blob=True)
@settings(max_examples=60)
@given(
    classes=st.integers(33, 512),
    pixels=st.integers(1, 140) | st.integers(1, 35).map(lambda fours: 4 * fours),
    place=st.sampled_from(PLACES),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1000),
    blob=st.booleans(),
)
def test_equals_reference(emulated_cuda, classes, pixels, place, dtype, seed, blob):
    integer = INTEGERS[seed % 4] if classes < 190 else torch.int32  # uint8: 200 is ignore_index
    case = make("set_cross_entropy", classes, (2, pixels), seed, dtype, integer, weighted=seed // 4 % 2 == 0)
    case = replace(blobs(case) if blob else case, logits=placed(case.logits, place))
    reduction = ("mean", "none")[seed // 8 % 2]
    upstream = torch.randn(case.target.shape if reduction == "none" else (), dtype=torch.float64)
    assert_equals_reference(emulated_cuda, case, reduction, ORDERS[seed % len(ORDERS)], upstream)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_inactive_or_ignored_is_not_looked_at(emulated_cuda, place, dtype):
    for classes in (40, 105, 128):
        case = blobs(make("set_cross_entropy", classes, (2, 96), classes, dtype, weighted=True))
        counted = (case.target != case.ignore_index) & (case.options["pixel_weight"] != 0)
        active = case.active[torch.arange(2).view(2, 1), torch.where(counted, case.target, 0)] & counted.unsqueeze(-1)
        hidden = ~active.movedim(-1, 1)
        numbers = torch.tensor([float("nan"), INFINITY, -INFINITY], dtype=dtype).repeat(32)
        dirty = replace(case, logits=placed(torch.where(hidden, numbers, case.logits), place))
        clean = replace(case, logits=placed(case.logits, place))
        with emulated_cuda(1):
            expected, found = run(ops, clean, "none"), run(ops, dirty, "none")
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert (found[1][hidden] == 0).all()


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("classes", [40, 105])
def test_shares_without_a_chance(emulated_cuda, classes, place):
    """All of a share's classes, all candidates, all others, or everything is -inf: as on the CPU."""
    case = make("set_cross_entropy", classes, (1, 64), weighted=True)
    rows = case.target.clamp(0).view(-1)
    candidates, active = (table[0, rows].T for table in (case.candidates, case.active))  # [K, 64]
    logits = case.logits.clone()
    logits[0, :16, :16] = -INFINITY
    logits[0, :, 16:28][candidates[:, 16:28]] = -INFINITY
    logits[0, :, 28:40][(active & ~candidates)[:, 28:40]] = -INFINITY
    logits[0, :, 40:48] = -INFINITY
    logits[0, 3:35, 50:60] = torch.finfo(torch.float32).min
    case = replace(case, logits=placed(logits, place))
    expected = run(ops, case, "none")
    with emulated_cuda():
        found = run(ops, case, "none")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("place", PLACES)
def test_bits_depend_on_nothing_but_the_pixel(emulated_cuda, place):
    """Neither on the schedule, nor on the labels of a thread's other pixels."""
    for dtype in FLOATS:
        case = make("set_cross_entropy", 105, (2, 128), 3, dtype)
        alike = replace(case, target=case.target[:, :1].expand(2, 128).contiguous())
        alone = replace(alike, target=torch.where(torch.arange(128) % 5 == 3, alike.target, case.target))
        results = []
        for each, order in ((alike, 0), (alike, 2), (alone, 1)):
            with emulated_cuda(order):
                results.append(run(ops, replace(each, logits=placed(each.logits, place)), "none"))
        for loss, gradient in results[1:]:
            assert torch.equal(loss[:, 3::5], results[0][0][:, 3::5])
            assert torch.equal(gradient[..., 3::5], results[0][1][..., 3::5])


def launched(device, case):
    """The addresses of the kernels of a step that have blocks of as many threads as share a pixel's classes."""
    found = set()
    pointer, number = ctypes.c_void_p, ctypes.c_size_t
    callback = ctypes.CFUNCTYPE(None, pointer, pointer, number, ctypes.c_uint, number)
    listen = callback(lambda kernel, arguments, size, threads, shared: found.add(kernel) if threads == 128 else None)
    device.module.emulation_listen(listen)
    try:
        with device():
            run(ops, case)
    finally:
        device.module.emulation_listen(None)
    assert len(found) == 1
    return found.pop()


def test_each_way_has_its_kernel(emulated_cuda):
    """What the cases above reach: one pixel a thread or four, straight or through shared memory, for each type."""
    kernels = {}
    for dtype in FLOATS:
        case = make("set_cross_entropy", 105, (2, 64), dtype=dtype)
        kernels |= {
            (dtype, place): launched(emulated_cuda, replace(case, logits=placed(case.logits, place)))
            for place in PLACES
        }
        odd = make("set_cross_entropy", 105, (2, 63), dtype=dtype)
        assert launched(emulated_cuda, odd) == kernels[dtype, "not aligned"]
        assert kernels[dtype, PLACES[3]] == kernels[dtype, "channels_last"]
    assert len(set(kernels.values())) == 3 * 3 + 1  # doubles take the same one always
