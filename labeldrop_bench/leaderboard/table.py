"""What a leaderboard consists of.

Every number of a strategy is a `Score`: one value for each seed that was asked for. A `Column` is a set of
(domain, class) cells; a seed's value in it is the plain mean of its cells, each with equal weight. What is incomplete
has no mean: a seed that has not run, or a cell in which the metric is undefined, is never averaged away.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeldrop_bench.leaderboard.reading import METRIC
from labeldrop_bench.records import METRICS, ConditionConfig, DistanceUnit, RunConfig, StrategyConfig, SuiteConfig

SUMMARY = ("unannotated", "annotated", "overall")


@dataclass(frozen=True)
class Cell:
    """One class in one domain's test set.

    Attributes:
        annotated: was the class annotated in the domain's training data? As the results of the strategies that are not
            `full` (which sees all labels) say, so it is the same for every strategy of a condition.
        images: smallest and largest number of test images in which Dice is defined, over the finished runs. They
            can differ because Dice is undefined where truth and prediction are both empty. 0 in a cell that nobody is
            scored on.
    """

    domain: str
    class_name: str
    annotated: bool
    images: tuple[int, int]

    @property
    def name(self) -> str:
        """Domain and class, with a slash between."""
        return f"{self.domain}/{self.class_name}"


@dataclass(frozen=True)
class Column:
    """A set of cells: "unannotated", "annotated" or "overall", or a single one by its own name."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Score:
    """A metric of one strategy in one column.

    Attributes:
        values: one for each seed of the suite, in its order; None where it does not exist.
    """

    values: tuple[float | None, ...]

    @classmethod
    def over(cls, scores: Iterable[Score]) -> Score:
        """The mean of several scores, seed by seed; None for a seed that lacks one of them, or of no scores."""
        seeds = list(zip(*(score.values for score in scores), strict=True))
        known = [[value for value in seed if value is not None] for seed in seeds]
        return cls(tuple(statistics.fmean(k) if len(k) == len(s) else None for k, s in zip(known, seeds, strict=True)))

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
        return bool(self.values) and None not in self.values


