"""What a person sees while a suite runs, on a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from tiny import TOML, write_suite

from labeldrop_bench import progress, run, suites, sweep
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.progress import ProgressListener
from labeldrop_bench.records import RunConfig, RunFailure, RunResult, StepCost


def _listener(tmp_path: Path, epochs: int = 4, terminal: bool = False) -> ProgressListener:
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    return ProgressListener(tmp_path, lambda _: epochs, console)


def _text(listener: ProgressListener) -> str:
    file = listener.console.file
    assert isinstance(file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())  # without colours


@pytest.fixture
def runs(tmp_path: Path) -> tuple[RunConfig, ...]:
    return suites.load(write_suite(tmp_path), ["seeds=[0, 1]"]).config.runs()


def _epoch(number: int, dice: float | None = 0.5) -> Epoch:
    return Epoch(number, 0.5, dice, 0.5, 0.1, 1.0)


def _result(config: RunConfig) -> RunResult:
    cost = StepCost(seconds=0.1, peak_bytes=1, rounds=1, shape=(1, 4, 8, 8))
    return RunResult(
        run=config.run, rows=(), best_epoch=3, validation_dice=0.75, seconds=12.4, cost=cost, split="", environment={}
    )


def _failure(config: RunConfig, message: str) -> RunFailure:
    return RunFailure(run=config.run, message=message, traceback="Traceback ...")


def test_the_time_left_counts_epochs_those_of_runs_under_way_too(
    runs: tuple[RunConfig, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(ProgressListener, "_rows", lambda self: None)
    listener = _listener(tmp_path)
    listener.begin(runs, 0)
    listener.started(runs[0], "here")
    listener.started(runs[1], "here")
    for number in (1, 2, 3, 4):
        listener.epoch(runs[0], _epoch(number))
    listener.epoch(runs[1], _epoch(1))
    now = 300.0
    listener.finished(runs[0], _result(runs[0]))
    # 5 of 16 epochs took 300 s, so 11 take 660 s
    expected = "[1/4] full-seed0: 12 s, best epoch 3 (validation Dice 0.750); about 11.0 min left"
    assert _text(listener).splitlines() == [expected]


def test_a_run_that_failed_is_done_with_all_its_epochs(
    runs: tuple[RunConfig, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    listener = _listener(tmp_path)
    listener.begin(runs[:2], 0)
    now = 60.0
    listener.failed(runs[0], _failure(runs[0], "the loss is [bold]nan[/bold]"))
    lines = _text(listener).splitlines()
    assert lines == ["failed: full-seed0: the loss is [bold]nan[/bold]", "[1/2] full-seed0: failed; about 1.0 min left"]


def test_the_bar_ends_full_also_where_a_run_goes_on_from_the_middle(
    runs: tuple[RunConfig, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressListener, "_rows", lambda self: None)
    listener = _listener(tmp_path, terminal=True)
    with listener:
        listener.begin(runs[:2], 2)
        listener.started(runs[0], "here")
        listener.epoch(runs[0], _epoch(4))  # its first three were there
        listener.finished(runs[0], _result(runs[0]))
        assert listener.bar.tasks[0].completed == 4
        listener.failed(runs[1], _failure(runs[1], "no"))
        assert listener.bar.tasks[0].completed == listener.bar.tasks[0].total == 8
    assert "2 of 4 runs were finished before; 2 to do" in _text(listener)
    assert "min left" not in _text(listener)  # the bar says it


def test_the_table_shows_the_runs_under_way(
    runs: tuple[RunConfig, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressListener, "_rows", lambda self: None)
    listener = _listener(tmp_path, terminal=True)
    listener.begin(runs, 0)
    for number, config in enumerate(runs[:3], start=1):
        listener.started(config, f"worker {number} [GPU]")
    listener.epoch(runs[0], _epoch(1, 0.25))
    listener.epoch(runs[0], _epoch(2, None))  # not validated: the last value stays
    listener.failed(runs[2], _failure(runs[2], "no"))

    def shown() -> list[str]:
        listener.console.print(listener.render())
        return [re.sub("  +", "|", line.strip()) for line in _text(listener).splitlines()]

    head, first, second, bar = shown()[-4:]
    assert head == "run|worker|epoch|validation Dice"
    assert first == f"{runs[0].run}|worker 1 [GPU]|2/4|0.250"
    assert second == f"{runs[1].run}|worker 2 [GPU]|0/4"
    assert bar.startswith("2 running, 0 done, 1 failed, 1 waiting")
    assert "6/16 epochs" in bar
    listener.started(runs[0], "another machine")  # a cluster lost the first one
    assert shown()[-3] == f"{runs[0].run}|another machine|0/4"
    assert listener.bar.tasks[0].completed == 4
    for config in runs[:2]:
        listener.finished(config, _result(config))
    assert shown()[-1].startswith("0 running, 2 done, 1 failed, 1 waiting")


def test_what_a_person_should_know_is_shown(tmp_path: Path) -> None:
    listener = _listener(tmp_path)
    listener.note("3 instead of 8 workers [memory]")
    assert _text(listener) == "3 instead of 8 workers [memory]\n"


def test_epochs_of_all_rounds_and_points_are_counted(tmp_path: Path) -> None:
    text = TOML.replace("[augmentation]", "grid = { learning_rate = [0.1, 0.01] }\n[augmentation]").replace(
        'loss = "adaptive_ce"', 'loss = "smile"\nprocedure = { name = "smiler", rounds = 2 }'
    )
    loaded = suites.load(write_suite(tmp_path, text))
    seen: list[int] = []
    listener = _listener(tmp_path / "out")
    listener.epochs = run.epochs
    honest = listener.epoch
    listener.epoch = lambda config, epoch: (seen.append(epoch.epoch), honest(config, epoch))  # type: ignore[method-assign, assignment, func-returns-value]
    sweep.run(loaded, tmp_path / "out", device="cpu", listener=listener)
    assert len(seen) == listener.total == 2 * 2 + 2 * 3 * 2
