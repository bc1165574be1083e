"""Trained on a condition, tested on a domain: Dice of every pair (Islam et al. 2024, experiment 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard.figures import cells
from labeldrop_bench.leaderboard.figures.style import dress, grid_of_panels, head, new_figure, rows_of_panels
from labeldrop_bench.leaderboard.reading import DIRECTION
from labeldrop_bench.leaderboard.table import Board, Leaderboard, Score, in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABREAST = 2
ROOM = 12  # characters of a panel's title for each cell below it


def draw(leaderboard: Leaderboard) -> Figure:
    """A panel for each strategy: conditions down, domains across, mean over the domain's classes and the seeds."""
    suite, boards = leaderboard.suite, leaderboard.boards
    domains = in_order([cell.domain for cell in board.cells] for board in boards)
    tables = [
        [[domain_score(board, s.name, domain).mean for domain in domains] for board in boards] for s in suite.strategies
    ]
    rows = rows_of_panels(len(tables), ABREAST)
    # inches: names of the conditions, cells, colour scale; title, cells, names of the domains
    width = 2.5 + min(len(tables), ABREAST) * max(2.6, 1.25 * cells.CELL[0] * len(domains)) + 1.2
    figure = new_figure(0.7 + rows * (1.3 + cells.CELL[1] * 1.3 * len(boards)), width)
    panels = grid_of_panels(figure, len(tables), ABREAST, sharey=True)
    for axes, strategy, table in zip(panels, suite.strategies, tables, strict=True):
        image = cells.draw_cells(axes, table, rows=[b.name for b in boards], columns=domains, ends=cells.limits(tables))
        axes.set_xlabel("tested on")
        dress(axes, "none", title=strategy.name, room=int(ROOM * len(domains)))
        axes.spines["bottom"].set_visible(False)
    for axes in panels[::ABREAST]:
        axes.set_ylabel("trained on")
    cells.scale(figure, image, panels, f"Dice, {DIRECTION}")
    head(figure, suite, width)
    return figure


def domain_score(board: Board, strategy: str, domain: str) -> Score:
    """A strategy's mean over the classes of a domain, each with equal weight, seed by seed."""
    scores = board.entry(strategy).scores
    return Score.over(scores[column] for column in board.single if column.cells[0].domain == domain)
