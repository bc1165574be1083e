"""The leaderboard as one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labeldrop_bench.leaderboard import figures, wording
from labeldrop_bench.leaderboard.significance import compare
from labeldrop_bench.leaderboard.table import Leaderboard

TABLES = ("data", "model", "patches", "training", "augmentation")  # of a suite file and of its conditions


def render(leaderboard: Leaderboard) -> str:
    """The page: tables, figures for light and dark screens, settings, environment, command. It loads nothing.

    Raises:
        LeaderboardError: a file of a run, which a figure needs, does not hold what it should.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    suite = leaderboard.suite
    tested = leaderboard.boards if "wilcoxon" in suite.figures else ()
    return environment.get_template("page.html").render(
        leaderboard=leaderboard,
        suite=suite,
        wording=wording,
        tests={board.name: compare(leaderboard, board) for board in tested},
        figures=[_figure(leaderboard, name) for name in figures.names_of(suite)],
        settings=_settings(leaderboard),
    )


def _figure(leaderboard: Leaderboard, name: str) -> dict[str, str]:
    """What the page needs of a figure: its heading, and its address for light and for dark screens."""
    themes: tuple[figures.Theme, ...] = ("light", "dark")
    drawn = {theme: figures.svg(figures.FIGURES[name](leaderboard, theme)) for theme in themes}
    return {"caption": figures.caption(name), **{theme: _data_address(svg) for theme, svg in drawn.items()}}


def _data_address(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _settings(leaderboard: Leaderboard) -> dict[str, dict[str, str]]:
    """Section -> key -> value in words, as in the suite file."""
    suite = leaderboard.suite
    sections: dict[str, dict[str, Any]] = suite.model_dump(mode="json", include=set(TABLES))
    if suite.conditions:
        changes = {c.name: c.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) for c in suite.conditions}
        sections["conditions"] = changes
    return {name: {key: _words(value) for key, value in section.items()} for name, section in sections.items()}


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
