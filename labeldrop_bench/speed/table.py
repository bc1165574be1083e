"""Rows of the measurement, the table that is printed, and the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from labeldrop_bench import ops
from labeldrop_bench.environment import processor

from .memory import SETTINGS, memory_states, set_memory_state
from .peers import peers
from .problem import Problem, default_measurements, dtype_name
from .timing import BUDGET, time_peers

MEBIBYTE = 1 << 20
# Peers of the printed table, and the head of their column.
COLUMNS = {
    "eager": "eager", "compile": "compile", "F.cross_entropy": "torch", "F.binary_cross_entropy": "torch",
    "MONAI": "MONAI",
}  # fmt: skip
HEADS = (
    "loss", "K", "N x size", "dtype", "ms", "GB/s", "of copy", "MiB", "eager MiB", *dict.fromkeys(COLUMNS.values()),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One peer on one problem; a number that was not measured is None.

    Attributes:
        device, instructions, threads, torch: the processor or GPU, the CPU kernels' instruction set, torch's version.
        loss, options, num_classes, channels, shape, dtype, layout: the problem; shape is `N x spatial`, and
            options has all that is special, the kind of labels and the upstream gradient among it.
        memory: "fresh", "reused", "cached" or "unknown", see memory.py.
        peer: "fused", "copy", "eager", "compile", or a stock implementation.
        milliseconds: median of a forward and backward pass, launches included.
        graph_milliseconds: CUDA, the device's own time.
        rounds: how many the median is of.
        bytes: compulsory ones of the problem.
        gigabytes_per_second: compulsory bytes over the time; graph_milliseconds where there are such.
        share_of_copy: that rate over the rate of `copy`, whose bytes are the logits read and written.
        peak_bytes: most memory that the pass held beyond the inputs, the gradient included.
        ratio: the peer's time over the fused loss's: above 1, fused is faster.
        note: why a number is missing, or what it is not.
    """

    device: str
    instructions: str
    threads: int
    torch: str
    loss: str
    options: str
    num_classes: int
    channels: int
    shape: str
    dtype: str
    layout: str
    memory: str
    peer: str
    milliseconds: float | None
    graph_milliseconds: float | None
    rounds: int
    bytes: int
    gigabytes_per_second: float | None
    share_of_copy: float | None
    peak_bytes: int | None
    ratio: float | None
    note: str


def measure(
    problem: Problem, device: torch.device, memory: str, only: Iterable[str] | None = None, budget: float = BUDGET
) -> list[Row]:
    """A row for each peer.

    Args:
        problem: what to measure.
        device: where.
        memory: the state that the process is in; `set_memory_state` brings it there.
        only: names of the peers that are wanted, "fused" and "copy" among them; None: all.
        budget: seconds that the rounds of one peer may take.
    """
    makers = peers(problem, device)
    makers = {name: make for name, make in makers.items() if only is None or name in only}
    timings = time_peers(makers, device, budget)
    shared: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "instructions": "" if device.type == "cuda" else ops.instruction_set() or "",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": problem.loss,
        "options": problem.special,
        "num_classes": problem.num_classes,
        "channels": problem.channels,
        "shape": "x".join(map(str, problem.shape)),
        "dtype": dtype_name(problem.dtype),
        "layout": problem.layout,
        "memory": memory,
        "bytes": problem.compulsory_bytes,
    }
    copy = timings["copy"].best
    copy_rate = 2 * problem.logits_bytes / copy if copy else None
    rows = []
    for peer, timing in timings.items():
        rate = _over(2 * problem.logits_bytes if peer == "copy" else problem.compulsory_bytes, timing.best)
        numbers: dict[str, Any] = {
            "peer": peer,
            "milliseconds": _thousandfold(timing.seconds),
            "graph_milliseconds": _thousandfold(timing.graph_seconds),
            "rounds": timing.rounds,
            "gigabytes_per_second": _over(rate, 1e9),
            "share_of_copy": _over(rate, copy_rate),
            "peak_bytes": timing.peak_bytes,
            "ratio": _over(timing.seconds, timings["fused"].seconds),
            "note": timing.note,
        }
        rows.append(Row(**shared, **numbers))
    return rows


def _over(number: float | None, divisor: float | None) -> float | None:
    return None if number is None or divisor is None else number / divisor


