"""The leaderboard as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from labeldrop_bench.leaderboard import figures, presence_table, wording
from labeldrop_bench.leaderboard.page.examples import Store
from labeldrop_bench.leaderboard.page.gallery import Gallery
from labeldrop_bench.leaderboard.page.strategies import section, slug
from labeldrop_bench.leaderboard.page.tables import table
from labeldrop_bench.leaderboard.page.verdict import verdict
from labeldrop_bench.leaderboard.reading import read_failure
from labeldrop_bench.leaderboard.significance import compare
from labeldrop_bench.leaderboard.statistics import Statistics, analyse
from labeldrop_bench.leaderboard.table import Board, Leaderboard
from labeldrop_bench.records import RunFailure
from labeldrop_bench.text import read_text

PAGE = Path(__file__).parent / "page"
TABLES = ("data", "model", "patches", "training", "augmentation", "scoring")  # of a suite file


def render(leaderboard: Leaderboard, directory: Path | None = None) -> str:
    """The page. It loads nothing, and forbids the browser to.

    Args:
        leaderboard: of the suite.
        directory: where the figures are kept as files too, if anywhere.

    Raises:
        LeaderboardError: a file of a run does not hold what it should.
    """
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    gallery, store = Gallery(directory), Store()
    suite, script = leaderboard.suite, read_text(PAGE / "page.js")
    tested = leaderboard.boards if "wilcoxon" in suite.figures else ()
    failures = _failures(leaderboard)
    return environment.get_template("page.html").render(
        leaderboard=leaderboard,
        suite=suite,
        wording=wording,
        presence_title=presence_table.TITLE,
        slug=slug,
        views=[_view(leaderboard, board, failures) for board in leaderboard.boards],
        failures=failures,
        tests={board.name: compare(leaderboard, board) for board in tested},
        pictures=[
            gallery.hang(figures.FIGURES[name](leaderboard), name, figures.caption(name))
            for name in figures.names_of(leaderboard)
        ],
        sections=[section(leaderboard, strategy, gallery, store) for strategy in suite.strategies],
        images=store.addresses,
        settings=_settings(leaderboard),
        colours={theme: figures.variables(dark=theme == "dark") for theme in ("light", "dark")},
        style=Markup(read_text(PAGE / "page.css")),  # noqa: S704 - our own file, as is the script
        script=Markup(script),  # noqa: S704
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _view(leaderboard: Leaderboard, board: Board, failures: list[RunFailure]) -> dict[str, Any]:
    """What the page needs of a condition: its table, verdict and captions."""
    found = analyse(leaderboard, board)
    failed = {failure.run for failure in failures}
    counts = {e.strategy.name: sum(run.run in failed for run in e.runs) for e in board.strategies}
    captions = [*wording.captions(board), *([wording.interval_caption()] if found else [])]
    if board.cells:
        captions += [wording.metrics_caption(board)]
    return {
        "board": board,
        "table": table(board, found, counts),
        "verdict": verdict(board, found),
        "captions": captions,
        "first": wording.first_line(board),
        "presence": presence_table.table(board),
        "rankings": _rankings(found) if found else None,
    }


def _rankings(found: Statistics) -> dict[str, Any]:
    """The three rankings as a table, best first."""
    first = found.rankings["mean then rank"]
    order = sorted(range(len(found.strategies)), key=lambda i: first.ranks[i])
    ranks = {i: [wording.rank_and_range(ranking, i) for ranking in found.rankings.values()] for i in order}
    return {
        "headings": [*found.rankings, "first"],
        "rows": [(found.strategies[i], [*ranks[i], wording.first_in(first, i)]) for i in order],
        "caption": wording.ranking_caption(found),
    }


def _failures(leaderboard: Leaderboard) -> list[RunFailure]:
    """Of the runs that have not been done since."""
    runs = [run for board in leaderboard.boards for entry in board.strategies for run in entry.runs]
    found = [read_failure(leaderboard.directory, run) for run in runs]
    return [failure for failure in found if failure is not None]


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
