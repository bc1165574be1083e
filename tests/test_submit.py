"""Results that may become part of a leaderboard, and every reason why some may not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from invented import write_suite
from typer.testing import CliRunner

from labeldrop_bench import leaderboard, records, submit
from labeldrop_bench.commands import app
from labeldrop_bench.records import SuiteConfig
from labeldrop_bench.submit import SubmissionError

DOMAINS = {"A": ("LV", "LA"), "B": ("LV", "LA")}
LEFT = (".lock",)  # is no content


def _suite(*strategies: str, **changes: Any) -> SuiteConfig:
    entries = [{"name": name, "loss": "ce", "full_labels": name == "full"} for name in strategies]
    suite = {"name": "tiny", "title": "Tiny", "seeds": [0, 1], "data": {"name": "phantom", "gap": 1.0}}
    return SuiteConfig.model_validate({**suite, "strategies": entries, **changes})


def _write(directory: Path, *strategies: str, **changes: Any) -> Path:
    return write_suite(directory, _suite(*strategies, **changes), domains=DOMAINS, cases=4)


def _content(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name not in LEFT)
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def _submit(directory: Path, board: Path, *strategies: str) -> tuple[str, ...]:
    return submit.merge(submit.check(directory, strategies), board)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A leaderboard with two strategies."""
    _submit(_write(tmp_path / "first", "full", "standard"), tmp_path / "board")
    return tmp_path / "board"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A suite directory with one more."""
    return _write(tmp_path / "mine", "mine", title="Another title", workers=2)


def test_the_first_submission_makes_the_leaderboard(tmp_path: Path) -> None:
    source = _write(tmp_path / "first", "full", "standard")
    assert _submit(source, tmp_path / "new" / "board") == (
        "full-seed0",
        "full-seed1",
        "standard-seed0",
        "standard-seed1",
    )
    there = _content(tmp_path / "new" / "board")
    of_a_run = ("cases.csv", "config.json", "examples.npz", "result.json")  # no weights, no history
    runs = [
        f"runs/{run}/{name}"
        for run in ("full-seed0", "full-seed1", "standard-seed0", "standard-seed1")
        for name in of_a_run
    ]
    assert list(there) == sorted(["results.csv", "suite.json", *runs])
    assert {name: there[name] for name in runs} == {name: (source / name).read_bytes() for name in runs}
    loaded = leaderboard.load(tmp_path / "new" / "board")
    assert len(there["results.csv"].splitlines()) == 1 + 4 * 4 * len((*records.METRICS, *records.SIGHTINGS))
    assert loaded.finished == 4


def test_a_new_strategy_comes_in_and_the_rest_stays(board: Path, mine: Path) -> None:
    before = _content(board)
    assert _submit(mine, board) == ("mine-seed0", "mine-seed1")
    after = _content(board)
    same = [name for name in before if name not in ("suite.json", "results.csv")]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    suite = records.read_suite(board)
    assert [strategy.name for strategy in suite.strategies] == ["full", "standard", "mine"]
    assert (suite.title, suite.workers) == ("Tiny", 1)  # the leaderboard's own
    assert after["results.csv"].startswith(before["results.csv"])
    assert leaderboard.load(board).finished == 6


def test_the_same_again_changes_nothing(board: Path, mine: Path) -> None:
    _submit(mine, board)
    before = _content(board)
    assert _submit(mine, board) == ()
    assert _content(board) == before


Change = Callable[[Path], None]


def _edited(name: str, old: str, new: str) -> Change:
    def change(directory: Path) -> None:
        for path in directory.glob(name):
            text = path.read_text()
            assert old in text, (path, text[:300])
            path.write_text(text.replace(old, new, 1))

    return change


def _removed(name: str) -> Change:
    return lambda directory: (directory / name).unlink()


def _a_value(directory: Path) -> None:
    """Of a row, and not of its cases."""
    path = directory / "runs/mine-seed1/result.json"
    result = json.loads(path.read_text())
    result["rows"][0]["value"] += 1e-3
    path.write_text(json.dumps(result))


def _beyond(directory: Path) -> None:
    """A Dice of more than one, in cases and row alike."""
    path = directory / "runs/mine-seed0/cases.csv"
    lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    for cell in cells[:4]:
        cell[4] = "1.5"
    path.write_text("\n".join([lines[0], *map(",".join, cells)]) + "\n")
    result = json.loads((directory / "runs/mine-seed0/result.json").read_text())
    result["rows"][0]["value"] = 1.5
    (directory / "runs/mine-seed0/result.json").write_text(json.dumps(result))


def _without_the_last_rows(directory: Path) -> None:
    path = directory / "runs/mine-seed0/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "rows": result["rows"][:-1]}))


def _another_split(directory: Path) -> None:
    for path in directory.glob("runs/*/result.json"):
        path.write_text(path.read_text().replace('"split": "000', '"split": "111'))


def _other_cases(directory: Path) -> None:
    for path in directory.glob("runs/*/cases.csv"):
        path.write_text(path.read_text().replace("A003,A001,A,LA", "A009,A001,A,LA"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "mine is not a directory"),
        (_removed("suite.json"), "mine holds no suite.json"),
        (_edited("suite.json", "{", "["), "suite.json is not a suite that this version can read"),
        (_removed("runs/mine-seed1/result.json"), "1 of 2 runs have not finished: mine-seed1. Call"),
        (_removed("runs/mine-seed1/config.json"), "mine-seed1/config.json cannot be read: remove"),
        (_removed("runs/mine-seed1/cases.csv"), "mine-seed1/cases.csv cannot be read"),
        (_edited("runs/mine-seed1/result.json", "{", ""), "mine-seed1/result.json cannot be read"),
        (_edited("runs/mine-seed1/result.json", '"run": "mine-seed1"', '"run": "x"'), "result.json is of another run"),
        (
            _edited("runs/*/config.json", '"epochs": 25', '"epochs": 26'),
            "config.json is not what suite.json asks for: .*\n  training.epochs: 26 there, 25 here",
        ),
        (_edited("runs/*/result.json", '"loss": "ce"', '"loss": "dice"'), "A LV dice: loss must be 'ce', got 'dice'"),
        (_a_value, r"mine-seed1: result.json and cases.csv do not fit in 1 .*\n  A LV dice: 0.\d+ over 4 cases, where"),
        (_beyond, "A LV dice: must lie in 0 ... 1, got 1.5 to 1.5"),
        (_without_the_last_rows, "B LA size: no row, although there are cases"),
        (_edited("runs/mine-seed0/cases.csv", "A000,A000,A,LV", "A000,A000,A,LX"), "A LX brier: no row"),
        (_edited("runs/mine-seed0/cases.csv", "A001,A000,A,LV", "A000,A000,A,LV"), r"\('A000', 'LV'\)\] more than"),
        (lambda directory: (directory / "runs/mine-seed0/examples.npz").write_bytes(b"no"), "examples.npz cannot be"),
        (_another_split, "result.json: split: '0{64}' in .*board.* '1110*' here"),
        (
            _other_cases,
            "cases.csv: must hold the same .* only in .*board.*: A A003 LA scored.*; only here: A A009 LA scored",
        ),
    ],
)
def test_what_is_refused(board: Path, mine: Path, change: Change, message: str) -> None:
    before = _content(board)
    change(mine)
    with pytest.raises(SubmissionError, match=f"(?s){message}"):
        _submit(mine, board)
    assert _content(board) == before


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "other"}, "name: 'tiny' there, 'other' here"),
        ({"seeds": [0, 2]}, r"seeds: \[0, 1\] there, \[0, 2\] here"),
        ({"data": {"name": "phantom", "gap": 0.5}}, "data.gap: 1.0 there, 0.5 here"),
        ({"data": {"name": "phantom", "gap": 1.0, "size": 32}}, "data.size: None there, 32 here"),
        ({"model": {"channels": [4, 8]}}, r"model.channels: \[16, 32, 64, 96\] there, \[4, 8\] here"),
        ({"training": {"epochs": 3}}, "training.epochs: 25 there, 3 here"),
        ({"augmentation": {"blur": 0.0}}, "augmentation.blur: 1.0 there, 0.0 here"),
        ({"scoring": {"tolerance": 2.0}}, "scoring.tolerance: 1.0 there, 2.0 here"),
        ({"patches": {"kind": "box", "size": [8, 8]}}, "patches.kind: 'whole' there, 'box' here"),
        ({"split_by_seed": True}, "split_by_seed: False there, True here"),
        ({"conditions": [{"name": "c"}]}, r"conditions: \[\] there"),
    ],
)
def test_another_configuration_is_refused_by_key(
    board: Path, tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    other = _write(tmp_path / "other", "mine", **changes)
    with pytest.raises(
        SubmissionError, match=f"(?s)other is another configuration .*only strategies.* may differ.*{key}"
    ):
        _submit(other, board)


def test_a_strategy_of_the_same_name_must_be_the_same(board: Path, tmp_path: Path) -> None:
    strategies = [{"name": "standard", "loss": "ce", "dropout": 0.5}]
    other = _write(tmp_path / "other", strategies=strategies)
    message = "has a strategy 'standard' of another configuration: .*dropout: 0.0 there, 0.5 here"
    with pytest.raises(SubmissionError, match=f"(?s){message}"):
        _submit(other, board)


def test_names_that_make_the_same_directory_are_refused(board: Path, mine: Path, tmp_path: Path) -> None:
    _submit(_write(tmp_path / "spaced", "a b"), board)
    with pytest.raises(SubmissionError, match="must differ in more than punctuation"):
        _submit(_write(tmp_path / "other", "a+b"), board)


def test_other_numbers_are_refused_and_can_be_left_out(board: Path, tmp_path: Path) -> None:
    both = write_suite(tmp_path / "both", _suite("standard", "mine"), domains=DOMAINS, cases=4, about=lambda *_: 0.6)
    with pytest.raises(
        SubmissionError, match=r"standard-seed0 holds other numbers .*A LV dice: 0\.\d+ there.*--strategy"
    ):
        _submit(both, board)
    assert _submit(both, board, "mine") == ("mine-seed0", "mine-seed1")
    with pytest.raises(SubmissionError, match=r"--strategy: .*both has no strategy 'main'. Known: standard, mine"):
        _submit(both, board, "main")


def test_runs_of_one_submission_must_agree_too(tmp_path: Path) -> None:
    mine = _write(tmp_path / "mine", "mine", "other")
    _edited("runs/mine-seed0/result.json", '"split": "000', '"split": "111')(mine)
    with pytest.raises(SubmissionError, match=r"other-seed0/result.json: split"):
        submit.check(mine)


def test_directories_that_are_no_leaderboard_are_refused(board: Path, mine: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    with pytest.raises(SubmissionError, match=r"notes holds no suite.json, and is not empty: todo.txt"):
        _submit(mine, tmp_path / "notes")
    with pytest.raises(SubmissionError, match="mine is the submission itself"):
        _submit(mine, mine)
    with FileLock(board / ".lock"), pytest.raises(SubmissionError, match="in use by another process"):
        _submit(mine, board)


@pytest.mark.parametrize("first", [True, False])
def test_killed_anywhere_the_same_call_mends_it(
    board: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Broken off after every single file, like a kill; in between the leaderboard holds all of it or nothing."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    if not first:
        shutil.copytree(board, whole)
    _submit(mine, whole)
    real, n = records.write_bytes, 0
    for kill in range(2 * 4 + 2):  # the files that are written
        shutil.rmtree(broken, ignore_errors=True)
        if not first:
            shutil.copytree(board, broken)
        left = kill

        def write(path: Path, content: bytes) -> None:
            nonlocal left
            if left == 0:
                (path.parent / f".{path.name}.abc.tmp").write_bytes(content[:10])
                raise KeyboardInterrupt
            left -= 1
            real(path, content)

        for run in ("mine-seed0", "mine-seed1"):
            (broken / "runs" / run).mkdir(parents=True, exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(records, "write_bytes", write)
            patch.setattr(records.files, "write_bytes", write)
            with pytest.raises(KeyboardInterrupt):
                _submit(mine, broken)
        if (broken / "suite.json").exists():
            assert leaderboard.load(broken).finished in {True: (2,), False: (4, 6)}[first]
        _submit(mine, broken)
        assert _content(broken) == _content(whole)
        n += 1
    assert n == 10


def test_the_command(board: Path, mine: Path) -> None:
    runner = CliRunner()
    before = _content(board)
    checked = runner.invoke(app, ["submit", str(mine)])
    assert checked.exit_code == 0
    assert checked.stdout == f"{mine}: 2 runs of suite 'tiny', all finished and valid\n"
    assert _content(board) == before
    merged = runner.invoke(app, ["submit", str(mine), "--to", str(board)])
    assert merged.stdout.splitlines()[1] == f"{board}: 2 runs added; 0 were there with the same numbers"
    again = runner.invoke(app, ["submit", str(mine), "--to", str(board), "--strategy", "mine"])
    assert again.stdout.splitlines()[1] == f"{board}: 0 runs added; 2 were there with the same numbers"
    (mine / "runs/mine-seed0/result.json").unlink()
    refused = runner.invoke(app, ["submit", str(mine), "--to", str(board)])
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"Error: {mine}: 1 of 2 runs have not finished")
