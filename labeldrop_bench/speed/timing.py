"""Seconds of a step: interleaved rounds, and on CUDA the device's own time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .memory import peak_bytes, settle
from .peers import Step

ROUNDS, MANY_ROUNDS = 9, 201
SHORT = 0.002  # seconds of a step that is called in many rounds: a median of nine would be the clock's noise
BUDGET = 2.0  # seconds that the rounds of one peer may take
SLOW = 0.5  # seconds
UNSETTLED = "its memory was partly new: the steps before it kept meeting new pages"
MEASURES = ("fused", "copy")  # what must run; without another peer there is still a table


@dataclass
class Timing:
    """What is known about one peer.

    Attributes:
        seconds: median of a step, from the call until the device is done; None if it did not run.
        graph_seconds: CUDA, of the step as a graph: what the device takes, without the cost of launching.
        peak_bytes: most memory held beyond the inputs.
        rounds: how many the median is of.
        note: why there is no number, or what it is not.
    """

    seconds: float | None = None
    graph_seconds: float | None = None
    peak_bytes: int | None = None
    rounds: int = 0
    note: str = ""

    @property
    def best(self) -> float | None:
        """The device's own time where it is known: what a rate is made of."""
        return self.graph_seconds or self.seconds


def time_peers(
    makers: dict[str, Callable[[], Step]], device: torch.device, budget: float = BUDGET
) -> dict[str, Timing]:
    """Time each peer: calls to warm up and to see the peak of memory, then rounds that call each peer once.

    Rounds are interleaved, so that a machine that slows down slows them all; what counts is the ratio. A peer that is
    slow takes part in fewer of them, and one whose first step needs more than the budget in none: that step is its
    measurement. A peer other than the fused loss and the copy may fail; its row then says why.
    """
    timings = {name: Timing() for name in makers}
    steps: dict[str, Step] = {}
    for name, make in makers.items():
        try:
            steps[name] = _first_calls(make, timings[name], device, budget, may_be_slow=name not in MEASURES)
        except Exception as error:  # noqa: PERF203 - a loop over a handful of peers
            if name in MEASURES:
                raise
            timings[name] = Timing(note=_first_line(error))
    quick = [name for name in steps if timings[name].rounds >= ROUNDS]
    if not settle(steps[name] for name in quick):
        for name in quick:
            timings[name].note = UNSETTLED
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(max(timing.rounds for timing in timings.values())):
        for name, step in steps.items():
            if number < timings[name].rounds:
                seconds[name].append(step_seconds(step, device))
    for name, values in seconds.items():
        if values:
            timings[name].seconds = statistics.median(values)
        timings[name].rounds = max(len(values), 1)
    if device.type == "cuda":
        for name, step in steps.items():
            _add_graph_seconds(timings[name], step, device)
    return timings


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def _first_calls(
    make: Callable[[], Step], timing: Timing, device: torch.device, budget: float, *, may_be_slow: bool
) -> Step:
    """Make a step, warm it up, measure its memory, and decide on the number of rounds.

    The first call also brings in code, so the second one is what counts. A plain form that is slow is not called twice
    for that: what it needs itself was imported for the fused loss, which comes first.
    """
    step = make()
    for _ in range(2):
        start = time.perf_counter()
        timing.peak_bytes = peak_bytes(step, device)
        seconds = time.perf_counter() - start
        if seconds > SLOW and may_be_slow:
            break
    timing.seconds, timing.rounds = seconds, min(MANY_ROUNDS if seconds < SHORT else ROUNDS, int(budget / seconds))
    return step


def step_seconds(step: Step, device: torch.device) -> float:
    """From the call of a step until the device is done."""
    _wait(device)
    start = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _add_graph_seconds(timing: Timing, step: Step, device: torch.device) -> None:
    """A step that cannot be captured keeps None and says why."""
    try:
        timing.graph_seconds = graph_seconds(step, device)
    except RuntimeError as error:
        timing.note = f"no CUDA graph: {_first_line(error)}"


def graph_seconds(step: Step, device: torch.device, rounds: int = 20) -> float:
    """Median seconds of a step on a CUDA device itself: captured as a graph, the L2 cache filled with something else.

    Reading a buffer of several L2 sizes before each replay empties the cache of the step's data; the graph's launch
    hides behind it, so that the two events stand right before and right after the step's kernels. Writing to the buffer
    would leave lines in the cache that have to go to memory while the step runs, at its expense.
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        flush = torch.zeros(max(4 * _l2_bytes(device), 1 << 28) // 4, device=device)
        total = torch.empty((), device=device)
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for start, end in events:
            torch.sum(flush, 0, out=total)
            start.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
    milliseconds = [float(start.elapsed_time(end)) for start, end in events]
    return statistics.median(milliseconds) / 1e3


def _l2_bytes(device: torch.device) -> int:
    size: int = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
    return size


def copy_bandwidth(device: torch.device, gibibytes: float = 1.0, rounds: int = 10) -> float:
    """Bytes per second of a large copy from device memory to device memory, read and write counted."""
    count = int(gibibytes * (1 << 30)) // 4
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)

    def step() -> None:
        target.copy_(source)

    step()
    on_cuda = device.type == "cuda"
    seconds = (
        graph_seconds(step, device) if on_cuda else statistics.median(step_seconds(step, device) for _ in range(rounds))
    )
    return 2 * source.nbytes / seconds
