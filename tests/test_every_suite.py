"""Every suite of the package runs to its leaderboard; one that is added cannot land without a recipe."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from listeners import Heard
from shrunk import ALL, RECIPES, cut

from labeldrop_bench import leaderboard, losses, procedures, records, suites, sweep
from labeldrop_bench.leaderboard.figures import TABLES, names_of
from labeldrop_bench.records import SuiteConfig


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the data sets, where every suite looks for its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LABELDROP_DATA", str(folder))
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    return folder


def shrunk(name: str) -> suites.Suite:
    suite = suites.load(name, [*ALL, *RECIPES[name].overrides])
    return replace(suite, config=cut(suite.config))


@pytest.mark.slow
@pytest.mark.parametrize("name", suites.names())
def test_a_suite_of_the_package_runs_to_its_leaderboard(name: str, data: Path, tmp_path: Path) -> None:
    assert name in RECIPES, f"{name}: a suite needs a recipe in tests/shrunk.py, by which it is run here"
    for write in RECIPES[name].write:
        write(data)
    suite, out, heard = shrunk(name), tmp_path / "out", Heard()
    sweep.run(suite, out, device="cpu", listener=heard)  # raises if a run fails
    board = leaderboard.write(out)
    assert sorted(heard.runs) == sorted(run.run for run in suite.config.runs())
    assert_whole(board, out, suite.config)
    assert board.boards[0].distances == RECIPES[name].distances
    if name == "ld-exp2":
        assert_truth_of_three_sources(out)
    if name == "camus-echonet":
        assert_what_is_scored_of_two_sources(out)


def assert_whole(board: leaderboard.Leaderboard, out: Path, config: SuiteConfig) -> None:
    """Every file is there, with every strategy and every figure that the suite asks for."""
    drawn = names_of(board)
    assert set(config.figures) - set(TABLES) <= set(drawn)
    for figure in drawn:
        for ending in ("png", "svg"):
            assert (out / f"{figure}.{ending}").stat().st_size > 1000
    strategies = {strategy.name for strategy in config.strategies}
    with (out / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["strategy"] for row in rows} == strategies
    assert {row["condition"] for row in rows} == {condition.name for condition in config.conditions} or {""}
    for form in ("md", "html"):
        text = (out / f"leaderboard.{form}").read_text(encoding="utf-8")
        assert all(words(strategy) in words(text) for strategy in strategies)
        assert f"HD95, and the tolerance of NSD, in {board.boards[0].distances}." in text
        assert ("Wilcoxon" in text) or "wilcoxon" not in config.figures
    assert config.title.split()[0] in leaderboard.render(board, "terminal")


def assert_what_is_scored_of_two_sources(out: Path) -> None:
    """As the suite's description says it: EchoNet-Dynamic's LV alone, and CAMUS's hidden LV as unannotated."""
    config = records.read_suite(out)
    assert config.description.startswith("Scores LV, LVM and LA on CAMUS, and on EchoNet-Dynamic the LV alone")
    for condition, hidden in (("as annotated", False), ("LV hidden in CAMUS", True)):
        runs = [r for r in config.runs() if r.condition == condition and not r.strategy.full_labels]
        rows = [row for run in runs for row in records.read_result(out, run).rows]
        scored = {(row.domain, row.class_, row.annotated) for row in rows if row.metric == "dice"}
        camus = {("CAMUS", "LV", not hidden), ("CAMUS", "LVM", True), ("CAMUS", "LA", True)}
        assert scored == camus | {("EchoNet", "LV", True)}


def assert_truth_of_three_sources(out: Path) -> None:
    """Nobody knows where EchoNet-Dynamic's LVM and LA are, so they are neither learnt nor scored there."""
    results = [records.read_result(out, run) for run in records.read_suite(out).runs()]
    scored = {
        (row.domain, row.class_, row.annotated) for result in results for row in result.rows if row.metric == "dice"
    }
    assert scored == {*product(("CAMUS", "Unity"), ("LV", "LVM", "LA"), (True,)), ("EchoNet", "LV", True)}
    with next((out / "runs").glob("*/split.csv")).open(encoding="utf-8", newline="") as file:
        echonet = [(row["annotated"], row["known"]) for row in csv.DictReader(file) if row["domain"] == "EchoNet"]
    assert echonet == [("LV", "LV")] * 20


def words(text: str) -> str:
    """Letters and digits, whatever stands between them."""
    return re.sub(r"&\w+;|\W", "", text)


def test_what_is_run_has_everything_that_the_suites_have() -> None:
    """A suite may be cut, but not by what it is the only one to show."""
    whole = [suites.load(name).config for name in suites.names()]
    run = [shrunk(name).config for name in suites.names() if name in RECIPES]

    def of(configs: list[SuiteConfig]) -> dict[str, set[str]]:
        strategies = [s for config in configs for s in config.strategies]
        return {
            "losses": {s.loss for s in strategies},
            "procedures": {str((s.procedure or {}).get("name", "plain")) for s in strategies},
            "figures": {figure for config in configs for figure in config.figures},
            "networks": {run.model.name for config in configs for run in config.runs()},
            "patches": {run.patches.kind for config in configs for run in config.runs()},
            "keys of conditions": {key for config in configs for c in config.conditions for key in c.data},
        }

    assert of(run) == of(whole)
    assert of(run)["losses"] >= set(losses.LOSSES)
    assert of(run)["procedures"] == set(procedures.REGISTRY.names())
