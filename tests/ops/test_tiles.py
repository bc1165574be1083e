"""The CPU kernels' way between memory and tiles of floats: every type, layout and instruction set, bit for bit."""

import ctypes
import mmap
import os
import sys

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import FLOATS

from labeldrop_bench.ops import _native

CPU = _native._MODULES["cpu"]
UNTOUCHED = 77.0


def accumulation(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def move(values, memory, first, sizes, strides, *, load, streaming=False):
    """Between `values` [C, pitch] and the elements of a flat `memory` from `first` on."""
    CPU.tiles(
        values=values.data_ptr(),
        pitch=values.stride(0),
        memory=memory.data_ptr() + first * memory.element_size(),
        type=_native.FLOATS[memory.dtype],
        channels=sizes[0],
        channel_stride=strides[0],
        pixel_stride=strides[1],
        count=sizes[1],
        load=load,
        streaming=streaming,
    )


def strides_of(layout, channels, count, gap):
    """Of channels and pixels, with `gap` elements between rows of neighbours, and the memory's size."""
    if layout == "contiguous":
        return (count + gap, 1), channels * (count + gap)
    return (1, channels + gap), count * (channels + gap)


def same(found, expected):
    """Bit for bit, but that a NaN may be any NaN."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[found.element_size()]
    return bool(((found.view(bits) == expected.view(bits)) | (found.isnan() & expected.isnan())).all())


def every_half(dtype):
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", FLOATS)
@given(
    channels=st.one_of(st.integers(1, 9), st.integers(10, 70)),
    count=st.one_of(st.integers(0, 40), st.integers(41, 200)),
    gap=st.sampled_from([0, 0, 1, 3]),
    first=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
@example(channels=2, count=32, gap=0, first=0, seed=0)
@example(channels=3, count=33, gap=0, first=1, seed=0)
@example(channels=3, count=48, gap=2, first=1, seed=0)
def test_there_and_back(isa, dtype, layout, channels, count, gap, first, seed):
    """What lies between and beside the tile's elements is neither needed nor written."""
    strides, size = strides_of(layout, channels, count, gap)
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(first + size + 9, generator=generator, dtype=torch.float64).to(dtype)
    tile = memory.as_strided((channels, count), strides, first)
    values = torch.full((channels, count + 64), UNTOUCHED, dtype=accumulation(dtype))
    move(values, memory, first, (channels, count), strides, load=True)
    assert torch.equal(values[:, :count], tile.to(values.dtype))
    assert (values[:, count + 16 :] == UNTOUCHED).all()

    changed = torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values.dtype)
    expected = memory.clone()
    expected.as_strided((channels, count), strides, first).copy_(changed[:, :count].to(dtype))
    move(changed, memory, first, (channels, count), strides, load=False)
    assert torch.equal(memory, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork and mprotect")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_past_the_end_is_touched(isa, dtype, layout):
    """Tiles that end where the next byte must not even be read: there the process would end with a signal."""
    size = 16 * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    memory = torch.frombuffer(pages, dtype=torch.uint8)[:size].view(dtype)
    libc = ctypes.CDLL(None, use_errno=True)
    values = torch.zeros(19, 100, dtype=accumulation(dtype))

    def touch():
        if libc.mprotect(ctypes.c_void_p(memory.data_ptr() + size), ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:
            return 1
        for channels in range(1, 20):
            for count in range(1, 70):
                strides, _ = strides_of(layout, channels, count, 0)
                for load in (True, False):
                    move(values, memory, len(memory) - channels * count, (channels, count), strides, load=load)
        return 0

    child = os.fork()
    if child == 0:
        os._exit(touch())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_becomes_its_float(isa, dtype, layout, channels):
    """All 65536 bit patterns, also those that no whole vector takes."""
    halves = every_half(dtype)
    memory = torch.cat([halves, halves[: -len(halves) % channels], halves[:channels]])
    count = len(memory) // channels
    strides, _ = strides_of(layout, channels, count, 0)
    values = torch.zeros(channels, count + 64)
    move(values, memory, 0, (channels, count), strides, load=True)
    assert same(values[:, :count].contiguous(), memory.as_strided((channels, count), strides).float().contiguous())


def floats_to_round(dtype):
    """Every half, all that is halfway between two of them, its neighbours, and floats of any bits."""
    exact = every_half(dtype).float()
    step = 1 << (15 if dtype == torch.bfloat16 else 12)
    bits = exact.view(torch.int32)
    near = torch.cat([(bits + step + d).view(torch.float32) for d in (-1, 0, 1)])
    subnormal = torch.arange(1, 2**11, dtype=torch.float64) * 2.0**-25  # halfway between float16's subnormal numbers
    subnormal = torch.cat([(subnormal * (1 + d)).float() for d in (-(2.0**-23), 0, 2.0**-23)])
    generator = torch.Generator().manual_seed(0)
    other = torch.randint(-(2**31), 2**31, (2**18,), generator=generator).int().view(torch.float32)
    return torch.cat([exact, near, subnormal, -subnormal, other])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_floats_round_to_the_nearest_half(isa, dtype, layout, channels, streaming):
    floats = floats_to_round(dtype)
    count = len(floats) // channels // 32 * 32
    values = floats[: channels * count].view(channels, count)
    strides, size = strides_of(layout, channels, count, 0)
    memory = torch.zeros(size, dtype=dtype)
    move(values, memory, 0, (channels, count), strides, load=False, streaming=streaming)
    assert same(memory.as_strided((channels, count), strides).contiguous(), values.to(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [32, 64, 72])
def test_streaming_stores_the_same(isa, dtype, count):
    values = torch.randn(5, count + 16, dtype=accumulation(dtype))
    memory = torch.zeros(5, 96, dtype=dtype)
    assert memory.data_ptr() % 64 == 0
    move(values, memory.view(-1), 0, (5, count), (96, 1), load=False, streaming=True)
    assert torch.equal(memory[:, :count], values[:, :count].to(dtype))
    assert (memory[:, count:] == 0).all()
