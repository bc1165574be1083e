from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from tiny import TOML, write_suite

from labeldrop_bench import records, suites, sweep
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import SuiteError, TrainingError
from labeldrop_bench.records import DataConfig, RunConfig, RunResult
from labeldrop_bench.sweep import checks, workers

ROOT = Path(sweep.__file__).parents[1]  # where processes started here find the package that is being tested


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.epochs: list[tuple[str, int]] = []
        self.runs: list[str] = []
        self.failures: list[str] = []

    def begin(self, todo: Sequence[RunConfig], done: int) -> None:
        self.begun.append((len(todo), done))

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        self.epochs.append((config.run, epoch.epoch))

    def finished(self, config: RunConfig, result: RunResult) -> None:
        assert config.run == result.run
        self.runs.append(config.run)

    def failed(self, config: RunConfig, error: TrainingError) -> None:
        self.failures.append(config.run)


def _run(path: str, out: Path, *overrides: str) -> Heard:
    heard = Heard()
    sweep.run(suites.load(path, overrides), out, device="cpu", listener=heard)
    return heard


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture
def finished(suite: str, tmp_path: Path) -> Path:
    _run(suite, tmp_path / "out")
    return tmp_path / "out"


def test_a_suite_leaves_everything_that_is_promised(suite: str, tmp_path: Path) -> None:
    heard = _run(suite, tmp_path)
    assert heard.begun == [(2, 0)]
    assert heard.runs == ["full-seed0", "adaptive-seed0"]
    assert heard.epochs == [(run, epoch) for run in heard.runs for epoch in (1, 2)]
    for run in heard.runs:
        files = {path.name for path in (tmp_path / "runs" / run).iterdir()}
        assert files == {"config.json", "split.csv", "result.json", "cases.csv", "history.csv", "checkpoint.pt"}
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert tuple(rows[0]) == records.COLUMNS
    assert len(rows) == 2 * 2 * 3  # runs x domains x classes
    undrawn = [(row["strategy"], row["domain"], row["class"]) for row in rows if row["annotated"] == "False"]
    assert undrawn == [("adaptive", "B", "LA")]
    config = records.read_suite(tmp_path)
    assert config.data.options["gap"] == 1.0  # the data set's own default, filled in
    stored = RunConfig.model_validate_json((tmp_path / "runs" / "full-seed0" / "config.json").read_text())
    assert stored == config.runs()[0]


