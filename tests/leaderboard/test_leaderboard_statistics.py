"""The analysis of a suite directory."""

import numpy as np
import pytest
from invented import write_suite
from scipy import stats

from labeldrop_bench import records
from labeldrop_bench.leaderboard import load
from labeldrop_bench.leaderboard.statistics import analyse
from labeldrop_bench.leaderboard.statistics.cases import cases_of, units
from labeldrop_bench.leaderboard.statistics.holm import holm
from labeldrop_bench.records import SuiteConfig

SUITE = {
    "name": "analysed",
    "title": "Analysed",
    "seeds": [0, 1, 2],
    "data": {"name": "phantom", "hidden": {"B": ["LA"]}},
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "standard", "loss": "ce"},
        {"name": "adaptive", "loss": "adaptive_ce"},
        {"name": "marginal", "loss": "marginal_ce"},
        {"name": "dropped", "loss": "adaptive_ce", "dropout": 0.5},
    ],
}
DOMAINS = {"A": ("LV", "LA"), "B": ("LV", "LA")}
COMPETING = ("standard", "adaptive", "marginal", "dropped")


def write(directory, **options):
    return write_suite(directory, SuiteConfig.model_validate(SUITE), domains=DOMAINS, cases=24, **options)


def analysed(directory, **options):
    loaded = load(directory)
    return analyse(loaded, loaded.boards[0], **options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write(tmp_path_factory.mktemp("analysed"))


@pytest.fixture(scope="module")
def whole(directory):
    return load(directory)


@pytest.fixture(scope="module")
def found(whole):
    return analyse(whole, whole.boards[0], bootstraps=300)


def edit_cases(directory, run, change):
    """Change the lines below the head of a run's cases.csv."""
    path = directory / "runs" / run / "cases.csv"
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *change(lines)]) + "\n")


def test_who_is_compared(found):
    assert found.strategies == COMPETING
    assert found.patients == 12  # two images each, on B, where the ranking class lies
    assert list(found.rankings) == ["mean then rank", "rank then mean", "test-based"]
    for ranking in found.rankings.values():
        assert ranking.ranks.shape == (4,)
        assert ranking.bootstrapped.shape == (300, 4)
        assert ranking.kendall.shape == (300,)


def test_means_and_ranks_are_those_of_the_leaderboard(whole, found):
    (board,) = whole.boards
    means = np.array([board.entry(name).scores[board.ranked_by].mean for name in COMPETING])
    # cases.csv has six digits
    assert found.differences == pytest.approx(means[:, None] - means[None, :], abs=1e-6)
    assert found.rankings["mean then rank"].ranks.tolist() == [board.entry(name).rank for name in COMPETING]


def test_intervals_hold_the_means(whole, found):
    (board,) = whole.boards
    assert set(found.intervals) == {"full", *COMPETING}
    for entry in board.strategies:
        of = found.intervals[entry.strategy.name]
        assert list(of) == [column.name for column in board.columns]
        for column in board.columns:
            assert of[column.name].low < entry.scores[column].mean < of[column.name].high


def test_p_values_are_scipys_on_patients_after_holm(whole, found):
    (board,) = whole.boards
    cases = cases_of(whole, board).of(COMPETING).within(board.ranked_by)
    dice = units(cases).dice
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    corrected = holm([stats.wilcoxon(dice[i], dice[j]).pvalue for i, j in pairs])
    for (i, j), p in zip(pairs, corrected, strict=True):
        assert found.p_values[i, j] == found.p_values[j, i] == pytest.approx(p)
    assert np.isnan(np.diag(found.p_values)).all()


def same(a, b):
    """Whether two analyses say the same, up to the rounding of means."""
    assert a.strategies == b.strategies
    for name, ranking in a.rankings.items():
        assert np.array_equal(ranking.ranks, b.rankings[name].ranks)
        assert np.array_equal(ranking.bootstrapped, b.rankings[name].bootstrapped)
        assert np.array_equal(ranking.kendall, b.rankings[name].kendall, equal_nan=True)
    assert a.p_values == pytest.approx(b.p_values, nan_ok=True)
    assert a.differences == pytest.approx(b.differences, abs=1e-9)
    for name, columns in a.intervals.items():
        for column, interval in columns.items():
            other = b.intervals[name][column]
            assert (interval.low, interval.high) == pytest.approx((other.low, other.high))


def test_same_seed_same_analysis(directory, whole, found):
    same(found, analysed(directory, bootstraps=300))
    assert analyse(whole, whole.boards[0], bootstraps=300) is found  # computed once
    other = analysed(directory, bootstraps=300, seed=1)
    assert other.intervals != found.intervals
    assert np.array_equal(other.p_values, found.p_values, equal_nan=True)


