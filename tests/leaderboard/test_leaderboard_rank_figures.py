"""The figures of tests and of ranks, and those of a single strategy."""

import itertools

import numpy as np
import pytest
from invented import write_suite
from matplotlib.patches import Rectangle

from labeldrop_bench.leaderboard import figures, load
from labeldrop_bench.leaderboard.figures import against_dropout, rank_stability, significance
from labeldrop_bench.leaderboard.figures.style import new_figure
from labeldrop_bench.leaderboard.statistics import analyse
from labeldrop_bench.records import SuiteConfig

SUITE = {
    "name": "ranked",
    "title": "Ranked",
    "seeds": [0, 1],
    "data": {"name": "phantom", "hidden": {"B": ["LA"]}},
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "adaptive", "loss": "adaptive_ce"},
        {"name": "adaptive + dropout 0.3", "loss": "adaptive_ce", "dropout": 0.3},
        {"name": "adaptive + dropout 0.6", "loss": "adaptive_ce", "dropout": 0.6},
        {"name": "adaptive binary", "loss": "adaptive_bce"},
    ],
}


@pytest.fixture
def make(tmp_path):
    def make(missing=(), *, cases=6, **changes):
        suite = SuiteConfig.model_validate(SUITE | changes)
        domains = {"A": ("LV", "LA"), "B": ("LV", "LA")}
        return load(write_suite(tmp_path, suite, domains=domains, cases=cases, missing=missing))

    return make


def draw(loaded, name):
    return figures.FIGURES[name](loaded)


def test_significance_shows_every_pair_best_first(make):
    loaded = make(cases=16)
    found = analyse(loaded, loaded.boards[0])
    (axes,) = draw(loaded, "significance").axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    ranks = found.rankings["mean then rank"].ranks
    assert names[0] == found.strategies[int(np.argmin(ranks))]
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    order = significance.best_first(found)
    for (row, i), (column, j) in itertools.product(enumerate(order), repeat=2):
        p, better = found.p_values[i, j], found.differences[i, j] > 0
        mark = (significance.BETTER if better else significance.WORSE) if p < 0.05 else ""
        expected = "" if i == j else "n/a" if np.isnan(p) else mark + significance.small_p(p)
        assert texts[column, row] == expected
    assert any(text.startswith(significance.BETTER) for text in texts.values())
    filled = sum(p < 0.05 for p in found.p_values[np.ix_(order, order)].flat)
    assert sum(isinstance(patch, Rectangle) for patch in axes.patches) == filled


@pytest.mark.parametrize(("p", "text"), [(0.0004, "<.001"), (0.0213, ".021"), (0.9999, "1.000"), (1.0, "1.000")])
def test_small_p(p, text):
    assert significance.small_p(p) == text


def test_of_many_strategies_the_best_are_shown(make, monkeypatch):
    monkeypatch.setattr(significance, "MOST", 2)
    loaded = make(cases=8)
    best = sorted((e for e in loaded.boards[0].strategies if e.rank), key=lambda e: e.rank)[:2]
    for name in ("significance", "rank_stability"):
        axes = draw(loaded, name).axes[0]
        assert "the best 2 of 4 strategies" in axes.get_title("left")
        assert len(axes.get_yticklabels()) == 2
    assert [t.get_text() for t in draw(loaded, "significance").axes[0].get_yticklabels()] == [
        entry.strategy.name for entry in best
    ]


def test_blobs_have_the_area_of_their_share():
    axes = new_figure(3).add_subplot()
    rank_stability.draw_blobs(axes, [(1.0, np.array([1.0] * 75 + [2.0] * 25)), (2.0, np.array([2.0] * 100))])
    sizes = {
        (x, y): line.get_markersize()
        for line in axes.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() != "none"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    assert sizes.keys() == {(1, 0), (2, 0), (2, 1)}
    assert sizes[2, 1] == rank_stability.WIDEST
    assert sizes[2, 0] == pytest.approx(rank_stability.WIDEST / 2)  # a quarter of the area
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"]
    assert medians == [1, 2]
    bars = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert bars == [(1, 2), (2, 2)]


def test_rank_stability_of_one_strategy(make):
    loaded = make(cases=8)
    found = analyse(loaded, loaded.boards[0])
    (axes,) = rank_stability.draw_one(loaded, "adaptive").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(found.rankings)
    i = found.strategies.index("adaptive")
    rings = [
        line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "none"
    ]
    assert rings == [ranking.ranks[i] for ranking in found.rankings.values()]


def test_dropout_of_one_strategy_is_its_line_with_a_ring(make):
    loaded = make()
    (board,) = loaded.boards
    (axes,) = against_dropout.draw(loaded, "adaptive + dropout 0.3").axes
    rings = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_markersize() == 13]
    scores = board.entry("adaptive + dropout 0.3").scores
    assert rings == [(0.3, scores[board.column(name)].mean) for name in ("unannotated", "annotated")]
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert "adaptive_ce" in labels
    assert "adaptive_bce" not in labels
    assert against_dropout.varies(loaded.suite, "adaptive")
    assert not against_dropout.varies(loaded.suite, "adaptive binary")


def test_figures_of_tests_are_drawn_as_soon_as_there_is_something(make):
    runs = [run.run for run in SuiteConfig.model_validate(SUITE).runs()]
    few = make(runs[4:], figures=["significance", "heat"])
    assert figures.names_of(few) == ("annotated_vs_unannotated", "against_dropout", "heat")
    all_names = ("annotated_vs_unannotated", "significance", "rank_stability", "against_dropout")
    assert figures.names_of(make(cases=8)) == all_names
