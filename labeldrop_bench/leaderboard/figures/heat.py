"""All scores at a glance: strategies x conditions, or losses x dropout probabilities where there are no conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard.figures import cells
from labeldrop_bench.leaderboard.figures.against_dropout import NAN, series
from labeldrop_bench.leaderboard.figures.style import head, new_figure, shared_words
from labeldrop_bench.leaderboard.table import Leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(leaderboard: Leaderboard) -> Figure:
    """One cell for each score, the mean over the seeds."""
    if leaderboard.suite.conditions:
        rows, columns, values = _conditions(leaderboard)
        label, columns = shared_words(columns)
        across = f"condition: {label}" if label else "condition"
    else:
        rows, columns, values = _dropouts(leaderboard)
        across = "label dropout probability"
    width = 2.6 + cells.CELL[0] * max(len(columns), 4) + 1.4
    figure = new_figure(2.2 + cells.CELL[1] * max(len(rows), 3), width)
    axes = figure.add_subplot()
    image = cells.draw_cells(axes, values, rows=rows, columns=columns, ends=cells.limits([values]))
    axes.set_xlabel(across, parse_math=False)
    cells.scale(figure, image, [axes], f"Dice, {leaderboard.compared_by}")
    head(figure, leaderboard.suite, width)
    return figure


Table = tuple[list[str], list[str], list[list["float | None"]]]


def _conditions(leaderboard: Leaderboard) -> Table:
    """Names of the strategies, names of the conditions, scores."""
    names = [strategy.name for strategy in leaderboard.suite.strategies]
    boards = leaderboard.boards
    values = [[leaderboard.compared(board, name).mean for board in boards] for name in names]
    return names, [board.name for board in boards], values


def _dropouts(leaderboard: Leaderboard) -> Table:
    """Names of the losses, dropout probabilities, scores, NaN where the suite has no such strategy; `full` at 0."""
    (board,) = leaderboard.boards
    lines = {name: {s.dropout: s.name for s in members} for name, members in series(leaderboard.suite).items()}
    lines = {**{s.name: {0.0: s.name} for s in leaderboard.suite.strategies if s.full_labels}, **lines}
    chances = sorted({chance for line in lines.values() for chance in line})
    values = [
        [leaderboard.compared(board, line[chance]).mean if chance in line else NAN for chance in chances]
        for line in lines.values()
    ]
    return list(lines), [f"{chance:g}" for chance in chances], values
