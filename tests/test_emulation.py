"""The emulated device itself: right kernels come out right, and the usual mistakes are noticed."""

from pathlib import Path

import pytest
import torch
from emulation.build import CannotBuildError, build
from emulation.device import ORDERS

EXAMPLES = Path(__file__).parent / "emulation" / "examples"
THREADS = 128


@pytest.fixture(scope="module")
def examples(emulation_directory):
    try:
        return build(emulation_directory / "examples", EXAMPLES)
    except CannotBuildError as error:
        pytest.skip(f"the emulated CUDA device {error}")


def run(examples, name, order=0, blocks=1, shared_bytes=4 * THREADS, dtype=torch.float32):
    out = torch.full((blocks * THREADS,), -1.0, dtype=dtype)
    examples.emulation_order(order)
    examples.run(name, out.data_ptr(), blocks, shared_bytes)
    return out


@pytest.mark.parametrize("order", ORDERS)
def test_sum(examples, order):
    out = run(examples, "sum", order, blocks=5)
    assert torch.equal(out[:5], torch.arange(5 * THREADS).view(5, THREADS).sum(1).float())


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_within_a_group(examples, order):
    lane = torch.arange(THREADS)
    neighbour = torch.where(lane % 8 == 7, lane, lane + 1)
    expected = neighbour + 1000 * (lane // 8 * 8 + 3)
    assert torch.equal(run(examples, "shuffles", order, dtype=torch.double), expected.double())


@pytest.mark.parametrize("order", ORDERS)
def test_threads_that_have_ended_are_not_waited_for(examples, order):
    out = run(examples, "early_exit", order)
    assert (out[:40] == 7).all()
    assert (out[40:] == -1).all()


def test_a_missing_barrier_shows_in_some_order(examples):
    results = [run(examples, "missing_barrier", order) for order in ORDERS]
    assert not all(torch.equal(result, results[0]) for result in results)


def test_shared_memory_starts_as_nan(examples):
    assert run(examples, "not_written").isnan().all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("different_barriers", r"threads are at different barriers: thread \(0, 0, 0\) at .*examples.cu:\d+"),
        ("divergent_shuffle", r"deadlock: thread \(0, 0, 0\) waits at a shuffle, .*examples.cu:\d+, that not all 32"),
        ("different_shuffles", r"lanes of a warp are at different shuffles"),
        ("barrier_and_shuffle", r"deadlock: thread .* waits at a shuffle"),
        ("misaligned", r"a misaligned access at .*examples.cu:\d+"),
        ("outside_of_an_array", r"an index outside of an array at .*examples.cu:\d+"),
        ("shared_overflow", r"a write behind the dynamic shared memory"),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_mistakes_are_errors_and_the_device_goes_on(examples, name, message, order):
    with pytest.raises(RuntimeError, match=f"emulated device: .*{message}" if order == 0 else "emulated device: "):
        run(examples, name, order)
    assert run(examples, "sum")[0] == sum(range(THREADS))


def test_launches_that_a_device_refuses(examples):
    with pytest.raises(RuntimeError, match="invalid configuration"):
        run(examples, "sum", shared_bytes=49 << 10)
    with pytest.raises(RuntimeError, match="invalid configuration"):
        examples.run("sum", 0, 0, 0)