def test_what_is_finished_is_skipped(suite: str, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*")}
    heard = _run(suite, finished)
    assert heard.begun == [(0, 2)]
    assert heard.runs == heard.epochs == []
    assert {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*")} == before


def test_more_seeds_add_runs(suite: str, finished: Path) -> None:
    heard = _run(suite, finished, "seeds=[0, 1]")
    assert heard.runs == ["full-seed1", "adaptive-seed1"]
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert {(row["strategy"], row["seed"]) for row in rows} == {(s, n) for s in ("full", "adaptive") for n in "01"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=3", "another configuration: give another directory.*\n  training.epochs: 2 there, 3 asked"),
        ("data.gap=0.5", "data.gap: 1.0 there, 0.5 asked"),
        ("strategies.adaptive.dropout=0.1", "strategy.dropout: 0.5 there, 0.1 asked"),
        ("seeds=[5]", "holds run '[a-z]*-seed0', which is not asked for"),
    ],
)
def test_another_configuration_is_not_mixed_in(suite: str, finished: Path, override: str, message: str) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(SuiteError, match=message):
        _run(suite, finished, override)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_directory_in_use_is_refused(suite: str, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(SuiteError, match="in use by another process"):
        _run(suite, tmp_path)
    assert _run(suite, tmp_path).runs  # and free again afterwards


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes where Linux shows them")
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
    children = _children(process.pid)
    process.kill()  # the parent alone: its workers have to notice
    process.wait()
    assert (broken / "history.csv").exists(), "the process ended before its third run began"
    assert len(children) >= 2
    deadline = time.monotonic() + 10
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, children))
    assert not (broken / "result.json").exists()
    kept = {path: path.read_bytes() for path in out.glob("runs/*/result.json")}
    assert kept
    # what a kill in the middle of writing leaves
    (broken / ".checkpoint.pt.abc.tmp").write_bytes(b"half")
    (out / ".results.csv.abc.tmp").write_text("half")

    heard = _run(suite, out, *overrides)
    assert heard.begun == [(4 - len(kept), len(kept))]
    assert ("adaptive-seed0", 20) in heard.epochs
    assert {path: path.read_bytes() for path in kept} == kept
    assert not list(out.rglob("*.tmp"))
    assert len((broken / "history.csv").read_text().splitlines()) == 21
    # A worker process gives the same numbers as this one
    _run(suite, tmp_path / "whole", *overrides)
    assert (out / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()


def test_as_many_runs_go_side_by_side_as_the_suite_and_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    config = suites.load("smoke").config
    with workers.threads(2):
        assert workers.count(config, todo=7) == 1
        assert workers.count(config.model_copy(update={"workers": "auto"}), todo=7) == 4
        assert workers.count(config.model_copy(update={"workers": "auto"}), todo=3) == 3
        assert workers.count(config.model_copy(update={"workers": 6}), todo=7) == 6
        assert workers.count(config.model_copy(update={"workers": 6}), todo=0) == 1


def test_an_error_in_a_worker_reaches_the_parent(suite: str, tmp_path: Path) -> None:
    """A suite that the worker cannot prepare stands for any error that only a worker meets."""
    loaded = suites.load(suite)
    config = sweep.prepare(loaded).config
    broken = suites.Suite("broken.toml", config.model_copy(update={"data": DataConfig(name="fantom")}))
    with pytest.raises(RuntimeError, match=r"(?s)before its first run.*Traceback.*broken.toml: data.name"):
        workers.side_by_side(config.runs(), broken, tmp_path, "32-true", 1, lambda *_: None)


def test_a_run_that_cannot_go_on_stops_no_other(suite: str, tmp_path: Path) -> None:
    heard = Heard()
    # a learning rate that throws the weights beyond float32 in the first step
    loaded = suites.load(suite, ["training.learning_rate=1e38", "training.schedule=poly"])
    with pytest.raises(
        TrainingError, match=r"(?s)2 of 2 runs could not go on:.*full-seed0.*epoch 1, step 2 of 2.*adap"
    ):
        sweep.run(loaded, tmp_path, device="cpu", listener=heard)
    assert heard.failures == ["full-seed0", "adaptive-seed0"]
    assert not list(tmp_path.rglob("result.json"))


def test_a_suite_repeats_itself(suite: str, finished: Path, tmp_path: Path) -> None:
    _run(suite, tmp_path / "again")
    assert (tmp_path / "again" / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"phantom"', '"fantom"', "tiny.toml: data.name: .*'fantom'; did you mean 'phantom'"),
        ("size = 16", "siez = 16", "tiny.toml: data.siez: there is no such key; did you mean 'size'"),
        ("size = 16", "size = 'big'", "tiny.toml: data.size"),
        ("drawn.B =", "drawn.C =", "tiny.toml: data: .*no domain 'C'"),
        ('"LVM"]', '"LVMM"]', "tiny.toml: data: .*'LVMM'; did you mean 'LVM'"),
        ("channels = [4, 8]", "name = 'unett'", "tiny.toml: model: .*'unett'; did you mean 'unet'"),
        ("channels = [4, 8]", "channels = [4]", "tiny.toml: model: .*at least two levels"),
        ("channels = [4, 8]", "channels = [4, 4, 4, 4, 4, 4]", "tiny.toml: model: unet with channels .* cannot take"),
        ('"adaptive_ce"', '"adaptiv_ce"', "strategies.adaptive.loss: .*'adaptiv_ce'; did you mean 'adaptive_ce'"),
        ("dropout = 0.5", "loss_options.gamma = 1", "tiny.toml: strategies.adaptive.loss_options: .*gamma"),
        ('["LA"]', '["LAA"]', "strategies.adaptive.dropout_classes: .*'LAA'; did you mean 'LA'"),
        (
            "drawn.B =",
            "drawn = {A = [], B = []}\n#",
            "tiny.toml: data: the validation split shows no class that",
        ),
    ],
)
def test_every_name_is_checked_before_training(tmp_path: Path, old: str, new: str, message: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(SuiteError, match=message):
        _run(write_suite(tmp_path, TOML.replace(old, new)), out)
    assert not out.exists()


def test_an_unknown_device_is_refused(suite: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no choice 'gpu'; did you mean 'cpu'"):
        sweep.run(suites.load(suite), tmp_path, device="gpu", listener=Heard())


def test_a_loss_without_a_cuda_kernel_is_said_and_not_passed_over(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = checks.prepare(suites.load(suite))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("labeldrop_bench.losses.PartialLabelLoss.runs_on", lambda self, device_type: False)
    with pytest.warns(UserWarning, match="--device auto: training on the CPU, although there is a CUDA device"):
        assert checks.choose_device("auto", prepared) == "cpu"
    with pytest.raises(SuiteError, match="--device cuda: the losses of these strategies have no CUDA kernel"):
        checks.choose_device("cuda", prepared)
    monkeypatch.setattr("labeldrop_bench.losses.PartialLabelLoss.runs_on", lambda self, device_type: True)
    assert checks.choose_device("auto", prepared) == "cuda"


def test_auto_precision_is_one_of_the_two_and_is_recorded(suite: str, tmp_path: Path) -> None:
    heard = _run(suite, tmp_path, "training.precision=auto", "training.epochs=1")
    results = [json.loads((tmp_path / "runs" / run / "result.json").read_text()) for run in heard.runs]
    (precision,) = {result["environment"]["precision"] for result in results}
    assert precision in ("bf16-mixed", "32-true")


@pytest.mark.slow
def test_two_processes_train_like_one(suite: str, tmp_path: Path) -> None:
    """Same batches, shared out; without dropout and augmentation the only difference is the order of sums."""
    overrides = ("strategies.adaptive.dropout=0", "training.epochs=4", "training.learning_rate=0.01")
    _run(suite, tmp_path / "one", *overrides)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "labeldrop_bench.cli", "run", suite, "--out", str(tmp_path / "two"), "--device", "cpu",
        *(word for override in overrides for word in ("--set", override)),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Ranked by") == 1  # only the first process prints
    one, two = (
        [float(row["loss"]) for row in csv.DictReader((tmp_path / n / "runs/adaptive-seed0/history.csv").open())]
        for n in ("one", "two")
    )
    assert two == pytest.approx(one, rel=0.02)
    result = json.loads((tmp_path / "two" / "runs" / "full-seed0" / "result.json").read_text())
    assert result["environment"]["processes"] == "2"
