"""How firm the ranks are: the share of bootstrap samples in which a strategy has each rank (challengeR's blob plot)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.figures.significance import best_first, limited
from labeldrop_bench.leaderboard.figures.style import (
    COLOURS,
    dress,
    empty_figure,
    head,
    legend,
    new_figure,
    nothing,
    wrapped,
)
from labeldrop_bench.leaderboard.statistics import Ranking, analyse
from labeldrop_bench.leaderboard.table import Leaderboard

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, SMALL = 10.0, 6.0  # inches
LINE = 0.34  # inches of a strategy
WIDEST = 16.0  # points, the diameter of a blob that holds all samples
SIZES = 12  # different blobs, so that equal ones are stored once


def draw(leaderboard: Leaderboard) -> Figure:
    """A row of panels for each condition, one panel for each of the three rankings."""
    tested = [(board, found) for board in leaderboard.boards if (found := analyse(leaderboard, board))]
    if not tested:
        return empty_figure(leaderboard.suite)
    heights = [1.1 + LINE * max(3, len(best_first(found))) for _, found in tested]
    figure = new_figure(1.3 + sum(heights), WIDTH)
    panels = figure.subplots(len(tested), 3, squeeze=False, height_ratios=heights)
    for row, (board, found) in zip(panels, tested, strict=True):
        order = best_first(found)
        for axes, (name, ranking) in zip(row, found.rankings.items(), strict=True):
            draw_blobs(axes, [(ranking.ranks[i], ranking.bootstrapped[:, i]) for i in order])
            axes.set_xlabel(_rank_label(ranking))
            dress(
                axes,
                "x",
                title=": ".join(filter(None, [limited(board, found) if axes is row[0] else "", name])),
                room=36,
            )
            axes.set_yticks(range(len(order)), [""] * len(order))
        names = [wrapped(found.strategies[i], 44) for i in order]
        row[0].set_yticks(range(len(order)), names, parse_math=False, fontsize=8)
    head(figure, leaderboard.suite, WIDTH)
    legend(figure, handles(), WIDTH)
    return figure


def draw_one(leaderboard: Leaderboard, strategy: str) -> Figure:
    """The ranks of one strategy: a panel for each condition in which it has one, a line for each ranking."""
    tested = [
        (board, found, found.strategies.index(strategy))
        for board in leaderboard.boards
        if (found := analyse(leaderboard, board)) and strategy in found.strategies
    ]
    figure = new_figure(1.2 + 1.7 * len(tested), SMALL)
    panels = figure.subplots(len(tested), 1, squeeze=False)[:, 0]
    for axes, (board, found, i) in zip(panels, tested, strict=True):
        draw_blobs(axes, [(r.ranks[i], r.bootstrapped[:, i]) for r in found.rankings.values()])
        axes.set_xlabel(f"rank among {len(found.strategies)}")
        dress(axes, "x", title=board.name)
        axes.set_yticks(range(len(found.rankings)), list(found.rankings), fontsize=9)
    legend(figure, handles(), SMALL)
    return figure


def draw_blobs(axes: Axes, rows: Sequence[tuple[float, NDArray[np.float64]]]) -> None:
    """A line for each (rank, [B] ranks in the samples), from above.

    The area of a blob is the share of the samples; the cross their median; the bar their middle 95 %; the ring the rank
    on all cases.
    """
    text, colour = COLOURS["text"], COLOURS["annotated"]
    blobs: dict[int, list[tuple[float, int]]] = {}
    for line, (rank, samples) in enumerate(rows):
        places, counts = np.unique(samples, return_counts=True)
        for place, count in zip(places, counts, strict=True):
            size = int(np.ceil(SIZES * np.sqrt(count / len(samples))))
            blobs.setdefault(size, []).append((place, line))
        if len(samples):
            low, median, high = np.percentile(samples, [2.5, 50, 97.5])
            axes.plot([low, high], [line, line], color=text, linewidth=1, zorder=3)
            axes.plot([median], [line], "x", color=text, markersize=5, markeredgewidth=1.4, zorder=4)
        axes.plot([rank], [line], "o", color=text, markersize=8, markerfacecolor="none", linewidth=0.8, zorder=4)
    for size, of_size in sorted(blobs.items()):
        x, y = zip(*of_size, strict=True)
        axes.plot(x, y, "o", color=colour, alpha=0.45, markersize=WIDEST * size / SIZES, markeredgewidth=0, zorder=2)
    if not blobs:
        nothing(axes)
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=2))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    left, right = axes.get_xlim()
    axes.set_xlim(min(0.4, left), max(right, 2.6))


def handles() -> list[Artist]:
    """What the marks of `draw_blobs` mean, for a legend."""
    from matplotlib.lines import Line2D

    text = COLOURS["text"]
    shared = {"linestyle": "", "color": text}
    return [
        Line2D([], [], marker="o", linestyle="", color=COLOURS["annotated"], alpha=0.45, markersize=10,
               markeredgewidth=0, label="area: share of the bootstrap samples"),
        Line2D([], [], color=text, linewidth=1, label="middle 95 % of them"),
        Line2D([], [], marker="x", markersize=5, markeredgewidth=1.4, label="their median", **shared),  # type: ignore[arg-type]
        Line2D([], [], marker="o", markersize=8, markerfacecolor="none", label="on all cases", **shared),  # type: ignore[arg-type]
    ]  # fmt: skip


def _rank_label(ranking: Ranking) -> str:
    """The label of the axis, with how well the samples agree with the ranking."""
    tau = (
        f" (Kendall's \N{GREEK SMALL LETTER TAU}, median: {np.nanmedian(ranking.kendall):.2f})" if ranking.firm else ""
    )
    return f"rank{tau}"