@dataclass(frozen=True)
class Cost:
    """What a strategy's loss costs in one training step, forward and backward pass.

    Attributes:
        seconds: median over the seeds.
        peak_bytes: the most memory that it held at once, beyond logits and target, in any of them.
    """

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: one strategy.

    Attributes:
        scores: a `Score` for each column of the board.
        runs: of the strategy, one for each seed of the suite, in its order.
        missing_seeds: seeds that were asked for and have not finished.
        rank: 1 is best; equal scores share a rank. None for `full`, the upper bound, and for incomplete scores.
        gap: the ranking score minus that of `full`, below zero where the strategy falls short; None if either is
            incomplete, and for `full` itself.
        metrics: name of each of `records.METRICS` -> a `Score` for each column of the board; Dice has `scores`.
        gap_closed: how much of the way from the suite's `standard` to `full` the strategy goes, in the ranking score:
            (strategy - standard) / (full - standard). None for `full`, if one of the three is incomplete or there is
            no such strategy, and where `full` is no better than the standard, so that there is no gap.
        cost: of the loss in a training step; None unless all seeds have finished.
        sightings: name of each of `records.SIGHTINGS` -> a `Score` for every cell, scored or not; see `presence`.
    """

    strategy: StrategyConfig
    scores: Mapping[Column, Score]
    runs: tuple[RunConfig, ...]
    missing_seeds: tuple[int, ...]
    rank: int | None
    gap: float | None
    metrics: Mapping[str, Mapping[Column, Score]]
    gap_closed: float | None
    cost: Cost | None
    sightings: Mapping[str, Mapping[Cell, Score]]


@dataclass(frozen=True)
class Board:
    """The strategies of a suite compared in one condition.

    Attributes:
        suite: everything that was asked for.
        condition: None if the suite has none.
        summary: the columns "unannotated" and "annotated", each absent when it has no cells, and "overall".
        single: a column for each cell, by domain, then class; none before a run of the condition has finished.
        unknown: cells that nobody is scored on, since nobody knows the truth in any test image.
        unshown: cells that nobody is scored on, since the truth is known and shows the class in no test image, of some
            seed at least. A score that depends on a false positive would be another quantity for each strategy.
        strategies: one entry for each strategy of the suite, in the suite's order.
        problems: sentences about anything in the results that a reader must know.
        distances: their unit.
    """

    suite: SuiteConfig
    condition: ConditionConfig | None
    summary: tuple[Column, ...]
    single: tuple[Column, ...]
    unknown: tuple[Cell, ...]
    unshown: tuple[Cell, ...]
    strategies: tuple[Entry, ...]
    problems: tuple[str, ...]
    distances: DistanceUnit

    @property
    def name(self) -> str:
        """Name of the condition; empty if the suite has none."""
        return self.condition.name if self.condition else ""

    @property
    def ranked_by(self) -> Column:
        """The column that decides the rank: "unannotated", or "overall" where nothing unannotated can be scored."""
        return deciding(self.summary)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column of scores: the summary, then the single cells."""
        return (*self.summary, *self.single)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell that strategies are scored on, by domain, then class."""
        return self.column("overall").cells

    @property
    def not_scored(self) -> tuple[Cell, ...]:
        """Every other cell."""
        return (*self.unknown, *self.unshown)

    @property
    def blind(self) -> bool:
        """Whether there are unannotated classes, and none that can be scored."""
        return self.ranked_by.name != "unannotated" and any(not cell.annotated for cell in self.not_scored)

    @property
    def display(self) -> tuple[Entry, ...]:
        """The entries in the order to show: `full`, then by rank, then the incomplete ones as in the suite."""
        return tuple(sorted(self.strategies, key=lambda e: (not e.strategy.full_labels, e.rank or math.inf)))

    @property
    def has_full(self) -> bool:
        """Whether the suite has an upper bound to compare with."""
        return any(entry.strategy.full_labels for entry in self.strategies)

    @property
    def has_gap(self) -> bool:
        """Whether the suite has both ends of the gap: `full`, and the strategy that it names as `standard`."""
        return self.has_full and any(e.strategy.name == self.suite.standard for e in self.strategies)

    @property
    def finished(self) -> int:
        """Number of finished runs of the condition."""
        return sum(len(self.suite.seeds) - len(entry.missing_seeds) for entry in self.strategies)

    @property
    def asked(self) -> int:
        """Number of runs of the condition."""
        return len(self.strategies) * len(self.suite.seeds)

    def entry(self, name: str) -> Entry:
        """The row of a strategy of the suite."""
        return next(entry for entry in self.strategies if entry.strategy.name == name)

    def column(self, name: str) -> Column:
        """The column with this name.

        Raises:
            KeyError: there is none.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"the leaderboard has no column {name!r}: choose from {[c.name for c in self.columns]}")

    def best(self, column: Column, metric: str = METRIC) -> float | None:
        """The best mean of the strategies that compete, `full` not among them; None if there is none yet."""
        competing = (entry.metrics[metric][column].mean for entry in self.strategies if not entry.strategy.full_labels)
        known = [mean for mean in competing if mean is not None]
        best = max if METRICS[metric].higher_is_better else min
        return best(known) if known else None


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard of a suite directory.

    Attributes:
        directory: where it was read from, and where the runs' cases and histories are.
        suite: everything that was asked for.
        boards: one for each condition of the suite, in its order; one alone if it has none.
        environment: key -> the different values that the finished runs recorded.
        seconds: wall-clock time of all finished runs together.
        analyses: what `statistics` has read and computed, so that all renderings share it.
    """

    directory: Path = field(compare=False)
    suite: SuiteConfig
    boards: tuple[Board, ...]
    environment: Mapping[str, tuple[str, ...]]
    seconds: float
    analyses: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def compared_by(self) -> str:
        """Name of the column in which conditions are compared: what all of them are ranked by, or else "overall"."""
        names = {board.ranked_by.name for board in self.boards if board.cells}
        return names.pop() if len(names) == 1 else "overall"

    def compared_column(self, board: Board) -> Column:
        """The column of a board in which conditions are compared; before its first run, the one that there is."""
        return board.column(self.compared_by if board.cells else "overall")

    def compared(self, board: Board, strategy: str) -> Score:
        """A strategy's score in one condition, in the column in which conditions are compared."""
        return board.entry(strategy).scores[self.compared_column(board)]

    @property
    def finished(self) -> int:
        """Number of finished runs."""
        return sum(board.finished for board in self.boards)

    @property
    def has_full(self) -> bool:
        """Whether the suite has an upper bound to compare with."""
        return any(strategy.full_labels for strategy in self.suite.strategies)

    @property
    def has_gap(self) -> bool:
        """Whether the suite has both ends of the gap."""
        return any(board.has_gap for board in self.boards)


def deciding(columns: Sequence[Column]) -> Column:
    """The column "unannotated", the first, if it is there; otherwise "overall"."""
    return next(column for column in columns if column.name in ("unannotated", "overall"))


def in_order(sequences: Iterable[Iterable[str]]) -> list[str]:
    """The names of several sequences, each once, in an order that keeps to that of the first that has two of them."""
    names: list[str] = []
    for sequence in sequences:
        place = 0
        for name in sequence:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names
