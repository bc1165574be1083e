"""From the records of a suite directory to the numbers of its leaderboard.

Every number of a strategy is a `Score`: one value for each seed that was asked for. A `Column` is a set of
(domain, class) cells; a seed's value in it is the plain mean of its cells, each with equal weight. What is incomplete
has no mean: a seed that has not run, or a cell in which Dice is undefined, is never averaged away.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labeldrop_bench.leaderboard.reading import METRIC, LeaderboardError, dice_rows, position, read_result, read_suite
from labeldrop_bench.records import RunConfig, RunResult, StrategyConfig, SuiteConfig


@dataclass(frozen=True)
class Cell:
    """One class in one domain's test set.

    Attributes:
        drawn: was the class drawn in the domain's training data? Read from the suite, so it is the same for every
            strategy, `full` (which sees all labels) included.
        images: smallest and largest number of test images in which Dice is defined, over the finished runs. They
            can differ because Dice is undefined where truth and prediction are both empty.
    """

    domain: str
    class_name: str
    drawn: bool
    images: tuple[int, int]

    @property
    def name(self) -> str:
        """Domain and class, with a slash between."""
        return f"{self.domain}/{self.class_name}"


@dataclass(frozen=True)
class Column:
    """A set of cells under one name: "undrawn", "drawn", "overall", or the cell's own name if it is a single one."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Score:
    """Dice in [0, 1] of one strategy in one column.

    Attributes:
        values: one for each seed of the suite, in its order; None where it does not exist.
    """

    values: tuple[float | None, ...]

    @property
    def present(self) -> tuple[float, ...]:
        """The values that exist."""
        return tuple(value for value in self.values if value is not None)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None unless every seed has a value."""
        return statistics.fmean(self.present) if self._complete else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None unless every seed has a value and there are two or more."""
        return statistics.stdev(self.present) if self._complete and len(self.values) >= 2 else None

    @property
    def _complete(self) -> bool:
        return None not in self.values


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: one strategy.

    Attributes:
        scores: a `Score` for each column of the board.
        missing_seeds: seeds that were asked for and have not finished.
        rank: 1 is best; equal scores share a rank. None for `full`, the upper bound, and for incomplete scores.
        gap: the ranking score minus that of `full`, below zero where the strategy falls short; None if either is
            incomplete, and for `full` itself.
    """

    strategy: StrategyConfig
    scores: Mapping[Column, Score]
    missing_seeds: tuple[int, ...]
    rank: int | None
    gap: float | None


@dataclass(frozen=True)
class Board:
    """The leaderboard of a suite directory.

    Attributes:
        suite: everything that was asked for.
        summary: the columns "undrawn" and "drawn", each absent when it has no cells, and "overall".
        single: a column for each cell, by domain, then class.
        strategies: one entry for each strategy of the suite, in the suite's order.
        environment: key -> the different values that the finished runs recorded.
        seconds: wall-clock time of all finished runs together.
        problems: sentences about anything in the results that a reader must know.
    """

    suite: SuiteConfig
    summary: tuple[Column, ...]
    single: tuple[Column, ...]
    strategies: tuple[Entry, ...]
    environment: Mapping[str, tuple[str, ...]]
    seconds: float
    problems: tuple[str, ...]

    @property
    def ranked_by(self) -> Column:
        """The column that decides the rank: "undrawn", or "overall" where nothing is undrawn."""
        return _deciding(self.summary)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column of scores: the summary, then the single cells."""
        return (*self.summary, *self.single)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell, by domain, then class."""
        return self.column("overall").cells

    @property
    def display(self) -> tuple[Entry, ...]:
        """The entries in the order to show: `full`, then by rank, then the incomplete ones as in the suite."""
        return tuple(sorted(self.strategies, key=lambda e: (not e.strategy.full_labels, e.rank or math.inf)))

    @property
    def has_full(self) -> bool:
        """Whether the suite has an upper bound to compare with."""
        return any(entry.strategy.full_labels for entry in self.strategies)

    @property
    def finished(self) -> int:
        """Number of finished runs."""
        return sum(len(self.suite.seeds) - len(entry.missing_seeds) for entry in self.strategies)

    def column(self, name: str) -> Column:
        """The column with this name.

        Raises:
            KeyError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"the leaderboard has no column {name!r}: choose from {[c.name for c in self.columns]}")

    def best(self, column: Column) -> float | None:
        """The best mean of the strategies that compete, `full` not among them; None if there is none yet."""
        competing = (entry.scores[column].mean for entry in self.strategies if not entry.strategy.full_labels)
        return max((mean for mean in competing if mean is not None), default=None)


def load(directory: Path) -> Board:
    """Read a suite directory; runs that have not finished are shown as missing.

    Raises:
        LeaderboardError: no such directory, no suite.json, no finished run, or a file that does not hold what it
            should; the message names the file.
    """
    directory = Path(directory)
    suite = read_suite(directory)
    runs = [(run, read_result(directory, run)) for run in suite.runs()]
    finished = [result for _, result in runs if result is not None]
    if not finished:
        raise LeaderboardError(
            f"leaderboard: none of the {len(runs)} runs of suite {suite.name!r} in {directory} has finished "
            f"(no runs/*/result.json): wait for the first, or start them with `labeldrop-bench run`"
        )
    cells = _cells(suite, finished)
    summary = _summary(cells)
    single = tuple(Column(cell.name, (cell,)) for cell in cells)
    return Board(
        suite=suite,
        summary=summary,
        single=single,
        strategies=_entries(suite, (*summary, *single), _deciding(summary), runs),
        environment=_environment(finished),
        seconds=math.fsum(result.seconds for result in finished),
        problems=(*_undefined(cells, runs), *_contradictions(suite, finished)),
    )


