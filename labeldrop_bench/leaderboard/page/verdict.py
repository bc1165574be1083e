"""The winner of a condition, and how sure that is, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeldrop_bench.leaderboard import wording
from labeldrop_bench.leaderboard.statistics import Statistics
from labeldrop_bench.leaderboard.statistics.rankings import ALPHA
from labeldrop_bench.leaderboard.table import Board, Entry

FEW = 4  # names that a sentence can bear


@dataclass(frozen=True)
class Verdict:
    """A sentence around the names of the winners.

    Attributes:
        before: the names.
        winners: strategies that share the first rank; none before one is complete.
        after: the names.
        notes: further sentences.
    """

    before: str
    winners: tuple[str, ...]
    after: str
    notes: tuple[str, ...]


def verdict(board: Board, found: Statistics | None) -> Verdict:
    """Who is first, by how much, and against whom that is significant."""
    first = [entry for entry in board.strategies if entry.rank == 1]
    if not first:
        return Verdict("No strategy is complete yet.", (), "", ())
    if _dice(board, first[0]) == f"{0:.3f}":
        nothing = (
            f"No strategy finds anything, Dice of {_where(board)} is 0: train longer, or with another learning rate."
        )
        return Verdict(nothing, (), "", ())
    complete = sum(entry.rank is not None for entry in board.strategies)
    competing = sum(not entry.strategy.full_labels for entry in board.strategies)
    so_far = "" if complete == competing else f" of the {complete} of {competing} strategies that are complete"
    names = tuple(entry.strategy.name for entry in first)
    before = f"Best on {_where(board)}{so_far}:"
    if len(first) > 1 or found is None:
        why = "" if found else "; how sure that is cannot be said without a second complete strategy and common cases"
        return Verdict(before, names, f"(Dice {_dice(board, first[0])}){why}.", ())
    return Verdict(before, names, *_against_others(board, first[0], found))


def _where(board: Board) -> str:
    if board.ranked_by.name == "unannotated":
        return "unannotated classes"
    return "what can be scored" if board.blind else "all classes"


def _dice(board: Board, entry: Entry) -> str:
    return f"{entry.scores[board.ranked_by].mean:.3f}"


def _against_others(board: Board, entry: Entry, found: Statistics) -> tuple[str, tuple[str, ...]]:
    name = entry.strategy.name
    interval = found.intervals.get(name, {}).get(board.ranked_by.name)
    among = f", 95 % interval {interval.low:.3f} to {interval.high:.3f}" if interval else ""
    at = found.strategies.index(name)
    beaten = (found.p_values[at] < ALPHA) & (found.differences[at] > 0)
    others = len(found.strategies) - 1
    order = np.argsort(found.rankings["mean then rank"].ranks, kind="stable")
    open_ones = [found.strategies[i] for i in order if i != at and not beaten[i]]
    after = (
        f"(Dice {_dice(board, entry)}{among}), significantly better than {int(beaten.sum())} of {others} "
        f"other{'s' if others > 1 else ''} (Wilcoxon's signed-rank test over {found.patients} patients, "
        f"p < {ALPHA:g} after Holm)."
    )
    share = wording.first_in(found.rankings["mean then rank"], at)
    notes = [f"It comes first in {share} of the bootstrap samples of patients."]
    if open_ones:
        more = f" and {len(open_ones) - FEW} more" if len(open_ones) > FEW else ""
        notes.append(f"No significant difference to {'; '.join(open_ones[:FEW])}{more}.")
    notes.append(wording.of_trainings(entry.scores[board.ranked_by]))
    return after, tuple(notes)
