"""Runs as tasks of a Ray cluster. Imported only when asked for: Ray is an extra.

A task gets its run's configuration and the files of the run that are there, trains in a temporary directory of its own
machine, and gives back the files, which the driver writes. So nothing but the data sets has to be where the tasks are.
Ray does a task again if its machine or process is lost; epochs are told meanwhile through an actor beside the driver.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from labeldrop_bench import records
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import RunConfig, RunFailure, RunResult, SuiteConfig
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep import limits
from labeldrop_bench.sweep.checks import Precision, Prepared, choose_device, prepare
from labeldrop_bench.sweep.jobs import Job, News, Outcome, Tell, do, failure, make_fabric
from labeldrop_bench.sweep.trial import choose_precision, try_step

RETRIES = 3  # of a task whose machine or process was lost
INTERVAL = 0.25  # seconds between looks at what the tasks have told

Note = Callable[[str], None]
Files = dict[str, bytes]  # path within a run's directory -> content


@dataclass(frozen=True)
class Needs:
    """What a run takes of a machine.

    Attributes:
        cpus: one for each thread.
        gpus: 0 or 1, or a part of one.
        memory: in bytes.
    """

    cpus: int
    gpus: float
    memory: int

    def fits(self, node: dict[str, float]) -> bool:
        """Whether a machine with these resources could do it."""
        return (
            node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus and node.get("memory", 0) >= self.memory
        )


@contextmanager
def connected(address: str, note: Note) -> Iterator[None]:
    """Be a driver of a Ray cluster.

    Args:
        address: of its head ("host:port"), or "auto": the cluster that runs on this machine, or one that is started for
            this sweep alone.
        note: told which.

    Raises:
        SuiteError: nothing answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing leaves the machines
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do, and warns about
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _beside_the_package():
            ray.init(address=address, **quiet)
        note(f"Ray cluster at {ray.get_runtime_context().gcs_address}: {_resources()}")
    except ConnectionError as error:
        if address != "auto":
            raise SuiteError(
                f"--ray {address}: no Ray cluster answers there ({error}): start one with `ray start --head`, or use "
                f"--ray auto"
            ) from error
        with _beside_the_package():
            ray.init(address="local", include_dashboard=False, **quiet)
        note(f"no Ray cluster runs here: one was started on this machine for this sweep: {_resources()}")
    try:
        yield
    finally:
        ray.shutdown()  # ends the tasks of this driver, too


@contextmanager
def _beside_the_package() -> Iterator[None]:
    """Be in the directory that this package was imported from.

    Ray lets its workers look for modules first in the directory that `init` was called in. In a checkout they would
    find a package without kernels, where the driver has the one that is installed.
    """
    before = Path.cwd()
    os.chdir(Path(__file__).parents[2])
    try:
        yield
    finally:
        os.chdir(before)


def survey(
    suite: Suite, device: str, per_gpu: limits.Workers | None, *, note: Note, log_tensorboard: bool
) -> tuple[Job, Needs]:
    """Let a machine that would do runs say how: on which device, in which precision, with how much memory.

    Args:
        suite: what is run.
        device: as for `sweep.run`.
        per_gpu: how many runs share a GPU; None is one.
        note: told what a person should know.
        log_tensorboard: for the job.

    Raises:
        SuiteError: the device or the share does not exist there.
    """
    nodes = _nodes()
    any_gpu = any(node.get("GPU", 0) for node in nodes)
    if device == "cuda" and not any_gpu:
        raise SuiteError("--device cuda: no machine of the Ray cluster has a GPU; use --device cpu")
    if not any_gpu:
        device = "cpu"  # also where a machine has GPUs that Ray was not given
    gpus = 0.0 if device == "cpu" else 1.0
    cpus = cpus_of_a_run(suite.config.training.threads, nodes, gpus)
    first = Needs(cpus, gpus, memory=0)
    device, precision, memory, notes = ray.get(_task_of(_survey, first).remote(suite, device, cpus))
    for text in notes:
        note(text)
    if per_gpu is not None and (device != "cuda" or per_gpu == "auto"):
        raise SuiteError(
            f"--workers {per_gpu}: with --ray it is the number of runs that share a GPU, and these runs are done on "
            f"{device!r}; leave it out"
        )
    if device == "cuda":
        gpus /= per_gpu if isinstance(per_gpu, int) else 1
        cpus = cpus_of_a_run(suite.config.training.threads, nodes, gpus)
    needs = Needs(cpus, gpus if device == "cuda" else 0.0, memory)
    if not any(map(needs.fits, nodes)):
        note(
            f"no machine of the Ray cluster has {needs.cpus} CPUs, {needs.gpus:g} GPUs and "
            f"{needs.memory / limits.GIB:.2f} GiB of memory for a run; it has {_resources()}: waiting for one"
        )
    return Job(suite, device, precision, cpus, log_tensorboard), needs


