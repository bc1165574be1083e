"""The figures of a leaderboard, each in its own file, by the names that a suite's `figures` lists."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard.figures import (
    against_condition,
    against_dropout,
    annotated_vs_unannotated,
    boxes,
    heat,
    learning_curves,
    matrix,
    rank_stability,
    significance,
)
from labeldrop_bench.leaderboard.figures.files import inline, png, svg, variables
from labeldrop_bench.leaderboard.reading import LeaderboardError
from labeldrop_bench.leaderboard.statistics import analyse
from labeldrop_bench.leaderboard.table import Leaderboard
from labeldrop_bench.records import SuiteConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURES", "TABLES", "caption", "check_figures", "figure_names", "inline", "names_of", "png", "svg", "variables",
]  # fmt: skip

FIGURES: Mapping[str, Callable[[Leaderboard], Figure]] = {
    "annotated_vs_unannotated": annotated_vs_unannotated.draw,
    "matrix": matrix.draw,
    "against_dropout": against_dropout.draw,
    "against_condition": against_condition.draw,
    "boxes": boxes.draw,
    "learning_curves": learning_curves.draw,
    "heat": heat.draw,
    "significance": significance.draw,
    "rank_stability": rank_stability.draw,
}
CAPTIONS = {
    "annotated_vs_unannotated": "Annotated against unannotated classes",
    "matrix": "Trained on one condition, tested on every domain",
    "against_dropout": "Dice against the label dropout probability",
    "against_condition": "Dice against the condition",
    "boxes": "Dice of the single test cases",
    "learning_curves": "Learning curves",
    "heat": "All scores at a glance",
    "significance": "Which strategies differ significantly",
    "rank_stability": "How firm the ranks are",
}
TESTS = ("significance", "rank_stability")  # of the test cases; made as soon as there are enough
TABLES = ("wilcoxon",)  # what a suite's `figures` may name besides: shown as a table, not as a figure


def figure_names() -> tuple[str, ...]:
    """What a suite's `figures` may name."""
    return (*FIGURES, *TABLES)


def names_of(leaderboard: Leaderboard) -> tuple[str, ...]:
    """The figures of a suite: what it names, and what shows its results as they are.

    That is annotated_vs_unannotated, unless there are conditions, maybe many; the tests and the stability of the ranks,
    where there are enough strategies and cases for them; and Dice against dropout, if some loss has several.
    """
    suite = leaderboard.suite
    default = () if suite.conditions else ("annotated_vs_unannotated",)
    tested = any(analyse(leaderboard, board) for board in leaderboard.boards)
    dropout = ("against_dropout",) if against_dropout.varies(suite) else ()
    asked = [name for name in suite.figures if tested or name not in TESTS]
    names = dict.fromkeys((*default, *(TESTS if tested else ()), *dropout, *asked))
    return tuple(name for name in names if name in FIGURES)


def caption(name: str) -> str:
    """Heading of a figure."""
    return CAPTIONS[name]


def check_figures(suite: SuiteConfig) -> None:
    """See that every figure a suite names exists, and that the suite has what it shows.

    Raises:
        LeaderboardError: names the key and what to do.
    """
    known = figure_names()
    for name in suite.figures:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise LeaderboardError(f"figures: there is no figure {name!r}{hint} Known: {', '.join(known)}")
        if name in ("matrix", "against_condition") and not suite.conditions:
            raise LeaderboardError(f"figures: {name!r} compares conditions: add [[conditions]], or leave it out")
    without = [condition.name for condition in suite.conditions if condition.value is None]
    if "against_condition" in suite.figures and without:
        raise LeaderboardError(
            f"figures: 'against_condition' needs a `value` in every one of [[conditions]], got none in {without}"
        )
    only_full = all(strategy.full_labels for strategy in suite.strategies)
    if "wilcoxon" in suite.figures and (only_full or len(suite.strategies) < 2):
        raise LeaderboardError("figures: 'wilcoxon' compares strategies: add one to compare with, or leave it out")
