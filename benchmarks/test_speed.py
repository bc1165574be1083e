"""Forward and backward pass of every loss beside its peers, a group of pytest-benchmark's table for each problem.

    pytest --benchmark                                    every loss at K = 14, float32, a small cube: some minutes
    pytest --benchmark -k "label_flip and K32"            from all that there is: losses, K, sizes, types, layouts
    pytest --benchmark -k "dice and 96x96 and reused"     ... one size in one state of the CPU's memory
    pytest --benchmark -k test_speed                      everything: hours
    pytest --benchmark --collect-only -q -k test_speed    the names of everything

`extra_info` of a benchmark (--benchmark-json FILE) has the compulsory bytes, GB/s, the share of the rate at which a
clone copies the logits, and the peak memory.
"""

import time
from functools import cache

import pytest
import torch

from labeldrop_bench.speed import Problem, loss_options, peak_bytes, peer_names, peers, settle, time_peers

SIZES = ((1, 64, 64, 64), (1, 96, 96, 96), (16, 256, 256))
CLASSES = (4, 14, 32)
DTYPES = (torch.float32, torch.bfloat16)
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
COMPILED = ("marginal_ce",)  # in the quick subset: a compilation takes longer than everything else
SLOW_PEERS = ("eager", "compile")
ROUNDS, SLOW = 7, 1.0  # rounds of a benchmark; seconds of a step that is run once


def quick(problem, peer):
    """Whether a benchmark belongs to the quick subset."""
    plain = problem.dtype == torch.float32 and problem.layout == "contiguous" and problem.num_classes == 14
    return plain and problem.shape == SIZES[0] and (peer != "compile" or problem.loss in COMPILED)


def seconds(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def problems():
    for loss, options in loss_options():
        for shape in SIZES:
            for num_classes in CLASSES:
                for dtype in DTYPES:
                    for layout in ("contiguous", "channels_last"):
                        yield Problem(loss, num_classes, shape, dtype, layout, options)


def cases():
    """Every problem with each of its peers."""
    for problem in problems():
        for peer in peer_names(problem):
            marks = () if quick(problem, peer) else pytest.mark.beyond_quick
            yield pytest.param(problem, peer, id=f"{problem.label}-{peer}", marks=marks)


@cache
def copy_seconds(problem, device, memory):
    """Of a clone of the logits, in a state of memory."""
    return time_peers({"copy": peers(problem, device)["copy"]}, device)["copy"].best


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("problem", "peer"), list(cases()))
def test_speed(benchmark, problem, peer, device, memory):
    device = torch.device(device)
    if device.type == "cuda":
        if memory != "fresh":
            pytest.skip("the memory of a CUDA device has one state")
        memory = "cached"
    run = peers(problem, device)[peer]()
    run()
    peak = peak_bytes(run, device)
    if peer not in SLOW_PEERS and not settle([run]):
        pytest.fail("the step keeps meeting new pages: this is not reused memory")

    def step():
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    benchmark.group = f"{problem.label}, {device}, {memory} memory"
    benchmark.name = peer
    benchmark.pedantic(step, rounds=1 if peer in SLOW_PEERS and seconds(step) > SLOW else ROUNDS)
    benchmark.extra_info |= {"bytes": problem.compulsory_bytes, "peak_bytes": peak, "memory": memory, "peer": peer}
    if benchmark.stats is not None:  # None with --benchmark-disable
        rate = problem.compulsory_bytes / benchmark.stats.stats.median
        copy_rate = 2 * problem.logits_bytes / copy_seconds(problem, device, memory)
        benchmark.extra_info |= {"gigabytes_per_second": rate / 1e9, "share_of_copy": rate / copy_rate}
