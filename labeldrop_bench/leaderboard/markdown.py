"""The leaderboard as a Markdown document."""

from __future__ import annotations

import html
import re

from tabulate import tabulate

from labeldrop_bench.leaderboard import wording
from labeldrop_bench.leaderboard.table import Board, Column, Entry


def render(board: Board) -> str:
    """Title, description, table with the best value of each column in bold, figure, captions, command."""
    summary, single = ([_escape(wording.header(column)) for column in part] for part in (board.summary, board.single))
    headers = ["#", "strategy", "loss", "p", *summary, *(["to full"] if board.has_full else []), "seeds", *single]
    align = ["right", "left", "left", *["right"] * (len(headers) - 3)]
    rows = [_row(board, entry) for entry in board.display]
    table = tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    parts = [
        f"# {_escape(board.suite.title)}",
        _escape(board.suite.description),
        table,
        "![Dice of drawn and undrawn classes for each strategy](drawn_vs_undrawn.png)",
        *(_escape(caption) for caption in wording.captions(board)),
        "Reproduce:",
        f"    {wording.command(board)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(board: Board, entry: Entry) -> list[str]:
    def score(column: Column) -> str:
        text = wording.number(entry.scores[column])
        return f"**{text}**" if wording.is_best(board, entry, column) else text

    strategy = entry.strategy
    gap = [wording.gap(entry)] if board.has_full else []
    return [
        wording.rank(entry), _escape(strategy.name), _escape(strategy.loss), f"{strategy.dropout:g}",
        *map(score, board.summary), *gap, wording.seeds(board, entry), *map(score, board.single),
    ]  # fmt: skip


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: one line, no markup, no table separator."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
