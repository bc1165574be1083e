"""Runs as tasks of a Ray cluster: two nodes on this machine, one of which is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from listeners import Heard, run_suite
from tiny import write_suite

from labeldrop_bench import suites, sweep
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import FailedRunsError, SuiteError
from labeldrop_bench.records import RunConfig

if find_spec("ray") is None:
    REASON = "Ray is not installed: pip install 'labeldrop-bench[ray]'"
    if "CI" in os.environ:
        pytest.fail(REASON)
    pytest.skip(REASON, allow_module_level=True)

from ray.cluster_utils import Cluster

from labeldrop_bench.sweep import cluster as on_ray
from labeldrop_bench.sweep.limits import Workers

MIB = 2**20
SMALLER = ("data.train=4", "data.validation=2", "data.test=2", "training.precision=32-true", "training.epochs=60")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two machines of one CPU each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")  # so that a lost node is soon noticed
    monkeypatch.setenv("RAY_health_check_failure_threshold", "4")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    small = {"num_cpus": 1, "object_store_memory": 80 * MIB, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    cluster.add_node(**small)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def _smaller_smoke() -> suites.Suite:
    """Five strategies of smoke: epochs enough to be heard of while they last, images few enough not to last long."""
    suite = suites.load("smoke", SMALLER)
    return replace(suite, config=suite.config.model_copy(update={"strategies": suite.config.strategies[:5]}))


def _is_on(node: object, worker: str) -> bool:
    """Whether a process that a task was in, by its name for people, belongs to a node."""
    pid = int(worker.rpartition(" ")[2])
    (raylet,) = node.all_processes["raylet"]  # type: ignore[attr-defined]
    return psutil.Process(pid).ppid() == raylet.process.pid


@pytest.mark.slow
def test_a_node_is_lost_and_every_run_is_done_exactly_once(nodes: Cluster, tmp_path: Path) -> None:
    (node,) = nodes.worker_nodes
    lost: list[str] = []

    def lose(config: RunConfig, epoch: Epoch) -> None:
        """In the middle of a run, once the first is done."""
        if heard.runs and not lost and epoch.epoch < 25 and _is_on(node, dict(heard.starts)[config.run]):
            lost.append(config.run)
            nodes.remove_node(node, allow_graceful=False)

    heard = Heard(lose)
    suite = _smaller_smoke()
    out = tmp_path / "ray"
    sweep.run(suite, out, device="cpu", listener=heard, ray=nodes.address)
    names = [config.run for config in suite.config.runs()]
    assert sorted(heard.runs) == sorted(names)  # each of them once
    assert sorted(run for run, _ in heard.starts) == sorted(names + lost)  # the one on the lost node began again
    assert len(lost) == 1
    assert not heard.failures
    assert heard.notes[0].endswith("2 machines, 2 CPUs, 0 GPUs")
    sweep.run(suite, tmp_path / "local", device="cpu", listener=Heard())
    assert (out / "results.csv").read_bytes() == (tmp_path / "local" / "results.csv").read_bytes()
    for name in names:
        files = {path.name for path in (tmp_path / "local" / "runs" / name).iterdir()}
        assert {path.name for path in (out / "runs" / name).iterdir()} == files


@pytest.mark.slow
def test_a_run_that_raises_or_loses_its_process_stops_no_other(nodes: Cluster, tmp_path: Path) -> None:
    """Files that are there travel, so that a run goes on; one of them cannot be read. A process is killed each time."""
    killed: list[str] = []

    def kill(config: RunConfig, epoch: Epoch) -> None:
        if config.strategy.name == "full" and config.seed == 1 and epoch.epoch == 1:
            worker = heard.starts[-1][1] if heard.starts[-1][0] == config.run else dict(heard.starts)[config.run]
            killed.append(worker)
            psutil.Process(int(worker.rpartition(" ")[2])).kill()

    overrides = ("seeds=[0, 1]", "training.epochs=40")
    unreadable = tmp_path / "out" / "runs" / "adaptive-seed1" / "last.pt"
    unreadable.parent.mkdir(parents=True)
    unreadable.write_bytes(b"no checkpoint")
    heard = Heard(kill)
    suite = suites.load(write_suite(tmp_path), overrides)
    with pytest.raises(FailedRunsError, match="2 of 4 runs could not go on"):
        sweep.run(suite, tmp_path / "out", device="cpu", listener=heard, ray=nodes.address, log_tensorboard=True)
    assert sorted(heard.runs) == ["adaptive-seed0", "full-seed0"]
    raised, lost = sorted(heard.failures, key=lambda failure: failure.run)
    assert "last.pt: cannot be read" in raised.message
    assert "Traceback" in raised.traceback
    assert lost.message.startswith(f"lost {on_ray.RETRIES + 1} times: ")
    assert len(killed) == on_ray.RETRIES + 1
    assert list((tmp_path / "out" / "runs" / "full-seed0" / "tensorboard").glob("events.*"))


def test_an_address_where_nothing_answers_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(on_ray.ray, "init", refuse)
    with pytest.raises(SuiteError, match=r"--ray somewhere:1: no Ray cluster answers there \(nobody there\)"):
        run_suite(write_suite(tmp_path), tmp_path / "out", ray="somewhere:1")


def test_auto_starts_a_cluster_where_none_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def init(address: str, **_: object) -> None:
        asked.append(address)
        if address == "auto":
            raise ConnectionError

    monkeypatch.setattr(on_ray.ray, "init", init)
    monkeypatch.setattr(on_ray.ray, "shutdown", lambda: asked.append("shutdown"))
    monkeypatch.setattr(on_ray, "_nodes", lambda: [{"CPU": 8.0, "GPU": 2.0}])
    notes: list[str] = []
    with on_ray.connected("auto", notes.append):
        assert asked == ["auto", "local"]
    assert asked[-1] == "shutdown"
    assert notes == [
        "no Ray cluster runs here: one was started on this machine for this sweep: 1 machine, 8 CPUs, 2 GPUs"
    ]


def test_threads_are_the_suites_or_what_every_machine_has() -> None:
    nodes = [{"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0}, {"CPU": 64.0, "GPU": 8.0}, {"memory": 1.0}]
    assert on_ray.cpus_of_a_run(3, nodes, 0.0) == 3
    assert on_ray.cpus_of_a_run(None, nodes, 0.0) == 8
    assert on_ray.cpus_of_a_run(None, nodes, 1.0) == 4
    assert on_ray.cpus_of_a_run(None, nodes, 0.5) == 2
    assert on_ray.cpus_of_a_run(None, [], 0.0) == 1


def test_a_machine_must_have_all_that_a_run_needs() -> None:
    needs = on_ray.Needs(cpus=2, gpus=0.5, memory=100)
    enough = {"CPU": 2.0, "GPU": 1.0, "memory": 100.0}
    assert needs.fits(enough)
    for name in enough:
        assert not needs.fits({**enough, name: 0.25})


def test_files_of_a_run_travel_and_what_it_removed_goes(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name in ("result.json", "grid0/history.csv", "tensorboard/events.1"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    (there / ".half.tmp").write_text("half")
    here.mkdir()
    (here / "last.pt").write_text("where to go on")
    on_ray.unpack(here, on_ray.pack(there))
    found = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert found == {"result.json", "grid0/history.csv", "tensorboard/events.1"}
    assert (here / "grid0/history.csv").read_text() == "grid0/history.csv"


GPU_NODES = [{"CPU": 16.0, "GPU": 4.0, "memory": 64.0 * 2**30}, {"CPU": 8.0, "memory": 64.0 * 2**30}]


def _surveyed(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], device: str, found: str, per_gpu: Workers | None
) -> tuple[on_ray.Job, on_ray.Needs, list[str]]:
    """What `survey` makes of a cluster with these machines, where a task would find this device."""
    asked: list[on_ray.Needs] = []

    def task_of(function: object, needs: on_ray.Needs) -> SimpleNamespace:
        asked.append(needs)
        return SimpleNamespace(remote=lambda suite, device, cpus: (found, "32-true", 3 * 2**30, ["a warning"]))

    monkeypatch.setattr(on_ray, "_nodes", lambda: nodes)
    monkeypatch.setattr(on_ray, "_task_of", task_of)
    monkeypatch.setattr(on_ray.ray, "get", lambda answer: answer)
    notes: list[str] = []
    suite = suites.load("smoke", ["training.threads=2"])
    job, needs = on_ray.survey(suite, device, per_gpu, note=notes.append, log_tensorboard=False)
    assert asked[0].gpus == (0 if device == "cpu" or len(nodes) == 1 else 1)  # the trial step has a GPU to itself
    return job, needs, notes


@pytest.mark.parametrize(("per_gpu", "gpus"), [(None, 1.0), (1, 1.0), (4, 0.25)])
def test_runs_ask_for_a_gpu_or_a_share_of_one(
    per_gpu: int | None, gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, needs, notes = _surveyed(monkeypatch, GPU_NODES, "auto", "cuda", per_gpu)
    assert (job.device, job.precision, job.threads) == ("cuda", "32-true", 2)
    assert needs == on_ray.Needs(cpus=2, gpus=gpus, memory=3 * 2**30)
    assert notes == ["a warning"]


def test_runs_on_the_cpu_ask_for_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    job, needs, _ = _surveyed(monkeypatch, GPU_NODES, "auto", "cpu", None)  # a loss has no CUDA kernel
    assert (job.device, needs.gpus) == ("cpu", 0)
    with pytest.raises(SuiteError, match="--workers 2: with --ray it is the number of runs that share a GPU"):
        _surveyed(monkeypatch, GPU_NODES, "cpu", "cpu", 2)
    with pytest.raises(SuiteError, match="--device cuda: no machine of the Ray cluster has a GPU"):
        _surveyed(monkeypatch, GPU_NODES[1:], "cuda", "cuda", None)


def test_a_cluster_without_room_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [{"CPU": 8.0, "memory": 2.0 * 2**30}]
    _, _, notes = _surveyed(monkeypatch, small, "auto", "cpu", None)
    assert notes[1] == (
        "no machine of the Ray cluster has 2 CPUs, 0 GPUs and 3.00 GiB of memory for a run; it has "
        "1 machine, 8 CPUs, 0 GPUs: waiting for one"
    )


def test_ray_does_not_go_with_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SuiteError, match="--ray: does not go with torchrun"):
        run_suite(write_suite(tmp_path), tmp_path / "out", ray="auto")
