"""Dice of each strategy against the value of the condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard.figures.against_dropout import draw_line
from labeldrop_bench.leaderboard.figures.style import (
    dress,
    head,
    legend,
    line_handles,
    looks_of,
    name_columns,
    new_figure,
    shared_words,
)
from labeldrop_bench.leaderboard.reading import DIRECTION
from labeldrop_bench.leaderboard.table import Board, Leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(leaderboard: Leaderboard) -> Figure:
    """A line for each strategy: mean ± standard deviation over the seeds in each condition."""
    suite = leaderboard.suite
    boards = sorted(leaderboard.boards, key=value_of)
    places = [value_of(board) for board in boards]
    step = 0.008 * (places[-1] - places[0])  # the error bars of a condition stand beside each other
    figure = new_figure(5.0)
    axes = figure.add_subplot()
    look_of = looks_of(suite)
    for number, (name, look) in enumerate(look_of.items()):
        shift = step * (number - (len(look_of) - 1) / 2)
        scores = [(value_of(board) + shift, leaderboard.compared(board, name)) for board in boards]
        draw_line(axes, scores, look)
    label, names = shared_words([board.name for board in boards])
    name_columns(axes, places, names, room=int(80 / len(names)))
    axes.set_xlabel(label or "condition", parse_math=False)
    axes.set_ylabel(f"Dice ({leaderboard.compared_by}), {DIRECTION}")
    dress(axes)
    head(figure, suite)
    legend(figure, line_handles(look_of))
    return figure


def value_of(board: Board) -> float:
    """Where a board stands; `check_figures` has seen that it has a place."""
    return board.condition.value or 0.0 if board.condition else 0.0
