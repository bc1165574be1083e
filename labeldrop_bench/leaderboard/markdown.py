"""The leaderboard as a Markdown document."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from tabulate import tabulate

from labeldrop_bench.leaderboard import figures, presence_table, wording
from labeldrop_bench.leaderboard.reading import METRIC
from labeldrop_bench.leaderboard.significance import compare
from labeldrop_bench.leaderboard.statistics import Statistics, analyse
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard
from labeldrop_bench.records import METRICS


def render(leaderboard: Leaderboard) -> str:
    """Title, description, the tables of each condition with the best of each column in bold, figures, command.

    Raises:
        LeaderboardError: a cases.csv does not hold what it should.
    """
    suite = leaderboard.suite
    parts = [
        f"# {escape(suite.title)}",
        escape(suite.description),
        *(comparison(leaderboard) if suite.conditions else []),
        *(part for board in leaderboard.boards for part in _section(leaderboard, board)),
        escape(wording.legend(leaderboard)),
        *(f"![{figures.caption(name)}]({name}.png)" for name in figures.names_of(leaderboard)),
        "Reproduce:",
        f"    {wording.command(leaderboard)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison(leaderboard: Leaderboard) -> list[str]:
    """Strategies x conditions."""

    def score(board: Board, name: str) -> str:
        text = wording.number(leaderboard.compared(board, name))
        return f"**{text}**" if wording.compared_best(leaderboard, board, name) else text

    rows = [
        [escape(s.name), *(score(board, s.name) for board in leaderboard.boards)] for s in leaderboard.suite.strategies
    ]
    headers = ["strategy", *(escape(board.name) for board in leaderboard.boards)]
    return [
        "## All conditions",
        pipe_table(rows, headers, ["left", *["right"] * len(leaderboard.boards)]),
        escape(wording.comparison_caption(leaderboard)),
    ]


def _section(leaderboard: Leaderboard, board: Board) -> list[str]:
    """The tables of a condition, their captions, and its tests if they are asked for."""
    found = analyse(leaderboard, board)
    captions = [*wording.captions(board), *([wording.interval_caption()] if found else [])]
    return [
        f"## {escape(board.name)}" if board.name else "",
        *(f"**{escape(line)}**" for line in wording.first_line(board)),
        _dice(board, found),
        *map(escape, captions),
        *_presence(board),
        *(_metrics(board) if board.cells else []),
        *(_rankings(found) if found else []),
        *(_tests(leaderboard, board) if "wilcoxon" in board.suite.figures else []),
    ]


def _dice(board: Board, found: Statistics | None) -> str:
    """Dice of every strategy in every column; the one that ranks with its interval."""

    def score(entry: Entry, column: Column) -> list[str]:
        text = wording.number(entry.scores[column])
        text = f"**{text}**" if wording.is_best(board, entry, column) else text
        if found is None or column is not board.ranked_by:
            return [text]
        return [text, wording.interval(found.intervals.get(entry.strategy.name, {}).get(column.name))]

    def row(entry: Entry) -> list[str]:
        strategy = entry.strategy
        summary, single = ([t for c in part for t in score(entry, c)] for part in (board.summary, board.single))
        full = [wording.to_full(board, entry)] if board.has_full else []
        return [
            wording.rank(entry), escape(strategy.name), escape(strategy.loss), f"{strategy.dropout:g}",
            *summary, *full, wording.seeds(board, entry), *single,
        ]  # fmt: skip

    def header(column: Column) -> list[str]:
        name = escape(wording.header(column))
        return [name, "95 %"] if found and column is board.ranked_by else [name]

    summary, single = ([text for column in part for text in header(column)] for part in (board.summary, board.single))
    full = [wording.to_full_header(board)] if board.has_full else []
    headers = ["#", "strategy", "loss", "p", *summary, *full, "seeds", *single]
    align = ["right", "left", "left", *["right"] * (len(headers) - 3)]
    return pipe_table([row(entry) for entry in board.display], headers, align)


def _presence(board: Board) -> list[str]:
    """How often and how large the strategies find the classes that were unannotated somewhere."""
    found = presence_table.table(board)
    if found is None:
        return []
    rows = [[escape(e.strategy.name), *(", ".join(field) for field in fields)] for e, fields in found.rows]
    headers = ["strategy", *map(escape, found.headers)]
    table = pipe_table(rows, headers, ["left", *["right"] * len(found.headers)])
    shown = [f"**{presence_table.TITLE}**", table] if found.headers else []
    return [*shown, *(f"**{escape(sentence)}**" for sentence in found.shortcuts), *map(escape, found.captions)]


def _metrics(board: Board) -> list[str]:
    """The other metrics in the column that ranks, and what the loss costs."""
    others = [name for name in METRICS if name != METRIC]

    def score(entry: Entry, metric: str) -> str:
        text = wording.measure(board, entry, metric)
        return f"**{text}**" if wording.is_best(board, entry, board.ranked_by, metric) else text

    rows = [
        [
            escape(entry.strategy.name), *(score(entry, metric) for metric in others),
            wording.milliseconds(entry), wording.mebibytes(entry),
        ]
        for entry in board.display
    ]  # fmt: skip
    headers = ["strategy", *(wording.metric_heading(board, name) for name in others), "ms / step", "MiB / step"]
    table = pipe_table(rows, headers, ["left", *["right"] * (len(headers) - 1)])
    return [f"**{wording.metrics_title(board)}**", table, escape(wording.metrics_caption(board))]


def _rankings(found: Statistics) -> list[str]:
    """The three rankings, and how firm they are."""
    first = found.rankings["mean then rank"]
    rows = [
        [
            escape(name), *(wording.rank_and_range(ranking, i) for ranking in found.rankings.values()),
            wording.first_in(first, i),
        ]
        for i, name in sorted(enumerate(found.strategies), key=lambda pair: first.ranks[pair[0]])
    ]  # fmt: skip
    headers = ["strategy", *found.rankings, "first"]
    table = pipe_table(rows, headers, ["left", *["right"] * (len(headers) - 1)])
    return ["**Rankings**", table, escape(wording.ranking_caption(found))]


def _tests(leaderboard: Leaderboard, board: Board) -> list[str]:
    tests = compare(leaderboard, board)
    heads = [f"{wording.header(column)} (n = {wording.pairs(tests, i)})" for i, column in enumerate(tests.columns)]
    rows = [
        [escape(name), *(map(wording.comparison, row) if row else [wording.NOTHING] * len(heads))]
        for name, row in tests.rows.items()
    ]
    table = pipe_table(rows, ["strategy", *map(escape, heads)], ["left", *["right"] * len(heads)])
    return [f"**Compared with {escape(tests.baseline)}**", table, escape(wording.significance_caption(tests))]


def pipe_table(rows: Sequence[Sequence[str]], headers: Sequence[str], align: Sequence[str]) -> str:
    """A table of texts that are escaped already; `align` has "left" or "right" for each column."""
    return tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def escape(text: str) -> str:
    """Text that Markdown shows as it is: one line, no markup, no table separator."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
