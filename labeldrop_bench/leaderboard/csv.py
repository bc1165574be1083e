"""The leaderboard as CSV: full precision, a row for each strategy in each condition; what is incomplete is empty."""

from __future__ import annotations

import csv
import io

from labeldrop_bench.leaderboard.reading import DIRECTION, METRIC
from labeldrop_bench.leaderboard.table import SUMMARY, Board, Entry, Leaderboard, in_order

COLUMNS = (
    "condition", "rank", "strategy", "loss", "dropout", "metric", "direction", "seeds_finished", "seeds", "gap_to_full",
)  # fmt: skip


def render(leaderboard: Leaderboard) -> str:
    """COLUMNS, then mean and std of every column of the boards.

    The std of a single seed does not exist and is empty; so is the rank of `full`.
    """
    boards = leaderboard.boards
    summary = {column.name for board in boards for column in board.summary}
    single = in_order([column.name for column in board.single] for board in boards)
    names = [*(name for name in SUMMARY if name in summary), *single]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{name} {what}" for name in names for what in ("mean", "std"))])
    writer.writerows(_row(board, entry, names) for board in boards for entry in board.display)
    return text.getvalue()


def _row(board: Board, entry: Entry, names: list[str]) -> list[object]:
    strategy, asked = entry.strategy, len(board.suite.seeds)
    fixed = (
        board.name, entry.rank, strategy.name, strategy.loss, strategy.dropout, METRIC, DIRECTION,
        asked - len(entry.missing_seeds), asked, entry.gap,
    )  # fmt: skip
    by_name = {column.name: score for column, score in entry.scores.items()}
    scores = (by_name.get(name) for name in names)
    return [*fixed, *(value for score in scores for value in ((score.mean, score.std) if score else (None, None)))]
