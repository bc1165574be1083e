"""A table of numbers in coloured cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from labeldrop_bench.leaderboard.figures.style import COLOURS, LIGHT, dress, name_columns, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Values = Sequence[Sequence["float | None"]]
COLOUR_MAP = "cividis"  # even in lightness, and the same to colour-blind readers
CELL = (0.95, 0.42)  # inches
ROOM = 13  # characters of the size of names that fit in its width


def limits(tables: Sequence[Values]) -> tuple[float, float]:
    """The ends of the colour scale: the tenths around all values, in Dice units."""
    present = [value for table in tables for row in table for value in row if value is not None and value == value] or [
        0.0,
        1.0,
    ]
    low, high = np.floor(min(present) * 10) / 10, np.ceil(max(present) * 10) / 10
    return float(low), float(max(high, low + 0.1))


def draw_cells(
    axes: Axes, values: Values, *, rows: Sequence[str], columns: Sequence[str], ends: tuple[float, float]
) -> AxesImage:
    """The numbers in cells.

    Args:
        axes: the panel.
        values: one row of numbers for each of `rows`; None is incomplete, a cell with a dash; NaN is an empty cell.
        rows: names.
        columns: names.
        ends: of the colour scale.
    """
    from matplotlib import colormaps

    colours = COLOURS
    numbers = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    image = axes.imshow(np.ma.masked_invalid(numbers), cmap=COLOUR_MAP, vmin=ends[0], vmax=ends[1], aspect="auto")
    for (row, column), value in np.ndenumerate(numbers):
        if values[row][column] is not None and np.isnan(value):
            continue
        # luma of ITU-R BT.601: dark letters on light cells
        luma = np.dot(colormaps[COLOUR_MAP](image.norm(value))[:3], (0.299, 0.587, 0.114))
        missing = bool(np.isnan(value))
        colour = colours["text"] if missing else "#000000" if luma > 0.5 else LIGHT
        text = "\N{EM DASH}" if missing else f"{value:.3f}"
        axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=9)
    name_columns(axes, range(len(columns)), columns, room=ROOM)
    axes.set_yticks(range(len(rows)), [wrapped(name, 32) for name in rows], parse_math=False, fontsize=9)
    dress(axes, grid="none")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)  # white lines between the cells
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color=colours["paper"], linewidth=2)
    axes.tick_params(which="minor", length=0)
    return image


def scale(figure: Figure, image: AxesImage, panels: Sequence[Axes], label: str) -> None:
    """The colour scale beside the panels."""
    bar = figure.colorbar(image, ax=list(panels), shrink=0.9, aspect=25, pad=0.02)
    bar.set_label(label, color=COLOURS["text"])
    bar.ax.tick_params(colors=COLOURS["text"])
    bar.outline.set_visible(False)
