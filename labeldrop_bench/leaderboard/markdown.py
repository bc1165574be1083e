"""The leaderboard as a Markdown document."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from tabulate import tabulate

from labeldrop_bench.leaderboard import figures, wording
from labeldrop_bench.leaderboard.significance import compare
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard


def render(leaderboard: Leaderboard) -> str:
    """Title, description, a table for each condition with the best of each column in bold, captions, figures, command.

    Raises:
        LeaderboardError: a cases.csv that a table of tests needs does not hold what it should.
    """
    suite = leaderboard.suite
    parts = [
        f"# {_escape(suite.title)}",
        _escape(suite.description),
        *(_comparison(leaderboard) if suite.conditions else []),
        *(part for board in leaderboard.boards for part in _section(leaderboard, board)),
        _escape(wording.legend(leaderboard)),
        *(f"![{figures.caption(name)}]({name}.png)" for name in figures.names_of(suite)),
        "Reproduce:",
        f"    {wording.command(leaderboard)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _comparison(leaderboard: Leaderboard) -> list[str]:
    """Strategies x conditions."""

    def score(board: Board, name: str) -> str:
        text = wording.number(leaderboard.compared(board, name))
        return f"**{text}**" if wording.compared_best(leaderboard, board, name) else text

    rows = [
        [_escape(s.name), *(score(board, s.name) for board in leaderboard.boards)] for s in leaderboard.suite.strategies
    ]
    headers = ["strategy", *(_escape(board.name) for board in leaderboard.boards)]
    return [
        "## All conditions",
        _table(rows, headers, ["left", *["right"] * len(leaderboard.boards)]),
        _escape(wording.comparison_caption(leaderboard)),
    ]


def _section(leaderboard: Leaderboard, board: Board) -> list[str]:
    """The table of a condition, its captions, and its tests if they are asked for."""
    summary, single = ([_escape(wording.header(column)) for column in part] for part in (board.summary, board.single))
    headers = ["#", "strategy", "loss", "p", *summary, *(["to full"] if board.has_full else []), "seeds", *single]
    align = ["right", "left", "left", *["right"] * (len(headers) - 3)]
    return [
        f"## {_escape(board.name)}" if board.name else "",
        _table([_row(board, entry) for entry in board.display], headers, align),
        *(_escape(caption) for caption in wording.captions(board)),
        *(_tests(leaderboard, board) if "wilcoxon" in board.suite.figures else []),
    ]


def _tests(leaderboard: Leaderboard, board: Board) -> list[str]:
    tests = compare(leaderboard, board)
    heads = [f"{wording.header(column)} (n = {wording.pairs(tests, i)})" for i, column in enumerate(tests.columns)]
    rows = [
        [_escape(name), *(map(wording.comparison, row) if row else [wording.NOTHING] * len(heads))]
        for name, row in tests.rows.items()
    ]
    table = _table(rows, ["strategy", *map(_escape, heads)], ["left", *["right"] * len(heads)])
    return [f"**Compared with {_escape(tests.baseline)}**", table, _escape(wording.significance_caption(tests))]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], align: Sequence[str]) -> str:
    return tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


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
