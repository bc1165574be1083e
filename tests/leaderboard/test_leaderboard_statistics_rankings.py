"""Rankings of tables small enough to be ranked by hand, and against SciPy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labeldrop_bench.leaderboard.statistics import rankings
from labeldrop_bench.leaderboard.statistics.holm import holm
from labeldrop_bench.leaderboard.statistics.rankings import Ranking, kendall, rank, rank_scores, ranking, wins

TABLE = np.array(  # strategies x patients; by patient the ranks are
    [
        [0.9, 0.9, 0.5],  # 1 1 3
        [0.8, 0.9, 0.6],  # 2 1 2
        [0.7, 0.1, 0.9],  # 3 3 1
    ]
)
ONCE = np.ones((3, 1), dtype=np.int64)


def test_equal_scores_share_the_best_rank():
    assert rank(np.array([0.5, 0.9, 0.5, 0.1])).tolist() == [2, 1, 2, 4]
    assert rank(np.array([0.3, 0.1 + 0.2, 0.2])).tolist() == [1, 1, 3]  # they differ in the last digit


def test_rank_then_mean_by_hand():
    assert rank_scores(TABLE, ONCE)[:, 0] == pytest.approx([-5 / 3, -5 / 3, -7 / 3])
    # the first patient not drawn, the last three times
    drawn = np.array([[0], [1], [3]])
    assert rank_scores(TABLE, drawn)[:, 0] == pytest.approx([-10 / 4, -7 / 4, -6 / 4])


def test_mean_and_rank_can_disagree():
    means = TABLE.mean(1)
    assert rank(means).tolist() == [1, 1, 3]  # 2.3 / 3 twice
    table = np.array([[0.9, 0.5, 0.5], [0.1, 0.6, 0.6]])
    assert rank(table.mean(1)).tolist() == [1, 2]
    assert rank(rank_scores(table, ONCE)[:, 0]).tolist() == [2, 1]


def test_wins_by_hand():
    # Eight patients: the first strategy beats both others on all of them, which differ by noise. One-sided p of all
    # eight ranks by the normal approximation is 0.006, and six tests are corrected for: 0.035 and, as a fifth, 0.029.
    noise = np.array([0.01, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07, -0.08])
    low = np.linspace(0.1, 0.5, 8)
    dice = np.array([low + 0.3 + np.linspace(0, 0.1, 8), low, low + noise])
    assert wins(dice, np.ones((8, 1), dtype=np.int64))[:, 0].tolist() == [2, 0, 0]
    # without two of the patients there are six, and p = 0.014 is not enough
    assert wins(dice, np.array([[0, 0, 1, 1, 1, 1, 1, 1]]).T)[:, 0].tolist() == [0, 0, 0]


def written_out(dice, weights):
    """Wins of a sample by SciPy."""
    sample = np.repeat(dice, weights, axis=1)
    pairs = list(itertools.permutations(range(len(dice)), 2))
    p = []
    for i, j in pairs:
        d = np.round(sample[i] - sample[j], 9)
        d = d[d != 0]
        test = stats.wilcoxon(d, alternative="greater", method="asymptotic") if len(d) >= 6 else None
        p.append(np.nan if test is None else test.pvalue)
    significant = holm(p) < 0.05
    return [sum(s for s, (i, _) in zip(significant, pairs, strict=True) if i == k) for k in range(len(dice))]


@pytest.mark.parametrize("at_once", [1, 10**6])
def test_wins_are_those_of_the_samples_written_out(monkeypatch, at_once):
    monkeypatch.setattr(rankings, "AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    dice = np.round(rng.normal([[0.5], [0.52], [0.55], [0.6]], 0.06, (4, 20)), 2)  # with ties
    dice[3, 8:] = dice[2, 8:]
    drawn = rng.multinomial(20, np.full(20, 1 / 20), size=12).T
    found = wins(dice, drawn)
    assert found.T.tolist() == [written_out(dice, weights) for weights in drawn.T]
    assert found.min() == 0  # not all alike, or the test would be of nothing
    assert found.max() >= 2


@given(st.lists(st.integers(1, 4), min_size=2, max_size=9), st.integers(0, 2**32 - 1))
def test_kendall_is_scipys(ranks, seed):
    others = np.random.default_rng(seed).integers(1, 5, (3, len(ranks))).astype(float)
    expected = [stats.kendalltau(ranks, other).statistic for other in others]
    assert kendall(np.array(ranks, dtype=float), others) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_ranking_of_scores_and_of_samples():
    found = ranking(np.array([0.9, 0.5, 0.7]), np.array([[0.9, 0.1], [0.5, 0.2], [0.7, 0.3]]))
    assert found.ranks.tolist() == [1, 3, 2]
    assert found.bootstrapped.tolist() == [[1, 3, 2], [3, 2, 1]]
    assert found.kendall == pytest.approx([1, -1 / 3])


def test_range_holds_ninety_five_percent():
    ranks = np.array([[1.0]] * 25 + [[2.0]] * 940 + [[3.0]] * 20 + [[4.0]] * 15)
    assert Ranking(np.array([2.0]), ranks, np.full(1000, np.nan)).range_of(0) == (1, 3)
