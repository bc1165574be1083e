"""Dice of every test case in the form that the R package challengeR reads, for its own report on a leaderboard.

    challengeR::as.challenge(read.csv("challenger.csv"), by = "task", algorithm = "algorithm", case = "case",
                             value = "value", smallBetter = FALSE)

challengeR takes cases for independent. Where several are of one patient it is surer than the statistics here are.
"""

from __future__ import annotations

from collections.abc import Iterator

from labeldrop_bench.leaderboard.statistics.cases import cases_of
from labeldrop_bench.leaderboard.table import Board, Leaderboard
from labeldrop_bench.records import to_csv

COLUMNS = ("task", "case", "algorithm", "value")


def render(leaderboard: Leaderboard) -> str:
    """One row for each task, case and strategy: a task is a class in a domain, in each condition.

    The value is Dice, averaged over the seeds. The strategies are those that compete and have a rank; a case in which
    Dice is undefined for one of them is left out for all.

    Raises:
        LeaderboardError: a cases.csv that does not hold what it should.
    """
    return to_csv(COLUMNS, (row for board in leaderboard.boards for row in _rows(leaderboard, board)))


def _rows(leaderboard: Leaderboard, board: Board) -> Iterator[dict[str, object]]:
    names = [entry.strategy.name for entry in board.strategies if entry.rank is not None]
    common = cases_of(leaderboard, board).of(names)
    for cell in board.cells:
        task = ": ".join(filter(None, [board.name, cell.name]))
        for i, (domain, class_name, case) in enumerate(common.places):
            if (domain, class_name) == (cell.domain, cell.class_name):
                for name, value in zip(names, common.dice[:, i].tolist(), strict=True):
                    yield {"task": task, "case": case, "algorithm": name, "value": f"{value:.9g}"}
