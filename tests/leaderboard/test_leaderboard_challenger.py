"""The CSV for challengeR."""

import csv
import io

import pytest
from invented import write_suite

from labeldrop_bench import leaderboard
from labeldrop_bench.leaderboard import load, render
from labeldrop_bench.records import SuiteConfig

SUITE = {
    "name": "exported",
    "title": "Exported",
    "seeds": [0, 1],
    "data": {"name": "phantom"},
    "conditions": [{"name": "easy"}, {"name": "hard", "data": {"hidden": {"A": ["LV"]}}}],
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "standard", "loss": "ce"},
        {"name": "adaptive, too", "loss": "adaptive_ce"},
    ],
}


def write(directory, **options):
    suite = SuiteConfig.model_validate(SUITE)
    return write_suite(directory, suite, domains={"A": ("LV", "LA"), "B": ("LV",)}, cases=4, **options)


def rows_of(directory):
    return list(csv.DictReader(io.StringIO(render(load(directory), "challenger"))))


def dice(directory, run):
    with (directory / "runs" / run / "cases.csv").open() as file:
        return {(row["domain"], row["class"], row["case"]): float(row["dice"]) for row in csv.DictReader(file)}


def test_every_task_case_and_strategy_once(tmp_path):
    rows = rows_of(write(tmp_path))
    assert list(rows[0]) == ["task", "case", "algorithm", "value"]
    tasks = ["easy: A/LV", "easy: A/LA", "easy: B/LV", "hard: A/LV", "hard: A/LA", "hard: B/LV"]
    assert list(dict.fromkeys(row["task"] for row in rows)) == tasks
    assert {row["algorithm"] for row in rows} == {"standard", "adaptive, too"}  # nobody competes with `full`
    assert len({(row["task"], row["case"], row["algorithm"]) for row in rows}) == len(rows) == 6 * 4 * 2
    first, second = (dice(tmp_path, f"hard_standard-seed{seed}") for seed in (0, 1))
    (row,) = [r for r in rows if (r["task"], r["case"], r["algorithm"]) == ("hard: A/LA", "A002", "standard")]
    place = ("A", "LA", "A002")
    assert float(row["value"]) == pytest.approx((first[place] + second[place]) / 2)


def test_incomplete_strategies_are_left_out(tmp_path):
    rows = rows_of(write(tmp_path, missing=["hard_standard-seed1"]))
    of = {name: {row["task"] for row in rows if row["algorithm"] == name} for name in ("standard", "adaptive, too")}
    assert len(of["standard"]) == 3
    assert len(of["adaptive, too"]) == 6


def test_undefined_case_is_left_out_for_all(tmp_path):
    path = write(tmp_path) / "runs" / "easy_standard-seed0" / "cases.csv"
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, f"{first.rpartition('A,LV,')[0]}A,LV,,,,,", *rest]) + "\n")
    rows = [row for row in rows_of(tmp_path) if row["task"] == "easy: A/LV"]
    assert sorted({row["case"] for row in rows}) == ["A001", "A002", "A003"]
    assert len(rows) == 3 * 2


def test_written_beside_the_leaderboard(tmp_path):
    written = leaderboard.write(write(tmp_path))
    assert (tmp_path / "challenger.csv").read_text() == render(written, "challenger")


def test_nothing_but_the_head_before_a_strategy_is_complete(tmp_path):
    suite = SuiteConfig.model_validate(SUITE)
    missing = [run.run for run in suite.runs() if run.seed == 1 or run.strategy.name == "full"]
    assert render(load(write(tmp_path, missing=missing)), "challenger") == "task,case,algorithm,value\n"
