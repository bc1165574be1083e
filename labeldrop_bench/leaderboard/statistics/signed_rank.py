"""Wilcoxon's signed-rank test of all pairs of strategies: by SciPy, and in many bootstrap samples at once.

Pairs without a difference are left out, as Wilcoxon did. With fewer than FEWEST others there is no test: of five
differences not even five of one sign give a two-sided p below 0.05.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

FEWEST = 6
DECIMALS = 9  # of a difference: means of float64 numbers that are equal on paper differ in later ones


def differences_of(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """[U] first minus second, with differences that rounding alone made different, or not zero, put right."""
    return np.round(first - second, DECIMALS)


def two_sided(differences: NDArray[np.float64]) -> float:
    """SciPy's p of paired differences [U], exact where it can be at little cost; NaN where there is no test."""
    from scipy import stats  # here, because it is slow to import and a terminal table does without

    differing = differences[differences != 0]
    return float(stats.wilcoxon(differing).pvalue) if len(differing) >= FEWEST else float("nan")


def all_pairs(dice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-sided p of every pair of S strategies before correction.

    Args:
        dice: [S, U].

    Returns:
        [S, S] float64, symmetric; NaN on the diagonal and where there is no test.
    """
    p = np.full((len(dice), len(dice)), np.nan)
    for i, j in itertools.combinations(range(len(dice)), 2):
        p[i, j] = p[j, i] = two_sided(differences_of(dice[i], dice[j]))
    return p


def in_samples(differences: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """One-sided p, that the differences lie above zero, in every bootstrap sample.

    A sample holds the i-th difference w_i times. Ties share their mean rank: if C_g differences of a sample are, up to
    their sign, not greater than those of the g-th group of equal ones, which are w_g, then the rank of each in the
    group is C_g - (w_g - 1) / 2, and with n = sum w_g

        T = sum over positive differences of w_i rank_i
        mean = n (n + 1) / 4,  variance = n (n + 1) (2 n + 1) / 24 - sum (w_g^3 - w_g) / 48

    so that sorting once serves all samples. p is that of the normal approximation without correction for continuity,
    as `scipy.stats.wilcoxon(method="asymptotic", alternative="greater")` gives it for the written-out sample.

    Args:
        differences: [U].
        drawn: [U, B], how often each is in each sample.

    Returns:
        [B] float64; NaN where a sample has fewer than FEWEST differences that are not zero. The p of the other side is
        1 - p.
    """
    from scipy.special import ndtr

    places = np.flatnonzero(differences)
    if not len(places):
        return np.full(drawn.shape[1], np.nan)
    places = places[np.argsort(np.abs(differences[places]), kind="stable")]
    d = differences[places]
    weights = drawn[places].astype(np.float64)  # [d, B]
    starts = np.flatnonzero(np.diff(np.abs(d), prepend=-1.0))  # of the groups of equal ones
    positive = weights * (d > 0)[:, None]
    if len(starts) < len(d):
        weights, positive = (np.add.reduceat(w, starts, axis=0) for w in (weights, positive))
    up_to = np.cumsum(weights, axis=0)
    n = up_to[-1]
    statistic = (positive * (up_to - (weights - 1) / 2)).sum(0)
    ties = (weights * (weights * weights - 1)).sum(0)
    variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
    with np.errstate(invalid="ignore", divide="ignore"):
        z = (statistic - n * (n + 1) / 4) / np.sqrt(variance)
    return np.where(n >= FEWEST, ndtr(-z), np.nan)
