"""Three ways to rank strategies, and how firm each ranking is (Wiesenfarth et al. 2021).

Equal strategies share the best of their ranks, in all places, as challengeR does by default.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.statistics.bootstrap import TAILS
from labeldrop_bench.leaderboard.statistics.holm import holm
from labeldrop_bench.leaderboard.statistics.signed_rank import DECIMALS, differences_of, in_samples

ALPHA = 0.05
AT_ONCE = 2_000_000  # p values that are corrected together, to bound the memory


@dataclass(frozen=True)
class Ranking:
    """A ranking of S strategies, and the same in B bootstrap samples.

    Attributes:
        ranks: [S] float64 on all cases; 1 is best.
        bootstrapped: [B, S] float64.
        kendall: [B] float64, Kendall's tau of each sample's ranks with those on all cases; NaN where a ranking puts
            all strategies on one rank.
    """

    ranks: NDArray[np.float64]
    bootstrapped: NDArray[np.float64]
    kendall: NDArray[np.float64]

    @property
    def firm(self) -> bool:
        """Whether there is a sample in which Kendall's tau is defined."""
        return not np.isnan(self.kendall).all()

    def range_of(self, strategy: int) -> tuple[float, float]:
        """The ranks between which that of a strategy lies in 95 % of the samples."""
        ends = np.quantile(self.bootstrapped[:, strategy], TAILS, method="inverted_cdf")
        return float(ends[0]), float(ends[1])


def ranking(scores: NDArray[np.float64], samples: NDArray[np.float64]) -> Ranking:
    """Rank strategies, and samples, by a score.

    Args:
        scores: [S], on all cases; the highest is best.
        samples: [S, B], in each sample.
    """
    ranks, bootstrapped = rank(scores[:, None])[:, 0], rank(samples).T
    return Ranking(ranks, bootstrapped, kendall(ranks, bootstrapped))


def rank(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S, ...] ranks, along the first axis, of scores of which the highest is best."""
    from scipy import stats

    ranks: NDArray[np.float64] = np.asarray(stats.rankdata(np.round(-scores, DECIMALS), method="min", axis=0), float)
    return ranks


def rank_scores(dice: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Minus the mean rank, over patients, of each strategy in each sample.

    Args:
        dice: [S, U].
        drawn: [U, B].

    Returns:
        [S, B].
    """
    mean_rank: NDArray[np.float64] = rank(dice) @ (drawn / drawn.sum(0))
    return -mean_rank


def wins(dice: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many others each strategy is significantly better than in each sample.

    Wilcoxon's signed-rank tests, one-sided, of every strategy against every other, at ALPHA after Holm's correction
    of all S (S - 1) of a sample.

    Args:
        dice: [S, U].
        drawn: [U, B].

    Returns:
        [S, B] whole numbers.
    """
    strategies, samples = len(dice), drawn.shape[1]
    pairs = list(itertools.combinations(range(strategies), 2))
    step = max(1, AT_ONCE // (2 * len(pairs)))
    parts = [_wins(dice, drawn[:, i : i + step], pairs) for i in range(0, samples, step)]
    return np.concatenate(parts, axis=1)


def _wins(dice: NDArray[np.float64], drawn: NDArray[np.int64], pairs: list[tuple[int, int]]) -> NDArray[np.float64]:
    p = np.empty((drawn.shape[1], 2 * len(pairs)))
    for number, (i, j) in enumerate(pairs):
        p[:, number] = in_samples(differences_of(dice[i], dice[j]), drawn)
    p[:, len(pairs) :] = 1 - p[:, : len(pairs)]
    significant = holm(p) < ALPHA  # NaN is not
    won = np.zeros((len(dice), drawn.shape[1]))
    winners = [i for i, _ in pairs] + [j for _, j in pairs]
    np.add.at(won, winners, significant.T)
    return won


def kendall(ranks: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kendall's tau-b of one ranking [S] with each of many [B, S], as SciPy defines it: [B], NaN where undefined.

    tau = sum over pairs of sign_x sign_y / sqrt(pairs not tied in x * pairs not tied in y)
    """
    first, second = np.triu_indices(len(ranks), 1)
    x = np.sign(ranks[first] - ranks[second])  # [pairs]
    tau = np.full(len(others), np.nan)
    for number, other in enumerate(others):
        y = np.sign(other[first] - other[second])
        untied = np.count_nonzero(x) * np.count_nonzero(y)
        if untied:
            tau[number] = x @ y / np.sqrt(untied)
    return tau
