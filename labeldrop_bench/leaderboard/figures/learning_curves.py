"""Validation Dice against the epoch (as in McKinley et al. 2019, figure 3)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard.figures.style import (
    Look,
    dress,
    grid_of_panels,
    head,
    legend,
    line_handles,
    looks_of,
    new_figure,
    nothing,
    rows_of_panels,
)
from labeldrop_bench.leaderboard.reading import Validation, read_history
from labeldrop_bench.leaderboard.table import Board, Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 2
Curve = dict[int, float]  # epoch -> Dice


def draw(leaderboard: Leaderboard) -> Figure:
    """A panel for each condition: mean over the seeds as a line, smallest to largest as a band.

    While seeds are missing, those that there are stay thin lines of their own. The truth is what Dice is measured
    against if every run that has begun recorded it, or else the annotations.
    """
    suite, boards = leaderboard.suite, leaderboard.boards
    look_of = looks_of(suite)
    figure = new_figure(1.4 + 3.4 * rows_of_panels(len(boards), ABREAST))
    panels = grid_of_panels(figure, len(boards), ABREAST, sharey=True)
    for axes, board in zip(panels, boards, strict=True):
        histories = _histories(leaderboard, board)
        begun = [epochs for seeds in histories.values() for epochs in seeds if epochs]
        by_truth = all(any(epoch.truth is not None for epoch in epochs) for epochs in begun) and bool(begun)
        for name, look in look_of.items():
            _curves(axes, [curve(epochs, by_truth=by_truth) for epochs in histories[name]], look)
        if not begun:
            nothing(axes)
        against = "all known truth" if by_truth else "the annotations"
        axes.set_ylabel(f"validation Dice,\nmeasured against {against}")
        axes.set_xlabel("epoch")
        dress(axes, title=board.name)
    head(figure, suite)
    legend(figure, line_handles(look_of))
    return figure


def _histories(leaderboard: Leaderboard, board: Board) -> dict[str, list[tuple[Validation, ...]]]:
    """Strategy -> the history of each seed."""
    return {
        entry.strategy.name: [read_history(leaderboard.directory, run) for run in entry.runs]
        for entry in board.strategies
    }


def curve(epochs: Sequence[Validation], *, by_truth: bool) -> Curve:
    """Dice of the epochs that have it."""
    values = {epoch.epoch: epoch.truth if by_truth else epoch.dice for epoch in epochs}
    return {epoch: value for epoch, value in values.items() if value is not None}


def _curves(axes: Axes, seeds: Sequence[Mapping[int, float]], look: Look) -> None:
    """Mean and band over the epochs that all seeds have."""
    shared = sorted(set(seeds[0]).intersection(*seeds[1:]))
    values = [[seed[epoch] for seed in seeds] for epoch in shared]
    every = max(1, len(shared) // 6)  # epochs with a marker
    if shared:
        means = [statistics.fmean(v) for v in values]
        axes.plot(
            shared, means, color=look.colour, linestyle=look.dash, linewidth=2, marker=look.marker, markevery=every
        )
        axes.fill_between(
            shared, [min(v) for v in values], [max(v) for v in values], color=look.colour, alpha=0.18, linewidth=0
        )
    last = shared[-1] if shared else 0
    for seed in seeds:
        beyond = {epoch: value for epoch, value in seed.items() if epoch >= last}
        if len(beyond) > 1 or not shared:
            axes.plot(list(beyond), list(beyond.values()), color=look.colour, linewidth=0.7, alpha=0.7)
