"""The plot: for each problem, the time of every peer over that of the fused loss."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .table import COLUMNS, Row, machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe-Ito colours, which stay apart for colour-blind readers.
COLOURS = {"eager": "#0072B2", "compile": "#E69F00", "torch": "#009E73", "MONAI": "#CC79A7"}
BAR = 0.2  # height of a bar, where a problem's lines are 1 apart
WIDTH, LINE_HEIGHT = 9.0, 0.5  # inches


def png(rows: Sequence[Row]) -> bytes:
    """Bars of the ratios as a PNG file, a panel for each state of memory."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    states = list(dict.fromkeys(row.memory for row in rows))
    names = list(dict.fromkeys(_name(row) for row in rows))
    figure = Figure(figsize=(WIDTH, 1.4 + LINE_HEIGHT * len(names)), layout="constrained")
    panels = figure.subplots(1, len(states), sharex=True, sharey=True, squeeze=False)[0]
    for axes, state in zip(panels, states, strict=True):
        _bars(axes, [row for row in rows if row.memory == state and row.peer in COLUMNS], names)
        axes.set_title(f"{state} memory", fontsize=10)
        axes.set_xlabel("time / time of the fused loss")
    ratios = [row.ratio for row in rows if row.peer in COLUMNS and row.ratio is not None]
    panels[0].set_xlim(0.6 * min([1.0, *ratios]), 1.7 * max([2.0, *ratios]))
    panels[0].set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(f"Forward + backward against the fused loss: {machine(rows[0])}", fontsize=11)
    present = {COLUMNS[row.peer] for row in rows if row.peer in COLUMNS and row.ratio is not None}
    handles = [Patch(color=colour, label=head) for head, colour in COLOURS.items() if head in present]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()


def _name(row: Row) -> str:
    """Name of a problem's line."""
    layout = "" if row.layout == "contiguous" else ", channels last"
    return f"{row.loss} {row.options}".strip() + f"\nK={row.num_classes}, {row.shape}, {row.dtype}{layout}"


def _bars(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """A group of bars for each name, with its number at the end of each."""
    groups = [[row for row in rows if _name(row) == name and row.ratio is not None] for name in names]
    for line, group in enumerate(groups):
        for place, row in enumerate(group):
            ratio = row.ratio or 0.0
            y = line + BAR * (place - (len(group) - 1) / 2)
            axes.barh(y, ratio - 1, left=1, height=0.9 * BAR, color=COLOURS[COLUMNS[row.peer]])
            inside = ratio >= 1
            axes.annotate(
                f"{ratio:.1f}", (ratio, y), (3 if inside else -3, 0), textcoords="offset points", fontsize=6.5,
                va="center", ha="left" if inside else "right",
            )  # fmt: skip
    axes.set_xscale("log")  # twice as fast is as far from 1 as half as fast
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", which="both", alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")
