"""Is a strategy better than the baseline by more than chance? Wilcoxon's signed-rank test on the single test cases.

The pairs are the test cases in which Dice is defined for both strategies, averaged over the seeds. The baseline is the
first strategy of the suite that is not `full`. All p values of a condition are corrected together after Holm (1979).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from labeldrop_bench.leaderboard.cases import Place, dice_of_cases, over_classes
from labeldrop_bench.leaderboard.table import Board, Column, Leaderboard

FEWEST = 6  # pairs that differ: with five, not even five of one sign give p < 0.05
ROUNDING = 1e-9  # differences of means of float64 numbers in [0, 1] below this are none


@dataclass(frozen=True)
class Comparison:
    """One strategy against the baseline in one column.

    Attributes:
        pairs: test cases in which Dice is defined for both.
        differing: those in which it differs.
        difference: mean of strategy minus baseline over the pairs; None if there are none.
        p: two-sided, before correction; None where there are fewer than FEWEST pairs that differ.
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
    baseline = next(entry for entry in board.strategies if not entry.strategy.full_labels)
    base = dice_of_cases(leaderboard.directory, baseline)
    columns = (*board.single, board.column("overall"))
    rows: dict[str, tuple[Comparison, ...] | None] = {}
    for entry in board.strategies:
        if entry is not baseline:
            other = dice_of_cases(leaderboard.directory, entry)
            known = bool(base and other)
            rows[entry.strategy.name] = tuple(_compare(base, other, c) for c in columns) if known else None
    return Significance(baseline.strategy.name, columns, _corrected(rows))


def _compare(base: Mapping[Place, float], other: Mapping[Place, float], column: Column) -> Comparison:
    cells = {(cell.domain, cell.class_name) for cell in column.cells}
    common = [place for place in base if place in other and place[:2] in cells]
    before, after = over_classes(base, common), over_classes(other, common)
    return wilcoxon([after[case] - before[case] for case in before])


def wilcoxon(differences: Sequence[float]) -> Comparison:
    """Wilcoxon's two-sided signed-rank test of paired differences; those that are zero are left out, as he did."""
    from scipy import stats  # here, because it is slow to import and few leaderboards need it

    differing = [d for d in differences if abs(d) > ROUNDING]
    return Comparison(
        pairs=len(differences),
        differing=len(differing),
        difference=statistics.fmean(differences) if differences else None,
        p=float(stats.wilcoxon(differing).pvalue) if len(differing) >= FEWEST else None,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m is max over j <= i of (m - j + 1) p_j, at most 1."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def _corrected(rows: Mapping[str, tuple[Comparison, ...] | None]) -> dict[str, tuple[Comparison, ...] | None]:
    """The same rows with the corrected p values."""
    tested = [c.p for row in rows.values() for c in row or () if c.p is not None]
    values = iter(holm(tested))
    return {
        name: row and tuple(c if c.p is None else replace(c, corrected=next(values)) for c in row)
        for name, row in rows.items()
    }
