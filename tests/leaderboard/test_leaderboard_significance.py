"""Paired tests: the numbers by hand, against SciPy, and what has no p value."""

import csv

import numpy as np
import pytest
from invented import write_suite
from scipy import stats

from labeldrop_bench import records
from labeldrop_bench.leaderboard import LeaderboardError, load, render
from labeldrop_bench.leaderboard.significance import compare, compared
from labeldrop_bench.leaderboard.statistics.holm import holm
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
    result = compared(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert result.p == pytest.approx(2 / 64)
    assert (result.pairs, result.differing, result.difference) == (6, 6, pytest.approx(0.35))
    # the smallest with the other sign: rank sums 0 and 1 are as extreme, on either side
    assert compared(np.array([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6])).p == pytest.approx(4 / 64)


def test_pairs_without_a_difference_are_left_out():
    result = compared(np.array([0.0, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert (result.p, result.differing) == (pytest.approx(2 / 64), 6)


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
    result = compared(np.array(differences))
    assert (result.p, result.corrected) == (None, None)
    assert comparison(result) == words


@pytest.fixture
def directory(tmp_path):
    return write_suite(tmp_path, SuiteConfig.model_validate(SUITE), domains=DOMAINS, cases=25)


def cases(directory, strategy, seed):
    with (directory / "runs" / f"{strategy}-seed{seed}" / "cases.csv").open() as file:
        return {(row["domain"], row["class"], row["case"]): float(row["dice"]) for row in csv.DictReader(file)}


def mean_over_seeds(directory, strategy):
    first, second = cases(directory, strategy, 0), cases(directory, strategy, 1)
    return {place: (first[place] + second[place]) / 2 for place in first}


def by_patient(of_cases):
    """Two cases each, as they were invented; the last has one."""
    return [np.mean(of_cases[i : i + 2]) for i in range(0, len(of_cases), 2)]


def test_tests_of_a_suite_are_scipys(directory):
    loaded = load(directory)
    result = compare(loaded, loaded.boards[0])
    assert result.baseline == "standard"
    assert list(result.rows) == ["full", "adaptive"]
    assert [column.name for column in result.columns] == ["A/LV", "A/LA", "B/LV", "overall"]
    base, other = mean_over_seeds(directory, "standard"), mean_over_seeds(directory, "adaptive")
    d = {place: other[place] - base[place] for place in base}
    cells = (("A", "LV"), ("A", "LA"), ("B", "LV"))
    per_cell = [by_patient([d[(*cell, f"{cell[0]}{i:03}")] for i in range(25)]) for cell in cells]
    of_cases = [(d["A", "LV", f"A{i:03}"] + d["A", "LA", f"A{i:03}"]) / 2 for i in range(25)]
    overall = [*by_patient(of_cases), *per_cell[2]]
    for comparison_, expected in zip(result.rows["adaptive"], [*per_cell, overall], strict=True):
        assert comparison_.pairs == len(expected)
        assert comparison_.difference == pytest.approx(np.mean(expected))
        assert comparison_.p == pytest.approx(stats.wilcoxon(expected).pvalue)
    assert result.tests == 8
    tested = [c for row in result.rows.values() for c in row]
    assert [c.corrected for c in tested] == list(holm([c.p for c in tested]))


@pytest.mark.parametrize(
    ("changes", "baseline"),
    [
        ({}, "standard"),
        ({"strategies": SUITE["strategies"][::-1]}, "standard"),
        ({"strategies": SUITE["strategies"][::-1], "standard": "adaptive"}, "adaptive"),
        ({"strategies": [{"name": n, "loss": "ce"} for n in ("zero", "one")]}, "zero"),
    ],
)
def test_baseline(tmp_path, changes, baseline):
    suite = SuiteConfig.model_validate(SUITE | {"seeds": [0]} | changes)
    loaded = load(write_suite(tmp_path, suite, domains=DOMAINS, cases=2))
    assert compare(loaded, loaded.boards[0]).baseline == baseline


def test_only_patients_that_both_have_are_compared(directory):
    path = directory / "runs" / "adaptive-seed1" / "cases.csv"
    lines = path.read_text().splitlines()
    lines[1] = ",".join(
        [*lines[1].split(",")[:4], "", "1", "1", "1", "1"]
    )  # Dice of the first case is undefined for one seed
    del lines[2]  # the other case of the same patient, in one run only
    path.write_text("\n".join(lines) + "\n")
    loaded = load(directory)
    rows = compare(loaded, loaded.boards[0]).rows
    assert [c.pairs for c in rows["adaptive"]] == [12, 13, 13, 26]  # the LA of the patient still counts
    assert [c.pairs for c in rows["full"]] == [13, 13, 13, 26]


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


HEAD = "case,patient,domain,class,dice,hd95,nsd,ece,brier"


@pytest.mark.parametrize("content", [None, "case\nx\n", f"{HEAD}\na,b,A,LV,high,1,1,1,1\n"])
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
    with pytest.raises(LeaderboardError, match=r"each \(case, class\) once, got \[\('A000', 'LV'\)\] more"):
        render(load(directory), "md")
