"""Leaderboard of a suite: from its records to a table in the terminal, Markdown, CSV, HTML, and a figure."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from labeldrop_bench import records
from labeldrop_bench.leaderboard import csv, figure, html, markdown, terminal
from labeldrop_bench.leaderboard.reading import LeaderboardError
from labeldrop_bench.leaderboard.table import Board, load

__all__ = ["FORMATS", "Board", "LeaderboardError", "load", "render", "write"]

FORMATS: dict[str, Callable[[Board], str]] = {
    "terminal": terminal.render,
    "md": markdown.render,
    "csv": csv.render,
    "html": html.render,
}


def render(board: Board, format: str) -> str:  # noqa: A002 (the command line's own word)
    """The leaderboard as text: "terminal", "md", "csv" or "html".

    Raises:
        ValueError: another format.
    """
    if format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"leaderboard: format must be one of {', '.join(FORMATS)}, got {format!r}{hint}")
    return FORMATS[format](board)


def write(directory: Path) -> Board:
    """Write leaderboard.md, .csv, .html and drawn_vs_undrawn.png, .svg into a suite directory.

    May be called after every run; each file is replaced as a whole.

    Returns:
        What was written.

    Raises:
        LeaderboardError: as `load`.
    """
    directory = Path(directory)
    board = load(directory)
    for suffix in ("md", "csv", "html"):
        records.write_text(directory / f"leaderboard.{suffix}", render(board, suffix))
    records.write_bytes(directory / "drawn_vs_undrawn.png", figure.png(board))
    records.write_bytes(directory / "drawn_vs_undrawn.svg", figure.svg(board))
    return board
