"""Runs in worker processes; runs that fail, and workers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from listeners import Heard, end_at_once, run_suite
from tiny import write_suite

from labeldrop_bench import records, suites, sweep
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import FailedRunsError
from labeldrop_bench.records import DataConfig, RunConfig, RunFailure, RunResult
from labeldrop_bench.sweep import jobs, limits, workers
from labeldrop_bench.sweep.jobs import Job

ROOT = Path(sweep.__file__).parents[1]  # where processes started here find the package that is being tested
ONE_THREAD = "training.threads=1"


@pytest.fixture(autouse=True)
def _small_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests has held large tensors, which no worker will."""
    monkeypatch.setattr(limits, "peak_memory", lambda: 2**29)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_suite(tmp_path_factory.mktemp("suite"))


def _alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that has ended and waits to be collected does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for_the_end(children: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 10
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, children))


@pytest.mark.slow
def test_a_killed_process_is_made_good(suite: str, tmp_path: Path) -> None:
    """kill -9 with two runs under way: finished ones are kept, broken ones done again, as if nothing had happened."""
    overrides = ("training.epochs=20", "training.threads=1", "seeds=[0, 1]")
    out = tmp_path / "killed"
    words = [word for override in (*overrides, "workers=2") for word in ("--set", override)]
    command = [sys.executable, "-m", "labeldrop_bench.cli", "run", suite, "--out", str(out), "--device", "cpu", *words]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    broken = out / "runs" / "adaptive-seed0"
    deadline = time.monotonic() + 120
    while not (broken / "history.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    children = psutil.Process(process.pid).children()
    process.kill()  # the parent alone: its workers have to notice
    process.wait()
    assert (broken / "history.csv").exists(), "the process ended before its third run began"
    assert len(children) >= 2
    _wait_for_the_end(children)
    assert not (broken / "result.json").exists()
    kept = {path: path.read_bytes() for path in out.glob("runs/*/result.json")}
    assert kept
    # what a kill in the middle of writing leaves
    (broken / ".checkpoint.pt.abc.tmp").write_bytes(b"half")
    (out / ".results.csv.abc.tmp").write_text("half")

    heard = run_suite(suite, out, *overrides)
    assert heard.begun == [(4 - len(kept), len(kept))]
    assert ("adaptive-seed0", 20) in heard.epochs
    assert {path: path.read_bytes() for path in kept} == kept
    assert not list(out.rglob("*.tmp"))
    assert len((broken / "history.csv").read_text().splitlines()) == 21
    # A worker process gives the same numbers as this one
    run_suite(suite, tmp_path / "whole", *overrides)
    assert (out / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()


@pytest.mark.slow
def test_a_worker_that_is_killed_and_a_run_that_raises_stop_no_other(suite: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    in_the_way = out / "runs" / "adaptive-seed1" / "history.csv"
    in_the_way.mkdir(parents=True)

    def kill(config: RunConfig, epoch: Epoch) -> None:
        if config.run == "adaptive-seed0":
            (name,) = (worker for run, worker in heard.starts if run == config.run)
            (process,) = (child for child in multiprocessing.active_children() if child.name == name)
            os.kill(process.pid or 0, signal.SIGKILL)

    heard = Heard(kill)
    loaded = suites.load(suite, [ONE_THREAD, "training.epochs=50", "seeds=[0, 1]"])
    with pytest.raises(FailedRunsError, match=r"(?s)2 of 4 runs could not go on.*adaptive-seed[01]") as caught:
        sweep.run(loaded, out, device="cpu", listener=heard, workers=2)
    assert sorted(heard.runs) == ["full-seed0", "full-seed1"]
    assert not multiprocessing.active_children()
    killed, raised = sorted(heard.failures, key=lambda failure: failure.run)
    assert killed.message.startswith("its worker process ended with exit code -9; killed, as the system does")
    assert killed.traceback == ""
    assert raised.message.startswith("IsADirectoryError: ")
    assert "write_history" in raised.traceback
    for failure in (killed, raised):
        file = out / "runs" / failure.run / "failure.json"
        assert RunFailure.model_validate_json(file.read_text()) == failure
        assert str(file) in str(caught.value)
        assert len([run for run, _ in heard.starts if run == failure.run]) == 1  # not tried again within the call
    in_the_way.rmdir()
    again = Heard()
    sweep.run(loaded, out, device="cpu", listener=again)
    assert again.begun == [(2, 2)]
    assert sorted(again.runs) == ["adaptive-seed0", "adaptive-seed1"]
    assert not list(out.rglob("failure.json"))


def test_an_error_before_a_worker_can_begin_is_the_failure_of_its_run(suite: str, tmp_path: Path) -> None:
    """A suite that the worker cannot prepare stands for any error that only a worker meets."""
    config = sweep.prepare(suites.load(suite)).config
    broken = suites.Suite("broken.toml", config.model_copy(update={"data": DataConfig(name="fantom")}))
    told: list[tuple[str, jobs.News]] = []
    job = Job(broken, "cpu", "32-true", threads=1)
    workers.side_by_side(config.runs(), job, tmp_path, [None], lambda run, news: told.append((run.run, news)))
    assert [run for run, _ in told] == ["full-seed0", "adaptive-seed0"]
    for _, news in told:
        assert isinstance(news, RunFailure)
        assert news.message.startswith("broken.toml: data.name: ")
        assert "Traceback" in news.traceback


def test_a_run_that_cannot_go_on_stops_no_other(suite: str, tmp_path: Path) -> None:
    heard = Heard()
    # a learning rate that throws the weights beyond float32 in the first step
    loaded = suites.load(suite, ["training.learning_rate=1e38", "training.schedule=poly"])
    with pytest.raises(FailedRunsError, match=r"(?s)2 of 2 runs could not go on.*full-seed0.*step 2 of 2.*adaptive"):
        sweep.run(loaded, tmp_path, device="cpu", listener=heard)
    assert [failure.run for failure in heard.failures] == ["full-seed0", "adaptive-seed0"]
    assert heard.failures[0].message.startswith("the loss is nan in epoch 1, step 2 of 2")
    assert not list(tmp_path.rglob("result.json"))


def test_a_failure_is_forgotten_when_the_run_is_done(suite: str, tmp_path: Path) -> None:
    config = suites.load(suite).config.runs()[0]
    records.write_failure(tmp_path, config, "once", "")
    run_suite(suite, tmp_path)
    assert records.read_failure(tmp_path, config) is None
    assert records.read_result(tmp_path, config) is not None


def test_too_little_memory_leaves_the_runs_to_this_process(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(sweep, "try_step", lambda *arguments: tried.append(arguments[1]))
    monkeypatch.setattr(limits, "available_memory", lambda: 0)
    heard = run_suite(suite, tmp_path, workers=2)
    assert tried == ["cpu"]  # without a step of training nobody knows what a worker needs
    (note,) = heard.notes
    assert note.startswith("1 instead of 2 workers: each needs ")
    assert heard.starts == [("full-seed0", "here"), ("adaptive-seed0", "here")]
    assert heard.runs == ["full-seed0", "adaptive-seed0"]


@pytest.mark.slow
def test_a_worker_that_dies_after_its_result_has_done_its_run(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_suite(suite, tmp_path)
    loaded = suites.load(suite)
    config = loaded.config.runs()[0]
    worker = workers._Worker(Job(loaded, "cpu", "32-true", threads=1), tmp_path, "worker 1", None)
    monkeypatch.setattr(workers, "_work", end_at_once)
    worker.give(config)
    _, news = worker.news()
    assert isinstance(news, RunResult)
    assert worker.config is None
    worker.give(loaded.config.runs()[1].model_copy(update={"seed": 7}))  # one that has no result, in a fresh process
    _, news = worker.news()
    assert isinstance(news, RunFailure)
    assert news.message == "its worker process ended with exit code 3"


@pytest.mark.slow
def test_sigterm_ends_a_sweep_and_its_workers_as_ctrl_c_does(suite: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--workers", "2", "--set", ONE_THREAD, "--set", "training.epochs=2000"]
    command = [sys.executable, "-m", "labeldrop_bench.cli", "run", suite, "--out", str(out), "--device", "cpu", *words]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("runs/*/history.csv")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command does the others" in errors
    assert "Traceback" not in errors
    assert len(children) >= 2
    _wait_for_the_end(children)
    assert not list(out.rglob("failure.json"))
