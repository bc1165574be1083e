"""The presence gap: is a class found where it was unannotated as often as where it was annotated? No truth is needed.

A network that has learnt "images like these never have the class" finds it in few images of the one domain and in most
of the other. `records.sightings` says when a class counts as found.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from labeldrop_bench.leaderboard.table import Board, Cell, Entry, Score

MOST_IMAGES = 0.5  # of a domain: with fewer even where it was annotated, a class is rare, or was not learnt
FEW_IMAGES = 0.5  # of the share where it was annotated
MOST = 6  # gaps in a table


@dataclass(frozen=True)
class Gap:
    """A cell that was unannotated, and the cells of the same class that were annotated."""

    cell: Cell
    annotated: tuple[Cell, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Where the class was annotated."""
        return tuple(cell.domain for cell in self.annotated)


@dataclass(frozen=True)
class Found:
    """How often and how large a strategy finds a class in some domains, each with equal weight, mean over the seeds.

    Attributes:
        share: of the test images; None if it is not known for every seed and domain.
        size: pixels, where it is found; None if that is nowhere.
    """

    share: float | None
    size: float | None


@dataclass(frozen=True)
class Shortcut:
    """A strategy that finds a class in few images where it was unannotated, and in most where it was annotated."""

    entry: Entry
    gap: Gap
    found: float
    annotated: float


def gaps(board: Board) -> tuple[Gap, ...]:
    """Every cell that was unannotated, scored or not, by domain, then class as in the results."""
    cells = (*board.cells, *board.not_scored)
    return tuple(
        Gap(cell, tuple(c for c in cells if c.annotated and c.class_name == cell.class_name))
        for cell in cells
        if not cell.annotated
    )


def recorded(board: Board) -> bool:
    """Whether any finished run says where it finds the classes."""
    return any(score.present for entry in board.strategies for score in entry.sightings["presence"].values())


def found(entry: Entry, cells: Sequence[Cell]) -> Found:
    """What a strategy finds of a class in some domains."""
    share = Score.over(entry.sightings["presence"][cell] for cell in cells).mean
    sizes = [size for cell in cells for size in entry.sightings["size"][cell].present]
    return Found(share, statistics.fmean(sizes) if sizes and share is not None else None)


def shortcuts(board: Board) -> tuple[Shortcut, ...]:
    """What looks like the shortcut, the widest gaps first."""
    seen = [shortcut(entry, gap) for gap in gaps(board) for entry in board.strategies]
    return tuple(sorted((s for s in seen if s is not None), key=lambda s: s.found / s.annotated))


def shortcut(entry: Entry, gap: Gap) -> Shortcut | None:
    """A gap of a strategy, if the class is found in few images against most; None if it is not, or not known."""
    here, there = found(entry, [gap.cell]).share, found(entry, gap.annotated).share
    if here is None or there is None or there < MOST_IMAGES or here >= FEW_IMAGES * there:
        return None
    return Shortcut(entry, gap, here, there)


@dataclass(frozen=True)
class PresenceColumn:
    """A column of the table of presence.

    Attributes:
        cells: one that was unannotated, or all of a class that were annotated.
        gap: None where they were annotated.
    """

    cells: tuple[Cell, ...]
    gap: Gap | None


def columns(board: Board) -> tuple[PresenceColumn, ...]:
    """Class by class: where it was unannotated, then, in one column, where it was annotated.

    Of many gaps the widest MOST, of any strategy.
    """
    kept = sorted(gaps(board), key=lambda gap: _share_left(board, gap))[:MOST]
    of_class: dict[str, list[Gap]] = {}
    for gap in gaps(board):
        if gap in kept:
            of_class.setdefault(gap.cell.class_name, []).append(gap)
    found: list[PresenceColumn] = []
    for of in of_class.values():
        found += [PresenceColumn((gap.cell,), gap) for gap in of]
        found += [PresenceColumn(of[0].annotated, None)] if of[0].annotated else []
    return tuple(found)


def _share_left(board: Board, gap: Gap) -> float:
    """The least that any strategy's share is of that where the class was annotated."""
    pairs = [(found(e, [gap.cell]).share, found(e, gap.annotated).share) for e in board.strategies]
    return min((here / there for here, there in pairs if here is not None and there), default=float("inf"))
