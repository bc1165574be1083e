"""The leaderboard as one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from labeldrop_bench.leaderboard import figure, wording
from labeldrop_bench.leaderboard.table import Board


def render(board: Board) -> str:
    """The page: table, figure for light and dark screens, settings, environment, command. It loads nothing."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        board=board,
        wording=wording,
        light=_data_address(figure.svg(board, "light")),
        dark=_data_address(figure.svg(board, "dark")),
        settings=_settings(board),
    )


def _data_address(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _settings(board: Board) -> dict[str, dict[str, str]]:
    """Section -> key -> value in words, as in the suite file."""
    sections = board.suite.model_dump(mode="json", include={"data", "model", "training", "augmentation"})
    return {name: {key: _words(value) for key, value in section.items()} for name, section in sections.items()}


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
