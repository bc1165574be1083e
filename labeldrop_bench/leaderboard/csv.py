"""The leaderboard as CSV: full precision, a row for each strategy in each condition; what is incomplete is empty."""

from __future__ import annotations

import csv
import io

from labeldrop_bench.leaderboard.reading import DIRECTION, METRIC
from labeldrop_bench.leaderboard.table import SUMMARY, Board, Entry, Leaderboard, in_order
from labeldrop_bench.records import METRICS

COLUMNS = (
    "condition", "rank", "strategy", "loss", "dropout", "metric", "direction", "ranked_by", "distances",
    "seeds_finished", "seeds", "gap_to_full", "gap_closed", "loss_ms", "loss_mib",
)  # fmt: skip
OTHERS = tuple(name for name in METRICS if name != METRIC)


def render(leaderboard: Leaderboard) -> str:
    """COLUMNS, mean and std of Dice in every column of the boards, and of the other metrics in the one that ranks.

    The std of a single seed does not exist and is empty; so is the rank of `full`. Times are in milliseconds and memory
    in MiB for a training step; `distances` is the unit of hd95 and of the tolerance of nsd.
    """
    boards = leaderboard.boards
    summary = {column.name for board in boards for column in board.summary}
    single = in_order([column.name for column in board.single] for board in boards)
    names = [*(name for name in SUMMARY if name in summary), *single]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [*names, *OTHERS]
    writer.writerow([*COLUMNS, *(f"{name} {what}" for name in scores for what in ("mean", "std"))])
    writer.writerows(_row(board, entry, names) for board in boards for entry in board.display)
    return text.getvalue()


def _row(board: Board, entry: Entry, names: list[str]) -> list[object]:
    strategy, asked = entry.strategy, len(board.suite.seeds)
    fixed = (
        board.name, entry.rank, strategy.name, strategy.loss, strategy.dropout, METRIC, DIRECTION, board.ranked_by.name,
        board.distances, asked - len(entry.missing_seeds), asked, entry.gap, entry.gap_closed, *_cost(entry),
    )  # fmt: skip
    by_name = {column.name: score for column, score in entry.scores.items()}
    scores = [*(by_name.get(name) for name in names), *(entry.metrics[name][board.ranked_by] for name in OTHERS)]
    return [*fixed, *(value for score in scores for value in ((score.mean, score.std) if score else (None, None)))]


def _cost(entry: Entry) -> tuple[float | None, float | None]:
    """Milliseconds, MiB."""
    return (None, None) if entry.cost is None else (1e3 * entry.cost.seconds, entry.cost.peak_bytes / 2**20)
