"""Dice of annotated against unannotated classes, a line for each strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard import wording
from labeldrop_bench.leaderboard.figures.style import COLOURS, NAME_WIDTH, head, new_figure, wrapped
from labeldrop_bench.leaderboard.reading import DIRECTION
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"unannotated": "D", "annotated": "o", "overall": "o"}
LINE_HEIGHT = 0.6  # inches of a strategy's line


def draw(leaderboard: Leaderboard) -> Figure:
    """One line for each strategy: each seed a small point, mean ± standard deviation a marker with a bar.

    An incomplete strategy shows the seeds it has and no mean. Each condition has a panel.
    """
    boards, suite = leaderboard.boards, leaderboard.suite
    height = 1.3 + LINE_HEIGHT * len(suite.strategies)
    figure = new_figure(height * len(boards))
    panels = figure.subplots(len(boards), 1, squeeze=False)[:, 0]
    for axes, board in zip(panels, boards, strict=True):
        _panel(axes, board, COLOURS)
        title = wrapped(board.name or suite.title, 60)
        axes.set_title(title, color=COLOURS["text"], loc="left", pad=26, parse_math=False)
        # the pad leaves room for the heads of the numbers
    if suite.conditions:
        head(figure, suite)
    return figure


def _panel(axes: Axes, board: Board, colours: dict[str, str]) -> None:
    groups = _groups(board)
    for place, column in enumerate(groups):
        offset = 0.4 * (place - (len(groups) - 1) / 2)  # the two groups of a strategy never cover each other
        for line, entry in enumerate(board.display):
            _mark(axes, entry, column, line + offset, colours[column.name])
        _numbers(axes, board, column, 14 + 104 * place, colours)
    _dress(axes, board, colours)


def _groups(board: Board) -> list[Column]:
    """Unannotated and annotated classes, or all together where there is only one kind."""
    groups = [column for column in board.columns if column.name in ("unannotated", "annotated")]
    return groups if len(groups) == 2 else [board.column("overall")]


def _mark(axes: Axes, entry: Entry, column: Column, y: float, colour: str) -> None:
    score = entry.scores[column]
    below = [y + 0.07] * len(score.present)  # under the mean, which would hide seeds that agree
    axes.plot(score.present, below, ".", color=colour, alpha=0.7, markersize=5, zorder=2)
    if score.mean is not None:
        marker = MARKERS[column.name]
        axes.errorbar(
            score.mean,
            y - 0.08,
            xerr=score.std,
            fmt=marker,
            color=colour,
            markersize=6,
            capsize=3,
            elinewidth=1.2,
            zorder=3,
        )


def _numbers(axes: Axes, board: Board, column: Column, points: float, colours: dict[str, str]) -> None:
    """The means in a column of their own, some points right of the plot, so that labels cannot overlap.

    The head of the column, with the marker's shape, is the legend.
    """

    def label(line: float, text: str, weight: str, colour: str) -> None:
        axes.annotate(
            text, (1, line), (points, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            color=colour, weight=weight, va="center", annotation_clip=False,
        )  # fmt: skip

    shape = {"D": "\N{BLACK DIAMOND}", "o": "\N{BLACK CIRCLE}"}[MARKERS[column.name]]
    label(-0.75, f"{shape} {column.name}", "bold", colours[column.name])
    for line, entry in enumerate(board.display):
        mean = entry.scores[column].mean
        text = wording.NOTHING if mean is None else f"{mean:.3f}"
        label(line, text, "bold" if wording.is_best(board, entry, column) else "normal", colours["text"])


def _dress(axes: Axes, board: Board, colours: dict[str, str]) -> None:
    """Names, limits, grid and colours of the axes."""
    entries = board.display
    names = [wrapped(entry.strategy.name, NAME_WIDTH) for entry in entries]
    axes.set_yticks(range(len(entries)), names, parse_math=False)
    axes.set_ylim(len(entries) - 0.45, -0.55)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"Dice, {DIRECTION} (small points: seeds)", color=colours["text"])
    axes.set_facecolor(colours["paper"])
    axes.tick_params(colors=colours["text"], left=False)
    axes.grid(axis="x", color=colours["text"], alpha=0.15)
    axes.hlines([line + 0.5 for line in range(len(entries) - 1)], 0, 1, color=colours["text"], alpha=0.15, zorder=1)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(colours["text"])