def _is_drawn(suite: SuiteConfig, domain: str, class_name: str) -> bool:
    drawn = suite.data.drawn
    return domain not in drawn or class_name in drawn[domain]


def _cells(suite: SuiteConfig, finished: Sequence[RunResult]) -> tuple[Cell, ...]:
    """Every (domain, class) that a finished run was scored on: by domain, then classes as the suite names them."""
    images: dict[tuple[str, str], list[int]] = {}
    for result in finished:
        for row in dice_rows(result):
            images.setdefault(position(row), []).append(row.n)
    if not images:
        raise LeaderboardError(
            f"leaderboard: no result.json of suite {suite.name!r} has a row with metric {METRIC!r}: "
            f"score the test set with it and run the suite again"
        )
    # `drawn` lists classes in the author's order, which beats the alphabet; the order of rows must not matter.
    named = dict.fromkeys(name for names in suite.data.drawn.values() for name in names)
    order = {name: place for place, name in enumerate(named)}
    positions = sorted(images, key=lambda p: (p[0], order.get(p[1], len(order)), p[1]))
    return tuple(Cell(*p, _is_drawn(suite, *p), (min(images[p]), max(images[p]))) for p in positions)


def _summary(cells: tuple[Cell, ...]) -> tuple[Column, ...]:
    groups = (
        Column("undrawn", tuple(cell for cell in cells if not cell.drawn)),
        Column("drawn", tuple(cell for cell in cells if cell.drawn)),
    )
    return (*(group for group in groups if group.cells), Column("overall", cells))


def _deciding(summary: Sequence[Column]) -> Column:
    """The column "undrawn", the first, if it is there; otherwise "overall", the last."""
    return summary[0] if summary[0].name == "undrawn" else summary[-1]


def _value(result: RunResult | None, cells: Sequence[Cell]) -> float | None:
    """Mean Dice of one run over some cells; None if one of them is missing or not a number."""
    if result is None:
        return None
    dice = {position(row): row.value for row in dice_rows(result)}
    values = [dice.get((cell.domain, cell.class_name)) for cell in cells]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if len(known) == len(values) else None


def _entries(
    suite: SuiteConfig,
    columns: Sequence[Column],
    deciding: Column,
    runs: Sequence[tuple[RunConfig, RunResult | None]],
) -> tuple[Entry, ...]:
    """One entry for each strategy, ranks and gaps included."""
    of = {s.name: [(run.seed, result) for run, result in runs if run.strategy.name == s.name] for s in suite.strategies}
    scores = {
        name: {column: Score(tuple(_value(result, column.cells) for _, result in seeds)) for column in columns}
        for name, seeds in of.items()
    }
    means = {name: by_column[deciding].mean for name, by_column in scores.items()}
    upper = next((means[s.name] for s in suite.strategies if s.full_labels), None)
    competing = {s.name: means[s.name] for s in suite.strategies if not s.full_labels}

    def entry(strategy: StrategyConfig) -> Entry:
        mean = competing.get(strategy.name)
        better = [other for other in competing.values() if other is not None and mean is not None and other > mean]
        return Entry(
            strategy=strategy,
            scores=scores[strategy.name],
            missing_seeds=tuple(seed for seed, result in of[strategy.name] if result is None),
            rank=None if mean is None else 1 + len(better),
            gap=None if mean is None or upper is None else mean - upper,
        )

    return tuple(entry(strategy) for strategy in suite.strategies)


def _environment(finished: Sequence[RunResult]) -> dict[str, tuple[str, ...]]:
    keys = sorted({key for result in finished for key in result.environment})
    return {
        key: tuple(sorted({result.environment[key] for result in finished if key in result.environment}))
        for key in keys
    }


def _undefined(cells: Sequence[Cell], runs: Sequence[tuple[RunConfig, RunResult | None]]) -> list[str]:
    """One sentence for each finished run that lacks the Dice of a cell."""
    lacking = {
        f"{run.strategy.name}, seed {run.seed}": [cell.name for cell in cells if _value(result, [cell]) is None]
        for run, result in runs
        if result is not None
    }
    return [f"{run}: Dice is undefined in {', '.join(names)}." for run, names in lacking.items() if names]


def _contradictions(suite: SuiteConfig, finished: Sequence[RunResult]) -> list[str]:
    """A sentence if the strategies with undrawn labels did not see the labels that the suite says were drawn."""
    full = {strategy.name for strategy in suite.strategies if strategy.full_labels}
    wrong = sorted(
        {
            f"{row.domain}/{row.class_}"
            for result in finished
            for row in dice_rows(result)
            if row.strategy not in full and row.annotated != _is_drawn(suite, *position(row))
        }
    )
    if not wrong:
        return []
    return [
        f"The results disagree with data.drawn of suite.json about whether these were drawn in training: "
        f"{', '.join(wrong)}. The table follows suite.json."
    ]