def _thousandfold(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def text(rows: Sequence[Row]) -> str:
    """A table for the terminal for each state of memory: a line for each problem, the peers side by side."""
    states = dict.fromkeys(row.memory for row in rows)
    return "\n\n".join(f"{state} memory\n{_grid([row for row in rows if row.memory == state])}" for state in states)


def _grid(rows: Iterable[Row]) -> str:
    from tabulate import tabulate

    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = row.loss, row.options, row.num_classes, row.shape, row.dtype, row.layout
        line = lines.setdefault(key, _line(row))
        if row.peer == "fused":
            line |= {"ms": row.milliseconds, "GB/s": row.gigabytes_per_second, "of copy": row.share_of_copy}
            line |= {"MiB": _over(row.peak_bytes, MEBIBYTE)}
        elif row.peer in COLUMNS:
            line[COLUMNS[row.peer]] = row.ratio
        if row.peer == "eager":
            line["eager MiB"] = _over(row.peak_bytes, MEBIBYTE)
    heads = [head for head in HEADS if any(line.get(head) is not None for line in lines.values())]
    cells = [[_shown(head, line.get(head)) for head in heads] for line in lines.values()]
    return tabulate(cells, heads, disable_numparse=True, colalign=["left", *["right"] * (len(heads) - 1)])


def _line(row: Row) -> dict[str, Any]:
    """What names a line of the table."""
    layout = {"contiguous": "", "channels_last": " CL"}[row.layout]
    return {
        "loss": f"{row.loss} {row.options}".strip(), "K": row.num_classes, "N x size": row.shape,
        "dtype": row.dtype + layout,
    }  # fmt: skip


def _shown(head: str, value: object) -> str:
    if value is None or not isinstance(value, float):
        return "" if value is None else str(value)
    if head == "of copy":
        return f"{100 * value:.0f} %"
    if head == "ms":
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return f"{value:.{0 if 'MiB' in head else 1}f}"


EXPLANATION = """\
Forward and backward pass. ms, GB/s, MiB: of the fused loss; GB/s counts the logits read once, the gradient written once
and the target read once, "of copy" compares that rate with a clone of the logits. MiB: peak memory beyond the inputs.
eager, compile (of the reference), torch (F.cross_entropy, F.binary_cross_entropy_with_logits), MONAI: their time over
that of the fused loss; above 1 the fused loss is faster."""
MEMORY = "Fresh memory: large tensors get new pages from the system; reused: pages that earlier tensors have had."


def main(device: str, out: Path | None, only: Sequence[str] = (), memory: str | None = None) -> None:
    """Measure what `default_measurements` names, print the table, and write CSV and plot if `out` is given.

    Args:
        device: "cpu", "cuda" or "auto".
        only: names of losses to measure; empty: all.
        memory: of the device's `memory_states`, the one to measure; None: all.
        out: a file that ends in .csv, beside which the plot goes as .png; or a directory, for speed.csv and speed.png.

    Raises:
        UserError: no problem measures a loss of that name, the device is not there, or has no such memory.
        RuntimeError: a loss has no kernel for the device.
    """
    from rich.progress import track

    from labeldrop_bench.errors import UserError
    from labeldrop_bench.records import write_text

    chosen = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError("speed: torch finds no CUDA device; use --device cpu")
    measurements = [(problem, names) for problem, names in default_measurements() if not only or problem.loss in only]
    unknown = set(only) - {problem.loss for problem, _ in measurements}
    if unknown:
        known = dict.fromkeys(problem.loss for problem, _ in default_measurements())
        raise UserError(f"speed: no measured loss is named {sorted(unknown)}; there are {', '.join(known)}")
    states = memory_states(chosen)
    if memory is not None and memory not in states:
        raise UserError(f"speed: the memory here can be {' or '.join(states)}, got {memory!r}")
    rows: list[Row] = []
    failures: list[Exception] = []
    for state in states if memory is None else (memory,):
        set_memory_state(state)
        for problem, names in track(measurements, f"Measuring, {state} memory", transient=True):
            try:
                rows += measure(problem, chosen, state, names)
            except Exception as error:  # minutes of other measurements must not be lost
                error.args = (f"{problem.label}: {error}",)
                failures.append(error)
            if out is not None and rows:  # what there is, after every problem: the whole takes minutes
                write_text(_csv_path(out), csv(rows))
    if rows:
        _publish(rows, out)
    if failures:
        raise failures[0]


def _publish(rows: Sequence[Row], out: Path | None) -> None:
    """Print the table and the notes on it, and draw the plot."""
    from labeldrop_bench.records import write_bytes

    print(f"{machine(rows[0])}, torch {rows[0].torch}\n")
    print(text(rows))
    print(f"\n{EXPLANATION}\n{MEMORY if rows[0].memory in SETTINGS else ''}")
    for row in rows:
        if row.note:
            print(f"{row.loss} {row.options}, {row.peer}: {row.note}")
    if out is not None:
        from .figure import png

        plot = _csv_path(out).with_suffix(".png")
        write_bytes(plot, png(rows))
        print(f"Written to {_csv_path(out)} and {plot}")


def machine(row: Row) -> str:
    """Where a row was measured, for a heading."""
    instructions = f" ({row.instructions})" if row.instructions else ""
    return f"{row.device}{instructions}, {row.threads} threads"


def _csv_path(out: Path) -> Path:
    return out if out.suffix == ".csv" else out / "speed.csv"


def csv(rows: Iterable[Row]) -> str:
    """One line for each row; a number that was not measured is an empty field."""
    import pandas as pd

    return pd.DataFrame([asdict(row) for row in rows]).to_csv(index=False)
