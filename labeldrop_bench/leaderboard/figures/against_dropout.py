"""Dice against the label dropout probability, a line for each loss (Islam et al. 2024, experiment 4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard.figures.style import (
    COLOURS,
    FULL,
    Look,
    dress,
    grid_of_panels,
    head,
    legend,
    line_handles,
    looks,
    new_figure,
    rows_of_panels,
)
from labeldrop_bench.leaderboard.reading import DIRECTION
from labeldrop_bench.leaderboard.table import Board, Column, Leaderboard, Score
from labeldrop_bench.records import StrategyConfig, SuiteConfig

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ABREAST = 2
LEGEND = 0.13  # inches of a line's name, two of which stand side by side
NAN = float("nan")


def series(suite: SuiteConfig) -> dict[str, list[StrategyConfig]]:
    """The strategies that differ in nothing but the dropout probability, by the name of their line.

    A strategy without dropout begins every line of its loss, whichever labels may drop along it.
    """
    groups: dict[str, dict[str, list[StrategyConfig]]] = {}
    for strategy in suite.strategies:
        if not strategy.full_labels:
            options = {**strategy.loss_options, **(strategy.procedure or {})}
            loss = strategy.loss + (f" {json.dumps(options)}" if options else "")
            which = ", ".join(strategy.dropout_classes or ()) if strategy.dropout else ""
            groups.setdefault(loss, {}).setdefault(which, []).append(strategy)
    lines = {}
    for loss, variants in groups.items():
        # no labels named: without dropout, or all may drop
        at_rest = [s for s in variants.get("", []) if not s.dropout]
        lines_of_loss = {which: [s for s in members if s.dropout] for which, members in variants.items()}
        lines_of_loss = {which: members for which, members in lines_of_loss.items() if members} or {"": []}
        for which, members in lines_of_loss.items():
            name = loss if len(lines_of_loss) == 1 else f"{loss}, {which or 'any label'} may drop"
            lines[name] = sorted([*at_rest, *members], key=lambda s: s.dropout)
    return lines


def varies(suite: SuiteConfig, strategy: str = "") -> bool:
    """Whether there are several dropout probabilities on some line, or on one that a strategy is on."""
    lines = [[s.name for s in members] for members in series(suite).values()]
    return any(len(names) > 1 for names in lines if not strategy or strategy in names)


def draw(leaderboard: Leaderboard, strategy: str = "") -> Figure:
    """A panel for each condition; unannotated classes thick, annotated ones thin, `full` a band of ± one deviation.

    Args:
        leaderboard: of the suite.
        strategy: draw the lines that it is on alone, and mark it, without a title; empty is all lines.
    """
    suite, boards = leaderboard.suite, leaderboard.boards
    lines = {name: on for name, on in series(suite).items() if not strategy or strategy in [s.name for s in on]}
    height = 1.4 + 3.4 * rows_of_panels(len(boards), ABREAST) + LEGEND * len(lines)
    figure = new_figure(height)
    panels = grid_of_panels(figure, len(boards), ABREAST, sharex=True, sharey=True)
    step = min(0.004, 0.03 / max(1, len(lines)))  # error bars beside each other
    look_of = dict(zip(lines, looks(len(lines)), strict=True))
    for axes, board in zip(panels, boards, strict=True):
        columns = [c for c in board.summary if c.name in ("unannotated", "annotated")]
        columns = columns if len(columns) == 2 else [board.column("overall")]
        for column in columns:
            _band(axes, board, column)
            for place, (name, members) in enumerate(lines.items()):
                shift = step * (place - (len(lines) - 1) / 2)
                scores = [(s.dropout + shift, board.entry(s.name).scores[column]) for s in members]
                draw_line(axes, scores, look_of[name], thin=column.name == "annotated")
            _mark(axes, board, column, strategy)
        dress(axes, title=board.name)
    for axes in panels[::ABREAST]:
        axes.set_ylabel(f"Dice, {DIRECTION}")
    for axes in panels[-ABREAST:]:
        axes.set_xlabel("label dropout probability")
    if not strategy:
        head(figure, suite)
    legend(figure, _handles(leaderboard, look_of))
    return figure


def draw_line(axes: Axes, scores: list[tuple[float, Score]], look: Look, *, thin: bool = False) -> None:
    """Mean ± standard deviation at each place; an incomplete one is a gap, in which the seeds there are stay points."""
    places = [x for x, _ in scores]
    means = [NAN if score.mean is None else score.mean for _, score in scores]
    bars = [score.std or 0.0 for _, score in scores]
    axes.errorbar(
        places, means, yerr=bars, color=look.colour, linestyle="--" if thin else look.dash, marker=look.marker,
        linewidth=1 if thin else 2.2, markersize=3 if thin else 6, capsize=2 if thin else 3, elinewidth=1,
        alpha=0.65 if thin else 1,
    )  # fmt: skip
    alone = [(x, value) for x, score in scores if score.mean is None for value in score.present]
    axes.plot([x for x, _ in alone], [y for _, y in alone], ".", color=look.colour, alpha=0.6, markersize=5)


def _mark(axes: Axes, board: Board, column: Column, strategy: str) -> None:
    """A ring around the strategy that is looked at."""
    marked = [entry for entry in board.strategies if entry.strategy.name == strategy]
    for entry in marked:
        mean = entry.scores[column].mean
        if mean is not None:
            axes.plot(
                [entry.strategy.dropout], [mean], "o", color=COLOURS["text"], markersize=13, markerfacecolor="none"
            )


def _band(axes: Axes, board: Board, column: Column) -> None:
    """What `full` reaches, over the whole width."""
    for entry in board.strategies:
        score = entry.scores[column]
        if entry.strategy.full_labels and score.mean is not None:
            thin = column.name == "annotated"
            axes.axhline(score.mean, color=FULL, linewidth=1 if thin else 1.8, linestyle="--" if thin else "-")
            if score.std is not None:
                ends = score.mean - score.std, score.mean + score.std
                axes.axhspan(*ends, color=FULL, alpha=0.12 if thin else 0.3, linewidth=0)


def _handles(leaderboard: Leaderboard, look_of: dict[str, Look]) -> list[Artist]:
    """The losses by colour and shape, then what thick, thin and the band mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = line_handles(look_of)
    text = COLOURS["text"]
    if any(board.ranked_by.name == "unannotated" and len(board.summary) == 3 for board in leaderboard.boards):
        handles += [
            Line2D([], [], color=text, linewidth=2.2, label="unannotated classes"),
            Line2D([], [], color=text, linewidth=1, linestyle="--", alpha=0.65, label="annotated classes"),
        ]
    if leaderboard.has_full:
        handles.append(Patch(color=FULL, alpha=0.5, label="full: trained on all labels"))
    return handles
