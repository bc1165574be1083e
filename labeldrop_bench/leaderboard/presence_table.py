"""The table of the presence gap, and what it means, in words that every rendering shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labeldrop_bench.leaderboard import presence, wording
from labeldrop_bench.leaderboard.presence import PresenceColumn, Shortcut
from labeldrop_bench.leaderboard.table import Board, Entry

TITLE = "Presence: the share of test images in which a class is found, and its size"
FEW = "\N{BLACK DOWN-POINTING TRIANGLE}"  # a class that is found in few images, against most where it was annotated


@dataclass(frozen=True)
class PresenceTable:
    """What a rendering shows.

    Attributes:
        headers: of the columns after the strategy's name; none if there is nothing to show but the captions.
        rows: for each strategy, as displayed, share and size in each column.
        shortcuts: a sentence for each strategy that finds a class in few images, the widest gaps first.
        captions: further sentences.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[Entry, tuple[tuple[str, str], ...]], ...]
    shortcuts: tuple[str, ...]
    captions: tuple[str, ...]


def table(board: Board) -> PresenceTable | None:
    """The table of a condition; None where every class was annotated everywhere, and before the first run."""
    gaps = presence.gaps(board)
    if not gaps or not board.finished:
        return None
    if not presence.recorded(board):
        return PresenceTable((), (), (), ("Presence: these runs did not record in which images they find a class.",))
    columns = presence.columns(board)
    left_out = len(gaps) - sum(column.gap is not None for column in columns)
    more = f" {left_out} more pairs of class and domain are in results.csv." if left_out else ""
    return PresenceTable(
        tuple(map(_header, columns)),
        tuple((entry, tuple(_found(entry, column) for column in columns)) for entry in board.display),
        tuple(shortcuts(board)),
        (_caption() + more,),
    )


def shortcuts(board: Board) -> list[str]:
    """A sentence for each strategy that finds a class in few images, the widest gaps first."""
    seen, most = presence.shortcuts(board), wording.NAMED
    more = [f"There are {len(seen) - most} more such gaps."] * (len(seen) > most)
    return [*(_sentence(board, one) for one in seen[:most]), *more]


def _header(column: PresenceColumn) -> str:
    """Class and domains."""
    cell = column.cells[0]
    return f"{cell.class_name} on {_listed([c.domain for c in column.cells])}{wording.mark(cell)}"


def _found(entry: Entry, column: PresenceColumn) -> tuple[str, str]:
    """Share and size; the share with a mark if it is small against that where the class was annotated."""
    found = presence.found(entry, column.cells)
    few = f"{FEW} " if column.gap and presence.shortcut(entry, column.gap) else ""
    share = wording.NOTHING if found.share is None else f"{few}{_percent(found.share)}"
    return share, wording.NOTHING if found.size is None else f"{found.size:.0f} px"


def _sentence(board: Board, seen: Shortcut) -> str:
    cell, strategy = seen.gap.cell, seen.entry.strategy
    other = not any(c.domain == cell.domain and c.annotated for c in (*board.cells, *board.not_scored))
    why, taught = "the shortcut", cell not in board.unknown  # where nobody knows the truth `full` had no labels either
    if taught and strategy.full_labels:
        why = "although it was trained on all labels"
    elif taught and any(e.strategy.full_labels and presence.shortcut(e, seen.gap) for e in board.strategies):
        why = "as full does, which was trained on all labels, so it need not be the shortcut"
    elif other:
        why = f"nothing of {cell.domain} was annotated"
    return (
        f"{strategy.name} finds {cell.class_name} in {_percent(seen.found)} of the images of {cell.domain}, against "
        f"{_percent(seen.annotated)} of those of {_listed(seen.gap.domains)}, where it was annotated: {why}."
    )


def _caption() -> str:
    return (
        "Found: predicted on at least a tenth of the pixels of the median image where the class was annotated. px: "
        "mean number of pixels in those. Seeds and domains weigh equally; no truth is needed. "
        f"{FEW}: in fewer than half as many images as where it was annotated, and there in most; a class can be rarer."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
