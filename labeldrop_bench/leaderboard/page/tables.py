"""The main table of a condition: what stands in it, and by what its columns are sorted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labeldrop_bench.leaderboard import wording
from labeldrop_bench.leaderboard.reading import METRIC
from labeldrop_bench.leaderboard.statistics import Statistics
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Score
from labeldrop_bench.records import METRICS


@dataclass(frozen=True)
class Heading:
    """The head of a column.

    Attributes:
        text: what it says.
        first: order in which a reader sorts it first: "ascending" or "descending".
        title: what it is, in more words.
        decides: whether the strategies are ranked by it.
    """

    text: str
    first: str = "descending"
    title: str = ""
    decides: bool = False


@dataclass(frozen=True)
class Field:
    """A field of the table.

    Attributes:
        text: the number or name.
        key: what it is sorted by; empty sorts last.
        notes: small lines below it.
        best: whether it is the best of those that compete.
        decides: whether its column decides the rank.
    """

    text: str
    key: str
    notes: tuple[str, ...] = ()
    best: bool = False
    decides: bool = False


@dataclass(frozen=True)
class Row:
    """A strategy, with its fields after rank and name."""

    entry: Entry
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Table:
    """The main table of a condition.

    Attributes:
        headings: of the fields after rank and name.
        rows: best first.
        losses, dropouts: the different ones, to filter by.
    """

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    losses: tuple[str, ...] = field(default=())
    dropouts: tuple[str, ...] = field(default=())


def table(board: Board, found: Statistics | None, failures: Mapping[str, int]) -> Table:
    """The table of a condition.

    Args:
        board: of the condition.
        found: intervals, if there are any.
        failures: strategy -> how many of its runs failed.
    """
    strategies = [entry.strategy for entry in board.strategies]
    return Table(
        headings=_headings(board),
        rows=tuple(Row(e, _fields(board, e, found, failures.get(e.strategy.name, 0))) for e in board.display),
        losses=tuple(sorted({s.loss for s in strategies})),
        dropouts=tuple(f"{p:g}" for p in sorted({s.dropout for s in strategies})),
    )


def _headings(board: Board) -> tuple[Heading, ...]:
    by, unit = board.ranked_by.name, (board.distances,)
    others = [
        Heading(
            wording.metric_heading(board, name), "descending" if metric.higher_is_better else "ascending",
            ", ".join([f"{metric.title} of the column {by}", *(unit if metric.is_distance else ()), metric.direction]),
        )
        for name, metric in METRICS.items() if name != METRIC
    ]  # fmt: skip
    return (
        Heading("loss", "ascending"),
        Heading("p", "ascending", "label dropout probability"),
        *(_dice_heading(board, column) for column in board.summary),
        *([Heading(wording.to_full_header(board))] if board.has_full else []),
        *others,
        Heading("ms/step", "ascending", "time of the loss in a training step, forward and backward pass"),
        Heading("MiB/step", "ascending", "peak memory of the loss in a training step"),
        Heading("seeds", title="finished of those asked for"),
        *(_dice_heading(board, column) for column in board.single),
    )


def _dice_heading(board: Board, column: Column) -> Heading:
    return Heading(wording.header(column), title="Dice, higher is better", decides=column == board.ranked_by)


def _fields(board: Board, entry: Entry, found: Statistics | None, failed: int) -> tuple[Field, ...]:
    strategy, cost = entry.strategy, entry.cost
    gap = entry.gap_closed if board.has_gap else entry.gap
    return (
        Field(strategy.loss, strategy.loss),
        Field(f"{strategy.dropout:g}", repr(strategy.dropout)),
        *(_dice(board, entry, column, found) for column in board.summary),
        *([Field(wording.to_full(board, entry), _key(gap))] if board.has_full else []),
        *(_metric(board, entry, name) for name in METRICS if name != METRIC),
        Field(wording.milliseconds(entry), _key(cost.seconds if cost else None)),
        Field(wording.mebibytes(entry), _key(cost.peak_bytes if cost else None)),
        Field(
            wording.seeds(board, entry), str(len(board.suite.seeds) - len(entry.missing_seeds)),
            (f"\N{BALLOT X} {failed} failed",) if failed else (),
        ),
        *(_dice(board, entry, column, found) for column in board.single),
    )  # fmt: skip


def _dice(board: Board, entry: Entry, column: Column, found: Statistics | None) -> Field:
    score, decides = entry.scores[column], column == board.ranked_by
    interval = found.intervals.get(entry.strategy.name, {}).get(column.name) if found and decides else None
    notes = (f"95 %: {interval.low:.3f} to {interval.high:.3f}",) if interval else ()
    return _score(score, wording.number(score), notes, best=wording.is_best(board, entry, column), decides=decides)


def _metric(board: Board, entry: Entry, name: str) -> Field:
    score = entry.metrics[name][board.ranked_by]
    return _score(score, wording.measure(board, entry, name), best=wording.is_best(board, entry, board.ranked_by, name))


def _score(score: Score, text: str, notes: tuple[str, ...] = (), *, best: bool, decides: bool = False) -> Field:
    mean, _, spread = text.partition(" ")
    return Field(mean, _key(score.mean), (*([spread] if spread else []), *notes), best, decides)


def _key(value: float | None) -> str:
    return "" if value is None else repr(value)
