"""Kernels against their peers: `labeldrop-bench speed`, and the benchmarks under `benchmarks/`.

Every figure is the median of interleaved repetitions in one process: a round times each peer once, so that a machine
that slows down slows them all. What counts is the ratio.

The forward and backward pass of a loss must read the logits once, write the gradient once and read the target once.
Those are the bytes of a row; `copy` is `logits.clone()`, which reads and writes as many bytes of logits.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import losses

Step = Callable[[], None]
M_MMAP_THRESHOLD = -3  # <malloc.h>


@dataclass(frozen=True)
class Problem:
    """One loss on one size of input.

    Attributes:
        loss: registered name.
        num_classes: K.
        shape: spatial shape, batch of one.
        dtype: of the logits.
    """

    loss: str
    num_classes: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Logits that require a gradient, uint8 target with the labels 0 to K-1, annotated with half of the labels."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(1, self.num_classes, *self.shape, generator=generator).to(device, self.dtype)
        target = torch.randint(0, self.num_classes, (1, *self.shape), generator=generator, dtype=torch.uint8).to(device)
        annotated = torch.arange(self.num_classes, device=device).unsqueeze(0) < (self.num_classes + 1) // 2
        return logits.requires_grad_(), target, annotated

    @property
    def compulsory_bytes(self) -> int:
        """Logits read, gradient written, target read."""
        pixels = torch.Size(self.shape).numel()
        return pixels * (2 * self.num_classes * self.dtype.itemsize + 1)


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is the peer's time over the fused loss's: above 1, fused is faster."""

    device: str
    threads: int
    torch: str
    loss: str
    num_classes: int
    shape: str
    dtype: str
    peer: str
    milliseconds: float
    gigabytes_per_second: float
    ratio: float


def peers(problem: Problem, device: torch.device) -> Iterator[tuple[str, Step]]:
    """The fused loss, and what people would use without it; each step is a forward and a backward pass."""
    logits, target, annotated = problem.tensors(device)
    options = {"num_classes": problem.num_classes}
    reference = losses.create(problem.loss, backend="reference", **options)
    wide_target = target.long()  # the only type that F.cross_entropy takes

    def step(loss: Callable[..., Tensor], *arguments: Tensor) -> Step:
        def run() -> None:
            logits.grad = None
            loss(logits, *arguments).backward()

        return run

    def copy() -> None:
        logits.grad = None
        logits.detach().clone()

    yield "fused", step(losses.create(problem.loss, **options), target, annotated)
    yield "copy", copy
    yield "eager", step(reference, target, annotated)
    yield "compile", step(torch.compile(reference, fullgraph=True), target, annotated)
    yield "F.cross_entropy", step(F.cross_entropy, wide_target)


def time_steps(steps: dict[str, Step], device: torch.device, repetitions: int = 9) -> dict[str, float]:
    """Median seconds of each step, rounds interleaved, after two rounds of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 2):
        for name, step in steps.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            if repetition >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(problem: Problem, device: torch.device) -> list[Row]:
    """A row for each peer."""
    times = time_steps(dict(peers(problem, device)), device)
    return [
        Row(
            device=str(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            loss=problem.loss,
            num_classes=problem.num_classes,
            shape="x".join(map(str, problem.shape)),
            dtype=str(problem.dtype).removeprefix("torch."),
            peer=peer,
            milliseconds=1e3 * seconds,
            gigabytes_per_second=problem.compulsory_bytes / seconds / 1e9,
            ratio=seconds / times["fused"],
        )
        for peer, seconds in times.items()
    ]


def problems() -> tuple[Problem, ...]:
    """What `labeldrop-bench speed` measures."""
    return tuple(
        Problem("marginal_ce", num_classes, (96, 96, 96), dtype)
        for dtype in (torch.float32, torch.bfloat16)
        for num_classes in (4, 14, 32)
    )


def main(device: str, out: Path | None) -> None:
    """Measure, print the table, and write it as CSV if `out` names a file.

    Raises:
        ValueError: the device is not there, or the loss has no kernel for it.
    """
    import pandas as pd
    from rich.progress import track
    from tabulate import tabulate

    from .records import write_text

    chosen = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    fix_memory_state()
    rows = [row for problem in track(problems(), "Measuring", transient=True) for row in measure(problem, chosen)]
    table = pd.DataFrame([asdict(row) for row in rows])
    shown = table.drop(columns=["device", "threads", "torch", "shape"])
    print(f"forward + backward, {chosen}, {torch.get_num_threads()} threads, torch {torch.__version__}, 1 x K x 96^3")
    print(tabulate(shown.to_dict("list"), headers="keys", showindex=False, floatfmt=".2f"))
    print("ratio: the peer's time over that of the fused loss; above 1 the fused loss is faster.")
    if out is not None:
        write_text(out, table.to_csv(index=False))


def fix_memory_state() -> None:
    """Give every large tensor fresh memory, as the C library does from 32 MiB on.

    Below that it sometimes hands out memory that has been used before and sometimes not, depending on what ran earlier,
    and the page faults of fresh memory cost more than a copy does: a ratio would depend on the order of peers.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
