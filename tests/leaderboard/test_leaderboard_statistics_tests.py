"""Signed-rank tests against SciPy, in bootstrap samples against the samples written out, and Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from labeldrop_bench.leaderboard.statistics.holm import holm
from labeldrop_bench.leaderboard.statistics.signed_rank import all_pairs, differences_of, in_samples, two_sided

# few values, so that there are zeros and ties of either sign
TIED = st.lists(st.integers(-4, 4).map(lambda i: i / 10), min_size=1, max_size=25)
ANY = st.lists(st.floats(-1, 1).map(lambda x: round(x, 9)), min_size=1, max_size=25)


@given(st.one_of(TIED, ANY), st.integers(0, 2**32 - 1))
def test_p_in_samples_is_that_of_the_samples_written_out(values, seed):
    differences = np.array(values)
    drawn = np.random.default_rng(seed).integers(0, 4, (len(values), 3))
    found = in_samples(differences, drawn)
    for p, weights in zip(found, drawn.T, strict=True):
        sample = np.repeat(differences, weights)
        sample = sample[sample != 0]
        if len(sample) < 6:
            assert np.isnan(p)
            continue
        expected = stats.wilcoxon(sample, alternative="greater", method="asymptotic")
        assert p == pytest.approx(expected.pvalue, abs=1e-12)  # rounding of sums of whole and half numbers is exact
        other_side = stats.wilcoxon(sample, alternative="less", method="asymptotic").pvalue
        assert 1 - p == pytest.approx(other_side, abs=1e-12)


def test_p_of_a_sample_by_hand():
    # 1, 1, -2, 3, 3, 3 has ranks 1.5, 1.5, 3, 5, 5, 5: T = 18 of 21, mean 10.5
    # variance 6 * 7 * 13 / 24 - ((8 - 2) + (27 - 3)) / 48
    found = in_samples(np.array([3.0, -2.0, 0.0, 1.0]), np.array([[3], [1], [7], [2]]))
    z = (18 - 10.5) / np.sqrt(22.75 - 30 / 48)
    assert found == pytest.approx([stats.norm.sf(z)])


def test_no_difference_at_all_is_no_test():
    assert np.isnan(in_samples(np.zeros(9), np.ones((9, 2), dtype=np.int64))).all()
    assert np.isnan(two_sided(np.zeros(9)))


@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 9)), min_size=0, max_size=60))
def test_two_sided_p_is_scipys(values):
    differing = [value for value in values if value]
    p = two_sided(np.array(values))
    if len(differing) < 6:
        assert np.isnan(p)
    else:
        assert p == stats.wilcoxon(differing).pvalue


def test_rounding_makes_no_difference_and_breaks_no_tie():
    first, second = np.array([0.1 + 0.2, 0.9, 0.5]), np.array([0.3, 0.8, 0.6])
    found = differences_of(first, second)
    assert first[0] != second[0]
    assert found[0] == 0
    assert found[1] == -found[2]


def test_all_pairs():
    dice = np.random.default_rng(0).random((4, 12))
    dice[3, :7] = dice[2, :7]  # five differ
    p = all_pairs(dice)
    assert np.isnan(p).tolist() == [[i == j or {i, j} == {2, 3} for j in range(4)] for i in range(4)]
    assert p[0, 2] == p[2, 0] == stats.wilcoxon(dice[0], dice[2]).pvalue


def test_holm_by_hand():
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, and none below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_holm_does_not_count_what_was_not_tested():
    found = holm([0.01, np.nan, 0.02, np.nan])
    assert found.tolist() == pytest.approx([0.02, np.nan, 0.02, np.nan], nan_ok=True)


def test_holm_corrects_each_row_by_itself():
    p = np.random.default_rng(0).random((5, 7)) / 5
    p[2, 3] = np.nan
    assert np.array_equal(holm(p), [holm(row) for row in p], equal_nan=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p) + 1e-12
