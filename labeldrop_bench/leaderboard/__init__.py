"""Leaderboard of a suite: from its records to tables in the terminal, Markdown, CSV and HTML, and to figures."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from labeldrop_bench import records
from labeldrop_bench.leaderboard import challenger, csv, html, markdown, terminal
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
    "challenger": challenger.render,
}


def render(leaderboard: Leaderboard, format: str) -> str:  # noqa: A002 (the command line's own word)
    """The leaderboard as text: "terminal", "md", "csv", "html", or "challenger" (cases, for the R package challengeR).

    Raises:
        ValueError: another format.
        LeaderboardError: a file of a run, such as its cases, does not hold what it should.
    """
    if format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"leaderboard: format must be one of {', '.join(FORMATS)}, got {format!r}{hint}")
    return FORMATS[format](leaderboard)


def write(directory: Path) -> Leaderboard:
    """Write leaderboard.md, .csv, .html, challenger.csv and the figures as .png and .svg into a suite directory.

    Those of the suite stand in the directory itself, those of a strategy in figures/<its name>/.

    May be called after every run; each file is replaced as a whole.

    Returns:
        What was written.

    Raises:
        LeaderboardError: as `load` and `render`.
    """
    directory = Path(directory)
    leaderboard = load(directory)
    records.write_text(directory / "leaderboard.html", html.render(leaderboard, directory))  # and the figures
    for suffix in ("md", "csv"):
        records.write_text(directory / f"leaderboard.{suffix}", render(leaderboard, suffix))
    records.write_text(directory / "challenger.csv", challenger.render(leaderboard))
    return leaderboard
