"""The leaderboard as CSV: full precision, one row for each strategy, an incomplete cell is an empty field."""

from __future__ import annotations

import csv
import io

from labeldrop_bench.leaderboard.reading import DIRECTION, METRIC
from labeldrop_bench.leaderboard.table import Board, Entry

COLUMNS = (
    "rank", "strategy", "loss", "dropout", "metric", "direction", "seeds_finished", "seeds", "gap_to_full",
)  # fmt: skip


def render(board: Board) -> str:
    """COLUMNS, then mean and std of every column of the board.

    The std of a single seed does not exist and is empty; so is the rank of `full`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"{column.name} {what}" for column in board.columns for what in ("mean", "std")]
    writer.writerow([*COLUMNS, *scores])
    writer.writerows(_row(board, entry) for entry in board.display)
    return text.getvalue()


def _row(board: Board, entry: Entry) -> list[object]:
    strategy, asked = entry.strategy, len(board.suite.seeds)
    fixed = (
        entry.rank, strategy.name, strategy.loss, strategy.dropout, METRIC, DIRECTION,
        asked - len(entry.missing_seeds), asked, entry.gap,
    )  # fmt: skip
    scores = (value for column in board.columns for value in (entry.scores[column].mean, entry.scores[column].std))
    return [*fixed, *scores]
