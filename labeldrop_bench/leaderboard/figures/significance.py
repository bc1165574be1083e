"""Which strategy is better than which, and how sure that is: the tests of all pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.figures.style import (
    COLOURS,
    dress,
    empty_figure,
    head,
    legend,
    new_figure,
    wrapped,
)
from labeldrop_bench.leaderboard.statistics import Statistics, analyse
from labeldrop_bench.leaderboard.statistics.rankings import ALPHA
from labeldrop_bench.leaderboard.table import Board, Leaderboard

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 30  # strategies; with more, nobody could read the numbers
CELL = 0.42  # inches, the side of a cell
NAMES = 2.5  # inches
FILL = 0.4  # opacity, so that numbers stay readable on it
BETTER, WORSE = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}"


def draw(leaderboard: Leaderboard) -> Figure:
    """A panel for each condition: is the row's strategy better than the column's? With the corrected p values."""
    tested = [(board, found) for board in leaderboard.boards if (found := analyse(leaderboard, board))]
    if not tested:
        return empty_figure(leaderboard.suite)
    sides = [CELL * max(4, min(MOST, len(found.strategies))) for _, found in tested]
    width = max(8.0, NAMES + max(sides))
    figure = new_figure(1.2 + sum(side + NAMES for side in sides), width)
    panels = figure.subplots(len(tested), 1, squeeze=False, height_ratios=[side + NAMES for side in sides])[:, 0]
    for axes, (board, found) in zip(panels, tested, strict=True):
        _panel(axes, board, found)
    head(figure, leaderboard.suite, width)
    legend(figure, _handles(), width)
    return figure


def best_first(found: Statistics) -> NDArray[np.int64]:
    """Places of at most MOST strategies, those with the highest Dice, best first."""
    order: NDArray[np.int64] = np.argsort(found.rankings["mean then rank"].ranks, kind="stable")[:MOST]
    return order


def limited(board: Board, found: Statistics) -> str:
    """Title of a condition's panel, which says if not all strategies are shown."""
    number = len(found.strategies)
    return ", ".join(filter(None, [board.name, f"the best {MOST} of {number} strategies" if number > MOST else ""]))


def small_p(p: float) -> str:
    """A p value in three digits, without the leading zero."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _panel(axes: Axes, board: Board, found: Statistics) -> None:
    from matplotlib.patches import Rectangle

    order = best_first(found)
    names = [found.strategies[i] for i in order]
    p_values, differences = found.p_values[np.ix_(order, order)], found.differences[np.ix_(order, order)]
    for (row, column), p in np.ndenumerate(p_values):
        if not p < ALPHA:
            text = "" if row == column else "n/a" if np.isnan(p) else small_p(p)
        else:
            better = differences[row, column] > 0
            colour = COLOURS["annotated" if better else "unannotated"]
            cell = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=FILL, linewidth=0)
            axes.add_patch(cell)
            text = f"{BETTER if better else WORSE}{small_p(p)}"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=COLOURS["text"])
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_aspect("equal")
    lines = [wrapped(name, 44) for name in names]
    axes.set_yticks(range(len(names)), lines, parse_math=False, fontsize=8)
    axes.set_xticks(range(len(names)), lines, parse_math=False, fontsize=8)
    for label in axes.get_xticklabels():
        label.set(rotation=50, ha="right", rotation_mode="anchor")
    axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
    axes.grid(which="minor", color=COLOURS["text"], alpha=0.2, linewidth=0.6)
    dress(axes, "none", title=limited(board, found), room=60)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(which="both", length=0)


def _handles() -> list[Artist]:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=COLOURS["annotated"], alpha=FILL, label=f"{BETTER} row significantly better than column"),
        Patch(facecolor=COLOURS["unannotated"], alpha=FILL, label=f"{WORSE} row significantly worse than column"),
        Patch(alpha=0, label="numbers: p after Holm; n/a: too few patients differ"),
    ]
