"""LEADERBOARD.md: its making, on invented results, and that the one of this repository is up to date."""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from invented import write_suite

from labeldrop_bench import submit
from labeldrop_bench.records import SuiteConfig

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "leaderboard.py"

if not SCRIPT.exists():
    pytest.skip("benchmarks/ is not in this copy of the sources", allow_module_level=True)
_spec = spec_from_file_location("leaderboard_md", SCRIPT)  # its folder is not on the path
assert _spec is not None
assert _spec.loader is not None
generator: Any = module_from_spec(_spec)
_spec.loader.exec_module(generator)

DOMAINS = {"A": ("LV", "LA"), "B": ("LV", "LA")}
DATA = {"name": "phantom", "hidden": {"B": ["LA"]}}
FULL = {"name": "full", "loss": "ce", "full_labels": True}


def _results(root: Path, name: str, strategies: list[dict[str, Any]], **suite: Any) -> Path:
    config = {"name": name, "title": f"Title of {name}", "data": DATA, "strategies": [FULL, *strategies], **suite}
    source = write_suite(root / "runs" / name, SuiteConfig.model_validate(config), domains=DOMAINS)
    submit.merge(submit.check(source), root / "results" / name)
    return root / "results" / name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with results of three suites: an ordinary one, one with conditions, one with many strategies."""
    few = [{"name": "standard", "loss": "ce"}, {"name": "marginal | dropout", "loss": "marginal_ce", "dropout": 0.3}]
    _results(tmp_path, "quick", few, seeds=[0, 1, 2])
    conditions = [{"name": "near"}, {"name": "far", "data": {"gap": 1.0}}]
    _results(tmp_path, "afterwards", few, conditions=conditions)
    losses = ("ce", "dice", "bce", "smile", "adaptive_ce", "leaf_dice")
    grid = [{"name": f"{loss} {p}", "loss": loss, "dropout": p} for loss in losses for p in (0.0, 0.1, 0.3, 0.5)]
    _results(tmp_path, "all", grid[:-1])
    return tmp_path


def test_it_says_who_is_first_how_sure_that_is_and_what_was_run(root: Path) -> None:
    assert generator.main([], root) == 0
    text = (root / "LEADERBOARD.md").read_text()
    order = [line for line in text.splitlines() if line.startswith("## ")]
    assert order == ["## Title of quick", "## Title of all", "## Title of afterwards"]
    quick, many, conditions = text.split("\n## ")[1:]
    assert "**marginal \\| dropout** is first: Dice 0." in quick
    assert "on the unannotated classes (LA on B). 95 % interval over 10 patients 0." in quick
    assert "first in 100 % of the bootstrap samples; significantly better than 1 of 1 others" in quick
    assert "from one training to the next its Dice varies by ±0.023." in quick
    assert "Run: `labeldrop-bench run quick`, seeds 0, 1, 2, commit unknown, torch 2.13.0" in quick
    assert "[results.csv](results/quick/results.csv)" in quick
    lines = quick.splitlines()
    rows = [line.split(" | ")[1].strip() for line in lines if line.startswith("| ") and "strategy" not in line]
    assert rows[0] == "full"
    assert rows[-1] == "standard"
    assert "near: **marginal" in conditions
    assert "far: **marginal" in conditions
    assert (root / "results/quick/leaderboard.csv").read_text().startswith("condition,rank,strategy")
    assert "The best 20; the other 3 are in [leaderboard.csv](results/all/leaderboard.csv)." in many


def test_many_strategies_have_a_grid_with_every_one_of_them(root: Path) -> None:
    generator.main([], root)
    many = (root / "LEADERBOARD.md").read_text().split("\n## ")[2]
    table, grid = (part.splitlines() for part in many.split("\n\n") if part.startswith("|"))
    assert len(table) == 2 + 1 + 20  # head, full, the best
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in grid]
    assert cells[0] == ["loss", "p = 0", "p = 0.1", "p = 0.3", "p = 0.5"]
    assert {row[0] for row in cells[2:]} == {"ce", "dice", "bce", "smile", "adaptive\\_ce", "leaf\\_dice"}
    (leaf,) = (row for row in cells if row[0] == "leaf\\_dice")
    assert leaf[-1] == "—"  # was not run
    assert all(sum(cell.startswith("**") for cell in row) == 1 for row in cells[2:])
    csv = (root / "results/all/leaderboard.csv").read_text().splitlines()
    assert len(csv) == 1 + 1 + 23


def test_drift_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generator.main(["--check"], root) == 1
    generator.main([], root)
    assert generator.main(["--check"], root) == 0
    capsys.readouterr()
    document = root / "LEADERBOARD.md"
    document.write_text(document.read_text().replace("Title of quick", "Better title"))
    assert generator.main(["--check"], root) == 1
    shown = capsys.readouterr().err
    assert "-## Better title" in shown
    assert "+## Title of quick" in shown
    assert "call python -m benchmarks.leaderboard" in shown
    generator.main([], root)
    table = root / "results/quick/leaderboard.csv"
    table.write_text(table.read_text().replace("standard", "Standard"))
    assert generator.main(["--check"], root) == 1


def test_results_that_do_not_agree_with_themselves_are_refused(root: Path) -> None:
    path = root / "results/quick/runs/standard-seed0/cases.csv"
    path.write_text(path.read_text().replace(",A,LV,0.", ",A,LV,0.1", 1))
    with pytest.raises(submit.SubmissionError, match=r"standard-seed0: result.json and cases.csv do not fit"):
        generator.main(["--check"], root)


@pytest.mark.slow
def test_the_leaderboard_of_this_repository_is_up_to_date() -> None:
    if not generator.suites(ROOT) and "CI" not in os.environ:
        pytest.skip("no results/ here: this copy of the tests comes without them")
    assert generator.suites(ROOT), "results/ holds no suite"
    assert generator.drift(ROOT) == []