def cpus_of_a_run(threads: int | None, nodes: Sequence[dict[str, float]], gpus: float) -> int:
    """Threads of a run: as the suite says, or as many as every machine has for it.

    Args:
        threads: the suite's; None leaves it open.
        nodes: resources of the machines, by Ray's names.
        gpus: that a run takes; a machine's CPUs are shared out with its GPUs.
    """
    if threads is not None:
        return threads
    shares = [
        node.get("CPU", 0) * (gpus / node["GPU"] if gpus else 1)
        for node in nodes
        if node.get("CPU", 0) and (not gpus or node.get("GPU", 0))
    ]
    return max(1, int(min(shares, default=1)))


def run_all(todo: Sequence[RunConfig], job: Job, directory: Path, needs: Needs, tell: Tell) -> None:
    """Do the runs, each as a task; all of them are handed to Ray, which waits for room.

    Args:
        todo: the runs.
        job: what they have in common.
        directory: the suite's, on this machine.
        needs: of each run.
        tell: told about every run.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox: Any = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
    task = _task_of(_train, needs)
    pending = {
        task.remote(config, job, pack(records.run_directory(directory, config)), mailbox): config for config in todo
    }
    while pending:
        ready, _ = ray.wait(list(pending), timeout=INTERVAL)
        under_way = {config.run: config for config in pending.values()}
        for run, news in ray.get(mailbox.take.remote()):
            if run in under_way:  # not from a machine that was only thought to be lost
                tell(under_way[run], news)
        for reference in ready:
            config = pending.pop(reference)
            tell(config, _collect(reference, config, directory))


def _collect(reference: Any, config: RunConfig, directory: Path) -> Outcome:  # noqa: ANN401 - Ray's types
    """Write the files of a task that has ended; how its run ended."""
    try:
        files, outcome = ray.get(reference)
    except RayError as error:  # its machine or process was lost, again and again
        lost = failure(config, error)
        return lost.model_copy(update={"message": f"lost {RETRIES + 1} times: {lost.message}"})
    unpack(records.run_directory(directory, config), files)
    result: Outcome = outcome
    return result


def _task_of(function: Callable[..., Any], needs: Needs) -> Any:  # noqa: ANN401 - Ray's types
    """A function as a task, which Ray does again if its machine or process is lost."""
    return ray.remote(
        num_cpus=needs.cpus,
        num_gpus=needs.gpus,
        memory=needs.memory,
        max_retries=RETRIES,
        max_calls=1 if needs.gpus else 0,  # a process that has used a GPU keeps to it, and the next run may get another
    )(function)


def pack(directory: Path) -> Files:
    """The files of a run."""
    paths = [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(".tmp")]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


def unpack(directory: Path, files: Files) -> None:
    """Write the files of a run, result.json last, and remove those that it has not left."""
    for name in pack(directory).keys() - files.keys():
        (directory / name).unlink()
    for name in sorted(files, key=lambda name: (name == "result.json", name)):
        records.write_bytes(directory / name, files[name])


class _Mailbox:
    """Keeps what tasks tell until the driver asks for it."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, News]] = []

    def put(self, run: str, news: News) -> None:
        self.letters.append((run, news))

    def take(self) -> list[tuple[str, News]]:
        letters, self.letters = self.letters, []
        return letters


def _survey(suite: Suite, device: str, threads: int) -> tuple[str, Precision, int, list[str]]:
    """Device, precision, peak memory in bytes, notes."""
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared = _prepared(suite.source, suite.config.model_dump_json())
        device = choose_device(device, prepared)
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    precision = choose_precision(prepared, device, notes.append)
    try_step(prepared, device, precision)
    return device, precision, limits.peak_memory(), notes


def _train(config: RunConfig, job: Job, files: Files, mailbox: Any) -> tuple[Files, Outcome]:  # noqa: ANN401 - an actor
    """One run, in a directory that is gone afterwards; its files and how it ended."""
    torch.set_num_threads(job.threads)
    outcomes: list[Outcome] = []
    worker = f"{socket.gethostname()}, process {os.getpid()}"

    def tell(_: RunConfig, news: News) -> None:
        if isinstance(news, RunResult | RunFailure):
            outcomes.append(news)
        else:
            ray.get(mailbox.put.remote(config.run, news))  # waits, so that nothing comes after the result

    with tempfile.TemporaryDirectory(prefix="labeldrop-bench-") as folder:
        here = records.run_directory(Path(folder), config)
        unpack(here, files)
        try:
            prepared, fabric = _prepared(job.suite.source, job.suite.config.model_dump_json()), make_fabric(job)
            do(config, prepared, Path(folder), fabric=fabric, tell=tell, worker=worker)
        except Exception as error:
            outcomes.append(failure(config, error))
        return pack(here), outcomes[-1]


@lru_cache(maxsize=1)
def _prepared(source: str, config: str) -> Prepared:
    """The data of a suite, loaded once in each worker process."""
    return prepare(Suite(source, SuiteConfig.model_validate_json(config)))


def _nodes() -> list[dict[str, float]]:
    """Resources of each machine, by Ray's names."""
    return [node["Resources"] for node in cast(Any, ray).nodes() if node["Alive"]]


def _resources() -> str:
    """What the cluster has, for people."""
    nodes = _nodes()
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"{len(nodes)} machine{'s' if len(nodes) > 1 else ''}, {cpus:g} CPUs, {gpus:g} GPUs"
