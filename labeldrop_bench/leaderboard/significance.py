"""Is a strategy better than the baseline by more than chance? Wilcoxon's signed-rank test in every column.

The baseline is the suite's `standard`, or its first strategy that is not `full` if there is none of that name. The
pairs are patients, whose cases and seeds are averaged first (`statistics.cases`). All p values of a condition are
corrected together after Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.statistics.cases import cases_of, units
from labeldrop_bench.leaderboard.statistics.holm import holm
from labeldrop_bench.leaderboard.statistics.signed_rank import differences_of, two_sided
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard


@dataclass(frozen=True)
class Comparison:
    """One strategy against the baseline in one column.

    Attributes:
        pairs: patients with a case in which Dice is defined for both.
        differing: those in which it differs.
        difference: mean of strategy minus baseline over the pairs; None if there are none.
        p: two-sided, before correction; None where too few pairs differ (`signed_rank.FEWEST`).
        corrected: p after Holm's correction; None where p is.
    """

    pairs: int
    differing: int
    difference: float | None
    p: float | None
    corrected: float | None = None


@dataclass(frozen=True)
class Significance:
    """The comparisons of a condition.

    Attributes:
        baseline: its name.
        columns: one for each cell of the board, then "overall", the mean over a case's classes.
        rows: strategy -> a comparison for each column; None for a strategy of which, or of whose baseline, seeds are
            missing.
    """

    baseline: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[Comparison, ...] | None]

    @property
    def tests(self) -> int:
        """How many p values were corrected together."""
        return sum(c.p is not None for row in self.rows.values() for c in row or ())


def compare(leaderboard: Leaderboard, board: Board) -> Significance:
    """Test every strategy of a condition against the baseline.

    Raises:
        LeaderboardError: a cases.csv that does not hold what it should.
    """
    baseline = _baseline(board)
    cases = cases_of(leaderboard, board)
    columns = (*board.single, board.column("overall"))
    rows: dict[str, tuple[Comparison, ...] | None] = {}
    for name in (entry.strategy.name for entry in board.strategies if entry is not baseline):
        both = [baseline.strategy.name, name]
        if set(both) <= set(cases.strategies):
            common = cases.of(both)
            before_after = (units(common.within(column)).dice for column in columns)
            rows[name] = tuple(compared(differences_of(after, before)) for before, after in before_after)
        else:
            rows[name] = None
    return Significance(baseline.strategy.name, columns, _corrected(rows))


def _baseline(board: Board) -> Entry:
    competing = [entry for entry in board.strategies if not entry.strategy.full_labels]
    return next((entry for entry in competing if entry.strategy.name == board.suite.standard), competing[0])


def compared(differences: NDArray[np.float64]) -> Comparison:
    """The test of paired differences [pairs]."""
    p = two_sided(differences)
    return Comparison(
        pairs=len(differences),
        differing=int(np.count_nonzero(differences)),
        difference=float(differences.mean()) if len(differences) else None,
        p=None if math.isnan(p) else p,
    )


def _corrected(rows: Mapping[str, tuple[Comparison, ...] | None]) -> dict[str, tuple[Comparison, ...] | None]:
    """The same rows with the corrected p values."""
    tested = [c.p for row in rows.values() for c in row or () if c.p is not None]
    values = map(float, holm(tested))
    return {
        name: row and tuple(c if c.p is None else replace(c, corrected=next(values)) for c in row)
        for name, row in rows.items()
    }
