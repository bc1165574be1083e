"""Paired tests: the numbers by hand, against SciPy, and what has no p value."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented import write_suite
from scipy import stats

from labeldrop_bench import records
from labeldrop_bench.leaderboard import LeaderboardError, load, render
from labeldrop_bench.leaderboard.significance import compare, holm, wilcoxon
from labeldrop_bench.leaderboard.wording import comparison
from labeldrop_bench.records import SuiteConfig

SUITE = {
    "name": "paired",
    "title": "Paired",
    "seeds": [0, 1],
    "data": {"name": "phantom"},
    "figures": ["wilcoxon"],
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "standard", "loss": "ce"},
        {"name": "adaptive", "loss": "adaptive_ce"},
    ],
}
DOMAINS = {"A": ("LV", "LA"), "B": ("LV",)}


def test_p_by_hand():
    # six differences of one sign: of the 2^6 ways to give signs, two are as extreme
    result = wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert result.p == pytest.approx(2 / 64)
    assert (result.pairs, result.differing, result.difference) == (6, 6, pytest.approx(0.35))
    # the smallest with the other sign: rank sums 0 and 1 are as extreme, on either side
    assert wilcoxon([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).p == pytest.approx(4 / 64)


def test_pairs_without_a_difference_are_left_out():
    assert wilcoxon([0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).p == pytest.approx(2 / 64)
    assert wilcoxon([1e-12, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).differing == 6  # rounding of means


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([], "— (no pairs)"),
        ([0.0] * 20, "+0.000 (no difference)"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], "+0.300 (only 5 differ)"),
        ([0.0] * 15 + [0.1, 0.2, 0.3, 0.4, 0.5], "+0.075 (only 5 differ)"),
    ],
)
def test_no_p_is_said_and_not_made_up(differences, words):
    result = wilcoxon(differences)
    assert (result.p, result.corrected) == (None, None)
    assert comparison(result) == words


def test_holm_by_hand():
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, and none below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p) + 1e-12


@pytest.fixture
def directory(tmp_path):
    return write_suite(tmp_path, SuiteConfig.model_validate(SUITE), domains=DOMAINS, cases=25)


def cases(directory, strategy, seed):
    with (directory / "runs" / f"{strategy}-seed{seed}" / "cases.csv").open() as file:
        return {(row["domain"], row["class"], row["case"]): float(row["value"]) for row in csv.DictReader(file)}


def mean_over_seeds(directory, strategy):
    first, second = cases(directory, strategy, 0), cases(directory, strategy, 1)
    return {place: (first[place] + second[place]) / 2 for place in first}


def test_tests_of_a_suite_are_scipys(directory):
    loaded = load(directory)
    result = compare(loaded, loaded.boards[0])
    assert result.baseline == "standard"
    assert list(result.rows) == ["full", "adaptive"]
    assert [column.name for column in result.columns] == ["A/LV", "A/LA", "B/LV", "overall"]
    base, other = mean_over_seeds(directory, "standard"), mean_over_seeds(directory, "adaptive")
    d = {place: other[place] - base[place] for place in base}
    per_cell = [[v for p, v in d.items() if p[:2] == cell] for cell in (("A", "LV"), ("A", "LA"), ("B", "LV"))]
    overall = [(d["A", "LV", f"A{i:03}"] + d["A", "LA", f"A{i:03}"]) / 2 for i in range(25)] + per_cell[2]
    for comparison_, expected in zip(result.rows["adaptive"], [*per_cell, overall], strict=True):
        assert comparison_.pairs == len(expected)
        assert comparison_.difference == pytest.approx(np.mean(expected))
        assert comparison_.p == pytest.approx(stats.wilcoxon(expected).pvalue)
    assert result.tests == 8
    tested = [c for row in result.rows.values() for c in row]
    assert [c.corrected for c in tested] == holm([c.p for c in tested])


def test_only_cases_that_both_have_are_compared(directory):
    path = directory / "runs" / "adaptive-seed1" / "cases.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ","  # Dice of the first case is undefined for one seed
    del lines[2]
    path.write_text("\n".join(lines) + "\n")
    loaded = load(directory)
    rows = compare(loaded, loaded.boards[0]).rows
    assert [c.pairs for c in rows["adaptive"]] == [23, 25, 25, 50]  # the LA of those cases still counts
    assert [c.pairs for c in rows["full"]] == [25, 25, 25, 50]


def test_strategy_with_missing_seeds_is_not_tested(directory):
    (directory / "runs" / "adaptive-seed1" / "result.json").unlink()
    loaded = load(directory)
    assert compare(loaded, loaded.boards[0]).rows["adaptive"] is None
    assert "| adaptive" in render(loaded, "md").partition("Compared with standard")[2]


def test_table_is_shown_where_it_is_asked_for(directory):
    loaded = load(directory)
    for text in (render(loaded, "md"), render(loaded, "html")):
        assert "Compared with standard" in text
        assert "8 p values" in text
        assert "(p " in text.replace("&lt;", "<")
    records.write_json(directory / "suite.json", SuiteConfig.model_validate(SUITE | {"figures": []}))
    assert "Compared with" not in render(load(directory), "md") + render(load(directory), "html")


@pytest.mark.parametrize("content", [None, "case\nx\n", "case,patient,domain,class,metric,value\na,b,A,LV,dice,high\n"])
def test_wrong_cases_are_named(directory, content):
    path = directory / "runs" / "adaptive-seed1" / "cases.csv"
    path.unlink()
    if content:
        path.write_text(content)
    with pytest.raises(LeaderboardError, match=r"adaptive-seed1/cases\.csv cannot be read: remove "):
        render(load(directory), "md")


def test_repeated_case_is_named(directory):
    path = directory / "runs" / "adaptive-seed1" / "cases.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(LeaderboardError, match=r"once for each \(case, class\), got \[\('A000', 'LV'\)\] more"):
        render(load(directory), "md")
