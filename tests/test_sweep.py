from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from listeners import Heard, run_suite
from tiny import TOML, write_suite

from labeldrop_bench import records, suites, sweep
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import RunConfig, RunResult
from labeldrop_bench.sweep import checks

ROOT = Path(sweep.__file__).parents[1]  # where processes started here find the package that is being tested


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture
def finished(suite: str, tmp_path: Path) -> Path:
    run_suite(suite, tmp_path / "out")
    return tmp_path / "out"


def test_a_suite_leaves_everything_that_is_promised(suite: str, tmp_path: Path) -> None:
    heard = run_suite(suite, tmp_path)
    assert heard.begun == [(2, 0)]
    assert heard.runs == ["full-seed0", "adaptive-seed0"]
    assert heard.epochs == [(run, epoch) for run in heard.runs for epoch in (1, 2)]
    for run in heard.runs:
        files = {path.name for path in (tmp_path / "runs" / run).iterdir()}
        promised = {"config.json", "split.csv", "result.json", "cases.csv", "examples.npz"}
        assert files == promised | {"history.csv", "checkpoint.pt"}
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert tuple(rows[0]) == records.COLUMNS
    metrics = {*records.METRICS, *records.SIGHTINGS}
    assert len(rows) == 2 * 2 * 3 * len(metrics)  # runs x domains x classes x metrics
    unannotated = {(row["strategy"], row["domain"], row["class"]) for row in rows if row["annotated"] == "False"}
    assert unannotated == {("adaptive", "B", "LA")}
    config = records.read_suite(tmp_path)
    assert config.data.options["gap"] == 1.0  # the data set's own default, filled in
    stored = RunConfig.model_validate_json((tmp_path / "runs" / "full-seed0" / "config.json").read_text())
    assert stored == config.runs()[0]


def test_what_is_finished_is_skipped(suite: str, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*")}
    heard = run_suite(suite, finished)
    assert heard.begun == [(0, 2)]
    assert heard.runs == heard.epochs == []
    assert {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*")} == before


def test_more_seeds_add_runs(suite: str, finished: Path) -> None:
    heard = run_suite(suite, finished, "seeds=[0, 1]")
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
        run_suite(suite, finished, override)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("run", ["full-seed0", "adaptive-seed0"])
def test_data_that_have_changed_are_not_mixed_in(suite: str, finished: Path, run: str) -> None:
    split = finished / "runs" / run / "split.csv"
    before = split.read_text()
    split.write_text(before.replace("LV; LVM", "LV", 1))  # as the data said it then
    with pytest.raises(SuiteError, match=rf"{run}/split.csv is not what the data say now: .*give another directory"):
        run_suite(suite, finished, "seeds=[0, 1]")
    assert sorted(path.name for path in finished.glob("runs/*")) == ["adaptive-seed0", "full-seed0"]
    split.write_text(before)
    assert run_suite(suite, finished, "seeds=[0, 1]").runs == ["full-seed1", "adaptive-seed1"]


def test_a_directory_in_use_is_refused(suite: str, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(SuiteError, match="in use by another process"):
        run_suite(suite, tmp_path)
    assert run_suite(suite, tmp_path).runs  # and free again afterwards


def test_a_suite_repeats_itself(suite: str, finished: Path, tmp_path: Path) -> None:
    run_suite(suite, tmp_path / "again")
    assert (tmp_path / "again" / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"phantom"', '"fantom"', "tiny.toml: data.name: .*'fantom'; did you mean 'phantom'"),
        ("size = 16", "siez = 16", "tiny.toml: data.siez: there is no such key; did you mean 'size'"),
        ("size = 16", "size = 'big'", "tiny.toml: data.size"),
        ("hidden.B =", "hidden.C =", "tiny.toml: data: .*no domain 'C'"),
        ('hidden.B = ["LA"]', 'hidden.B = ["LAA"]', "tiny.toml: data: .*'LAA'; did you mean 'LA'"),
        ("channels = [4, 8]", "name = 'unett'", "tiny.toml: model: .*'unett'; did you mean 'unet'"),
        ("channels = [4, 8]", "channels = [4]", "tiny.toml: model: .*at least two levels"),
        ("channels = [4, 8]", "channels = [4, 4, 4, 4, 4, 4]", "tiny.toml: model: unet with channels .* cannot take"),
        ('"adaptive_ce"', '"adaptiv_ce"', "strategies.adaptive.loss: .*'adaptiv_ce'; did you mean 'adaptive_ce'"),
        ("dropout = 0.5", "loss_options.gamma = 1", "tiny.toml: strategies.adaptive.loss_options: .*gamma"),
        ('classes = ["LA"]', 'classes = ["LAA"]', "strategies.adaptive.dropout_classes: .*'LAA'; did you mean 'LA'"),
        ("[augmentation]", "[scoring]\ntolerances.LAA = 2\n[augmentation]", "scoring: .*'LAA'; did you mean 'LA'"),
        (
            "hidden.B =",
            "hidden = [{labels = ['LV', 'LVM', 'LA']}]\n#",
            "tiny.toml: data: the validation split shows no class that",
        ),
    ],
)
def test_every_name_is_checked_before_training(tmp_path: Path, old: str, new: str, message: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(SuiteError, match=message):
        run_suite(write_suite(tmp_path, TOML.replace(old, new)), out)
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
    heard = run_suite(suite, tmp_path, "training.precision=auto", "training.epochs=1")
    assert heard.notes[0].startswith('training.precision = "auto": ')
    results = [json.loads((tmp_path / "runs" / run / "result.json").read_text()) for run in heard.runs]
    (precision,) = {result["environment"]["precision"] for result in results}
    assert precision in ("bf16-mixed", "32-true")


@pytest.mark.slow
def test_two_processes_train_like_one(suite: str, tmp_path: Path) -> None:
    """Same batches, shared out; without dropout and augmentation the only difference is the order of sums."""
    overrides = (
        "strategies.adaptive.dropout=0", "training.epochs=4", "training.learning_rate=0.01",
        # sums over the batches of both, which its cost, measured by one of them, must not wait for
        "strategies.adaptive.loss=adaptive_ce+adaptive_dice", "strategies.adaptive.loss_options={batch = true}",
    )  # fmt: skip
    run_suite(suite, tmp_path / "one", *overrides)
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


def test_a_later_call_takes_the_precision_of_the_first(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is decided by a trial, which a busy machine can let come out either way."""
    auto = suites.load(suite, ["training.precision=auto"])
    one = suites.load(suite, ["training.precision=auto", "seeds=[0, 1]"])

    def choose(answer: str) -> None:
        monkeypatch.setattr(sweep, "choose_precision", lambda prepared, device, note: answer)

    choose("bf16-mixed")
    sweep.run(auto, tmp_path, device="cpu", listener=Heard())
    choose("32-true")
    sweep.run(one, tmp_path, device="cpu", listener=Heard())
    results = [RunResult.model_validate_json(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert [result.environment["precision"] for result in results] == ["bf16-mixed"] * 4
    (tmp_path / "precision.json").write_text('{"cpu": "float64"}')
    with pytest.raises(SuiteError, match=r"precision.json does not hold a precision for each device: remove it"):
        sweep.run(one, tmp_path, device="cpu", listener=Heard())
