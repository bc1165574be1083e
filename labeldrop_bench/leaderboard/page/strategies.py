"""The section of a strategy: its figures, tests, examples, configuration and what it was made with."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from labeldrop_bench.leaderboard import wording
from labeldrop_bench.leaderboard.figures import against_dropout, boxes, rank_stability
from labeldrop_bench.leaderboard.figures.style import Look, looks, looks_of
from labeldrop_bench.leaderboard.page.examples import Shown, Store, Swatch, legend, show
from labeldrop_bench.leaderboard.page.gallery import Gallery, Picture
from labeldrop_bench.leaderboard.reading import read_examples, read_failure, read_result
from labeldrop_bench.leaderboard.statistics import Statistics, analyse
from labeldrop_bench.leaderboard.statistics.rankings import ALPHA
from labeldrop_bench.leaderboard.table import Board, Entry, Leaderboard
from labeldrop_bench.records import RunConfig, RunFailure, RunResult, StrategyConfig, SuiteConfig, path_part


@dataclass(frozen=True)
class Opponent:
    """Another strategy in the tests: mean difference of Dice to it, corrected p, and what that means."""

    name: str
    difference: str
    p: str
    verdict: str


@dataclass(frozen=True)
class Run:
    """A run of the strategy; `result` is None if it has not finished, `failure` if it has not failed."""

    config: RunConfig
    result: RunResult | None
    failure: RunFailure | None


@dataclass(frozen=True)
class InCondition:
    """What a section shows of one condition.

    Attributes:
        board: of the condition.
        entry: the strategy's row in it.
        opponents: the other strategies that it was tested against, best first.
        runs: one for each seed.
        examples: of the first seed.
        swatches: the classes in them.
    """

    board: Board
    entry: Entry
    opponents: tuple[Opponent, ...]
    runs: tuple[Run, ...]
    examples: tuple[Shown, ...]
    swatches: tuple[Swatch, ...]


@dataclass(frozen=True)
class Section:
    """A strategy.

    Attributes:
        slug: its name as a part of addresses.
        pictures: its figures.
        conditions: what there is in each.
        configuration: its entry in the suite, as JSON.
        environment: key -> the different values that its runs recorded.
    """

    strategy: StrategyConfig
    slug: str
    pictures: tuple[Picture, ...]
    conditions: tuple[InCondition, ...]
    configuration: str
    environment: dict[str, tuple[str, ...]]

    @property
    def seconds(self) -> float:
        """Of all its finished runs."""
        return sum(run.result.seconds for c in self.conditions for run in c.runs if run.result)


def slug(name: str) -> str:
    """A strategy's name as a part of addresses and of paths; a suite's strategies differ in it, as in their runs."""
    short = path_part(name)
    return short if short.strip(".") else f"{short}-"  # "." and ".." lead elsewhere


def section(leaderboard: Leaderboard, strategy: StrategyConfig, gallery: Gallery, store: Store) -> Section:
    """Everything about a strategy.

    Raises:
        LeaderboardError: a file of a run does not hold what it should.
    """
    conditions = tuple(_in_condition(leaderboard, board, strategy.name, store) for board in leaderboard.boards)
    results = [run.result for c in conditions for run in c.runs if run.result]
    keys = sorted({key for result in results for key in result.environment})
    return Section(
        strategy=strategy,
        slug=slug(strategy.name),
        pictures=tuple(_pictures(leaderboard, strategy, gallery)) if results else (),
        conditions=conditions,
        configuration=json.dumps(strategy.model_dump(mode="json"), indent=2, ensure_ascii=False),
        environment={
            key: tuple(sorted({r.environment[key] for r in results if key in r.environment})) for key in keys
        },
    )  # fmt: skip


def _in_condition(leaderboard: Leaderboard, board: Board, name: str, store: Store) -> InCondition:
    entry, directory = board.entry(name), leaderboard.directory
    runs = tuple(
        Run(run, read_result(directory, run), read_failure(directory, run)) for run in entry.runs
    )  # fmt: skip
    examples = read_examples(directory, entry.runs[0]) if runs[0].result else ()
    return InCondition(
        board=board,
        entry=entry,
        opponents=_opponents(analyse(leaderboard, board), name),
        runs=runs,
        examples=tuple(show(example, store) for example in examples),
        swatches=legend(examples),
    )


def _opponents(found: Statistics | None, name: str) -> tuple[Opponent, ...]:
    if found is None or name not in found.strategies:
        return ()
    at = found.strategies.index(name)
    order = np.argsort(found.rankings["mean then rank"].ranks, kind="stable")
    return tuple(
        _opponent(found.strategies[i], found.differences[at, i], found.p_values[at, i]) for i in order if i != at
    )


def _opponent(name: str, difference: float, p: float) -> Opponent:
    if np.isnan(p):
        return Opponent(name, f"{difference:+.3f}", wording.NOTHING, "too few patients differ")
    verdict = "no significant difference" if p >= ALPHA else "better" if difference > 0 else "worse"
    return Opponent(name, f"{difference:+.3f}", "< 0.001" if p < 0.001 else f"{p:.3f}", verdict)


def _pictures(leaderboard: Leaderboard, strategy: StrategyConfig, gallery: Gallery) -> list[Picture]:
    name, folder = strategy.name, f"figures/{slug(strategy.name)}"
    figure = boxes.draw(leaderboard, _beside(leaderboard.suite, name))
    pictures = [gallery.hang(figure, f"{folder}/boxes", f"Dice of each test case: {name}")]
    if against_dropout.varies(leaderboard.suite, name):
        figure = against_dropout.draw(leaderboard, name)
        caption = f"Dice against label dropout: {strategy.loss}, {name} ringed"
        pictures.append(gallery.hang(figure, f"{folder}/against_dropout", caption))
    if any(name in found.strategies for board in leaderboard.boards if (found := analyse(leaderboard, board))):
        figure = rank_stability.draw_one(leaderboard, name)
        pictures.append(gallery.hang(figure, f"{folder}/rank_stability", f"How firm its rank is: {name}"))
    return pictures


def _beside(suite: SuiteConfig, name: str) -> dict[str, Look]:
    """Looks of a strategy and of those that it is compared with: `full`, grey as everywhere, and the standard."""
    full = {s.name: looks_of(suite)[s.name] for s in suite.strategies if s.full_labels}
    own, other = looks(2)
    standard = {s.name: other for s in suite.strategies if s.name == suite.standard}
    return {**full, **standard, **({} if name in full else {name: own})}
