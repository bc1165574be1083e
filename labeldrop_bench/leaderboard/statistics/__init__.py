"""How sure a leaderboard is: tests of all pairs, intervals, and three rankings with their stability.

After Wiesenfarth et al. 2021, Methods and open-source toolkit for analyzing and visualizing challenge results, Sci Rep
11:2369 (the R package challengeR), with patients in the place of independent cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.statistics import bootstrap, rankings
from labeldrop_bench.leaderboard.statistics.bootstrap import Interval
from labeldrop_bench.leaderboard.statistics.cases import Units, cases_of, units
from labeldrop_bench.leaderboard.statistics.holm import holm
from labeldrop_bench.leaderboard.statistics.rankings import Ranking
from labeldrop_bench.leaderboard.statistics.signed_rank import all_pairs
from labeldrop_bench.leaderboard.table import Board, Leaderboard

__all__ = ["Interval", "Ranking", "Statistics", "analyse"]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the test cases of a condition say about its strategies.

    Attributes:
        strategies: S names of those that compete and have a rank: not `full`, and complete; in the suite's order.
        patients: units of the tests, and of the bootstrap of the rankings. Seeds, then the classes of the column that
            ranks, then the cases of a patient are averaged first. A class of a case in which Dice is undefined for one
            of the strategies is left out for all.
        intervals: strategy, `full` included, -> name of a column -> 95 % percentile interval of its Dice under
            resampling of patients within domains. A column in which the strategy has no mean is not there.
        differences: [S, S] float64, mean Dice of the row's strategy minus the column's, in the column that ranks.
        p_values: [S, S] float64, two-sided, Wilcoxon's signed-rank test, after Holm's correction of all pairs. NaN on
            the diagonal and where fewer than six patients differ.
        rankings: "mean then rank" (as in the leaderboard), "rank then mean" and "test-based". B is smaller than was
            asked for if some samples had no case of a cell.
    """

    strategies: tuple[str, ...]
    patients: int
    intervals: Mapping[str, Mapping[str, Interval]]
    differences: NDArray[np.float64]
    p_values: NDArray[np.float64]
    rankings: Mapping[str, Ranking]


def analyse(leaderboard: Leaderboard, board: Board, *, bootstraps: int = 1000, seed: int = 0) -> Statistics | None:
    """Analyse the cases of a condition.

    Args:
        leaderboard: of which the board is.
        board: of the condition.
        bootstraps: samples B for intervals and rankings.
        seed: of the samples.

    Returns:
        None with fewer than two complete strategies that compete, and if they do not have a case in common in each cell
        of the column that ranks, or so few that no sample has them. The same object for the same call: it is computed
        once for a leaderboard.

    Raises:
        LeaderboardError: a cases.csv that does not hold what it should.
    """
    key = ("statistics", board.name, bootstraps, seed)
    if key not in leaderboard.analyses:
        leaderboard.analyses[key] = _analyse(leaderboard, board, bootstraps, seed)
    found: Statistics | None = leaderboard.analyses[key]
    return found


def _analyse(leaderboard: Leaderboard, board: Board, bootstraps: int, seed: int) -> Statistics | None:
    competing = [entry for entry in board.strategies if entry.rank is not None]
    if len(competing) < 2:
        return None
    cases = cases_of(leaderboard, board)
    common = cases.of([entry.strategy.name for entry in competing]).within(board.ranked_by)
    if {place[:2] for place in common.places} != {(cell.domain, cell.class_name) for cell in board.ranked_by.cells}:
        return None
    patients = units(common)
    everyone = np.ones((1, len(patients.patients)), dtype=np.int64)
    drawn = bootstrap.draw(patients.patients, bootstraps, seed)
    means, samples = (bootstrap.column_dice(common, board.ranked_by, patients.patients, d) for d in (everyone, drawn))
    usable = ~np.isnan(samples).any(0)
    if not usable.any():
        return None
    scores = means[:, 0]
    return Statistics(
        strategies=common.strategies,
        patients=len(patients.patients),
        intervals=bootstrap.intervals(cases, board.columns, bootstraps=bootstraps, seed=seed),
        differences=scores[:, None] - scores[None, :],
        p_values=_corrected(all_pairs(patients.dice)),
        rankings={
            "mean then rank": rankings.ranking(scores, samples[:, usable]),
            "rank then mean": _ranking(rankings.rank_scores, patients, drawn[usable]),
            "test-based": _ranking(rankings.wins, patients, drawn[usable]),
        },
    )


def _corrected(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S, S] after Holm's correction of all pairs together."""
    pairs = np.triu_indices(len(p_values), 1)
    corrected = np.full_like(p_values, np.nan)
    corrected[pairs] = corrected.T[pairs] = holm(p_values[pairs])
    return corrected


def _ranking(
    score: Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]],
    patients: Units,
    drawn: NDArray[np.int64],
) -> Ranking:
    """By a score of strategies [S, U] in samples [U, B], on all patients and in each sample [B, U]."""
    everyone = np.ones((len(patients.patients), 1), dtype=np.int64)
    return rankings.ranking(score(patients.dice, everyone)[:, 0], score(patients.dice, drawn.T))