def test_cases_that_come_twice_change_nothing(found, tmp_path):
    directory = write(tmp_path)
    for run in SuiteConfig.model_validate(SUITE).runs():
        edit_cases(directory, run.run, lambda lines: [*lines, *(f"copy-{line}" for line in lines)])
    same(found, analysed(directory, bootstraps=300))


def test_order_of_cases_does_not_matter(found, tmp_path):
    directory = write(tmp_path)
    edit_cases(directory, "adaptive-seed1", lambda lines: lines[::-1])
    same(found, analysed(directory, bootstraps=300))


def test_strategy_with_a_missing_seed_is_left_out(tmp_path):
    found = analysed(write(tmp_path, missing=["adaptive-seed2"]), bootstraps=20)
    assert found.strategies == ("standard", "marginal", "dropped")
    assert "adaptive" not in found.intervals


def test_undefined_case_is_left_out_for_all(found, tmp_path):
    directory = write(tmp_path)

    def undefine(lines):
        """The class that ranks in both images of a patient."""
        heads = ("B004,B002,B,LA,", "B005,B002,B,LA,")
        return [f"{line[: len(heads[0])]},,,," if line.startswith(heads) else line for line in lines]

    edit_cases(directory, "adaptive-seed2", undefine)
    one = analysed(directory, bootstraps=20)
    assert one.patients == found.patients - 1
    assert one.p_values[0, 2] != found.p_values[0, 2]  # of two others
    for run in SuiteConfig.model_validate(SUITE).runs():
        if run.run != "adaptive-seed2" and not run.strategy.full_labels:
            edit_cases(directory, run.run, undefine)
    every = analysed(directory, bootstraps=20)
    assert np.array_equal(one.p_values, every.p_values, equal_nan=True)
    assert np.array_equal(one.differences, every.differences)


def test_too_few_to_compare(tmp_path):
    runs = [run.run for run in SuiteConfig.model_validate(SUITE).runs()]
    missing = [name for name in runs if not name.startswith(("full", "marginal"))]
    assert analysed(write(tmp_path, missing=missing)) is None


def test_nothing_in_common(tmp_path):
    directory = write(tmp_path)
    for seed in range(3):
        for name, half in (("adaptive", 0), ("marginal", 1)):
            edit_cases(
                directory, f"{name}-seed{seed}", lambda lines, half=half: [x for x in lines if int(x[1:4]) % 2 == half]
            )
    assert analysed(directory, bootstraps=20) is None


def test_samples_without_a_case_of_a_cell_are_left_out(tmp_path):
    suite = SuiteConfig.model_validate(SUITE | {"data": {"name": "phantom", "hidden": {"B": ["LV", "LA"]}}})
    write_suite(tmp_path, suite, domains=DOMAINS, cases=24)
    for run in suite.runs():  # one of twelve patients on B has an LA
        edit_cases(
            tmp_path, run.run, lambda lines: [x for x in lines if ",B,LA," not in x or x.startswith(("B000,", "B001,"))]
        )
    found = analysed(tmp_path, bootstraps=100)
    assert found.patients == 12
    of = found.rankings["mean then rank"].bootstrapped
    assert 40 < len(of) < 90  # the patient is in 1 - (11 / 12)^12 = 65 % of the samples
    assert not np.isnan(of).any()
    assert {len(ranking.bootstrapped) for ranking in found.rankings.values()} == {len(of)}
    assert not any(np.isnan([i.low, i.high]).any() for columns in found.intervals.values() for i in columns.values())


def test_five_patients_that_differ_are_no_test(tmp_path):
    write_suite(tmp_path, SuiteConfig.model_validate(SUITE), domains=DOMAINS, cases=10)
    found = analysed(tmp_path, bootstraps=20)
    assert found.patients == 5
    assert np.isnan(found.p_values).all()
    assert found.rankings["test-based"].ranks.tolist() == [1, 1, 1, 1]
    assert np.isnan(found.rankings["test-based"].kendall).all()


def test_clear_order_is_found_and_firm(tmp_path):
    levels = {"standard": 0.2, "adaptive": 0.4, "marginal": 0.6, "dropped": 0.8}
    directory = write(tmp_path, about=lambda run, *_: levels.get(run.strategy.name, 0.9))
    found = analysed(directory, bootstraps=50)
    for ranking in found.rankings.values():
        assert ranking.ranks.tolist() == [4, 3, 2, 1]
        assert (ranking.bootstrapped == [4, 3, 2, 1]).all()
        assert ranking.kendall == pytest.approx(1)
    assert (found.p_values[~np.eye(4, dtype=bool)] < 0.01).all()


def test_reading_a_leaderboard_reads_no_cases(directory, monkeypatch):
    def refuse(*_):
        raise AssertionError("`load` is called after every run and has to stay cheap")

    monkeypatch.setattr(records, "read_cases", refuse)
    load(directory)
