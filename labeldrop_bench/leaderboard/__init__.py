"""Leaderboard of a suite: from its records to tables in the terminal, Markdown, CSV and HTML, and to figures."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from labeldrop_bench import records
from labeldrop_bench.leaderboard import csv, figures, html, markdown, terminal
from labeldrop_bench.leaderboard.figures import check_figures, figure_names
from labeldrop_bench.leaderboard.loading import load
from labeldrop_bench.leaderboard.reading import LeaderboardError
from labeldrop_bench.leaderboard.table import Board, Leaderboard

__all__ = [
    "FORMATS", "Board", "Leaderboard", "LeaderboardError", "check_figures", "figure_names", "load", "render", "write",
]  # fmt: skip

FORMATS: dict[str, Callable[[Leaderboard], str]] = {
    "terminal": terminal.render,
    "md": markdown.render,
    "csv": csv.render,
    "html": html.render,
}


def render(leaderboard: Leaderboard, format: str) -> str:  # noqa: A002 (the command line's own word)
    """The leaderboard as text: "terminal", "md", "csv" or "html".

    Raises:
        ValueError: another format.
        LeaderboardError: a file of a run, which a figure needs, does not hold what it should.
    """
    if format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"leaderboard: format must be one of {', '.join(FORMATS)}, got {format!r}{hint}")
    return FORMATS[format](leaderboard)


def write(directory: Path) -> Leaderboard:
    """Write leaderboard.md, .csv, .html and the figures as .png and .svg into a suite directory.

    May be called after every run; each file is replaced as a whole.

    Returns:
        What was written.

    Raises:
        LeaderboardError: as `load` and `render`.
    """
    directory = Path(directory)
    leaderboard = load(directory)
    for suffix in ("md", "csv", "html"):
        records.write_text(directory / f"leaderboard.{suffix}", render(leaderboard, suffix))
    for name in figures.names_of(leaderboard.suite):
        figure = figures.FIGURES[name](leaderboard, "light")
        records.write_bytes(directory / f"{name}.png", figures.png(figure))
        records.write_bytes(directory / f"{name}.svg", figures.svg(figure))
    return leaderboard
