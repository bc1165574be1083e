"""A suite's runs: what is done is skipped, what was broken off is done again.

Everything that can be wrong with a suite is found by `prepare`, before anything is trained. `run` then works in one
directory (see `records` for its layout), which it locks. A run is finished when its result.json is there; every file
appears under its name only when it is whole, so a killed process leaves nothing that could be mistaken for a result.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from labeldrop_bench import extras, records
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import FailedRunsError, SuiteError
from labeldrop_bench.records import RunConfig, RunFailure, RunResult
from labeldrop_bench.run import everything_known, split_csv
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep import folder, limits, workers
from labeldrop_bench.sweep.checks import Precision, Prepared, check_batches, choose_device, prepare
from labeldrop_bench.sweep.jobs import Job, News, Started, make_fabric, stoppable, threads
from labeldrop_bench.sweep.limits import Workers
from labeldrop_bench.sweep.trial import choose_precision, try_step
from labeldrop_bench.text import read_text

__all__ = ["Listener", "Prepared", "prepare", "run"]


class Listener(Protocol):
    """Who is told how a suite gets on; only by the first process."""

    def note(self, text: str) -> None:
        """What a person should know about how the work is done."""

    def begin(self, todo: Sequence[RunConfig], done: int) -> None:
        """Before the first run: the runs to be done, and how many were found finished."""

    def started(self, config: RunConfig, worker: str) -> None:
        """When a run begins, and on a cluster again if its machine was lost; who does it."""

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        """After every epoch."""

    def finished(self, config: RunConfig, result: RunResult) -> None:
        """After every run, once for each, with results.csv up to date."""

    def failed(self, config: RunConfig, failure: RunFailure) -> None:
        """After a run that could not go on, with its failure.json written; the others do."""


def run(
    suite: Suite,
    directory: Path,
    *,
    device: str,
    listener: Listener,
    workers: Workers | None = None,
    ray: str | None = None,
    log_tensorboard: bool = False,
) -> None:
    """Train and score everything that a suite asks for and that the directory does not hold yet.

    Runs go one by one in this process, side by side in worker processes, or as tasks of a Ray cluster. Under torchrun
    its processes share every batch instead; the first one checks, writes and listens.

    Args:
        suite: what to run.
        directory: where the files go; made if need be.
        device: "cpu", "cuda" or "auto" (cuda where there is one and every loss can use it).
        listener: told about epochs and runs.
        workers: how many runs go side by side, instead of what the suite says; with Ray, how many share a GPU.
        ray: address of a cluster, or "auto": the one that runs here, or one that is started for this sweep.
        log_tensorboard: write event files.

    Raises:
        MissingPackageError: TensorBoard or Ray was asked for, and is not installed.
        SuiteError: the suite is wrong, the directory holds something else or is in use, there is no such device, or
            the options do not go together.
        FailedRunsError: some runs failed; the others are done.
    """
    prepared = prepare(suite)
    if log_tensorboard:
        extras.require("--log tensorboard", "tensorboard")
    asked = prepared.config.workers if workers is None else workers
    books = _Books(directory, prepared, listener)
    with threads(prepared.config.training.threads):
        if ray is not None:
            _on_cluster(suite, books, ray, device=device, per_gpu=workers, log_tensorboard=log_tensorboard)
        elif "LOCAL_WORLD_SIZE" in os.environ:
            _here(_job(suite, books, device, log_tensorboard), books, None)
        else:
            with stoppable():
                _here(_job(suite, books, device, log_tensorboard), books, asked)
    books.close()


class _Books:
    """What becomes of the runs: written into the suite's directory, and told."""

    def __init__(self, directory: Path, prepared: Prepared, listener: Listener) -> None:
        self.directory, self.prepared, self.listener = directory, prepared, listener
        self.todo: list[RunConfig] = []
        self.failures: list[RunFailure] = []

    def kept_precision(self, device: str) -> Precision | None:
        """What runs of the directory were computed with on such a device, if the suite leaves it open."""
        asked = self.prepared.first[0].training.precision
        return folder.kept_precision(self.directory, device) if asked == "auto" else None

    def open(self, job: Job) -> list[RunConfig]:
        """What is to be done, in a directory that this process has locked."""
        config = self.prepared.config
        self.todo = folder.open_(self.directory, config, self.listener.note)
        _check_data(self.directory, self.prepared, self.todo)
        folder.keep_precision(self.directory, job.device, job.precision)
        self.listener.begin(self.todo, len(config.runs()) - len(self.todo))
        for text in self.prepared.notes:
            self.listener.note(text)
        return self.todo

    def tell(self, config: RunConfig, news: News) -> None:
        """Write down what has happened, then tell it."""
        if isinstance(news, Started):
            self.listener.started(config, news.worker)
        elif isinstance(news, Epoch):
            self.listener.epoch(config, news)
        elif isinstance(news, RunResult):
            (records.run_directory(self.directory, config) / "failure.json").unlink(missing_ok=True)  # of another call
            folder.write_results(self.directory, self.prepared.config)
            self.listener.finished(config, news)
        else:
            records.write_failure(self.directory, config, news.message, news.traceback)
            self.failures.append(news)
            self.listener.failed(config, news)

    def close(self) -> None:
        """Raises FailedRunsError if a run has failed."""
        if self.failures:
            lines = (
                f"{failure.run}: {failure.message}\n    traceback: {self.directory / 'runs' / failure.run}/failure.json"
                for failure in self.failures
            )
            raise FailedRunsError(
                f"{len(self.failures)} of {len(self.todo)} runs could not go on; the same command tries them again:\n  "
                + "\n  ".join(lines)
            )


def _job(suite: Suite, books: _Books, device: str, log_tensorboard: bool) -> Job:
    """How this machine does the runs; `precision = "auto"` is what it was for those that the directory holds."""
    device = choose_device(device, books.prepared)
    note = books.listener.note if os.environ.get("RANK", "0") == "0" else _unheard  # torchrun's number
    precision = books.kept_precision(device) or choose_precision(books.prepared, device, note)
    job = Job(suite, device, precision, torch.get_num_threads(), log_tensorboard)
    if "LOCAL_WORLD_SIZE" in os.environ:  # a trial may come out otherwise in each process
        job = replace(job, precision=make_fabric(job).broadcast(precision))
    return job


def _check_data(directory: Path, prepared: Prepared, todo: Sequence[RunConfig]) -> None:
    """What is still to be done must see the data that the finished runs of its condition saw, for files may change.

    Raises:
        SuiteError: other cases, another split, or other labels annotated.
    """
    for first in {run.condition: run for run in todo}.values():
        for run in prepared.config.runs():
            path = records.run_directory(directory, run) / "split.csv"
            if run in todo or run.data != first.data or not path.is_file():
                continue
            dataset = prepared.dataset(run)
            seen = split_csv(everything_known(dataset) if run.strategy.full_labels else dataset)
            if read_text(path) != seen:
                raise SuiteError(
                    f"{path} is not what the data say now: files or annotations have changed since, and runs on both "
                    f"cannot be compared. Bring them back, or {folder.REMEDY}"
                )


def _unheard(_: str) -> None:
    """What the other processes would only repeat."""


def _here(job: Job, books: _Books, asked: Workers | None) -> None:
    """Do the runs on this machine.

    Args:
        job: what they have in common.
        books: of the sweep.
        asked: workers; None under torchrun, whose processes do one run together.
    """
    directory, prepared = books.directory, books.prepared
    fabric = make_fabric(job)
    _check_shares(job.suite, prepared, fabric.world_size)
    with folder.locked(directory, fabric.is_global_zero):
        todo = fabric.broadcast(books.open(job) if fabric.is_global_zero else [])
        number = 1 if asked is None else limits.wanted(asked, job.device, len(todo))
        where: Sequence[int | None] = [None]
        if number > 1:
            try_step(prepared, job.device, job.precision)
            where = limits.places(number, job.device, books.listener.note)
        if len(where) > 1:
            if job.device == "cuda":  # there the number of threads decides nothing
                job = replace(job, threads=max(1, limits.cores() // len(where)))
            workers.side_by_side(todo, job, directory, where, books.tell)
        else:
            workers.one_by_one(todo, prepared, directory, fabric, books.tell)


def _on_cluster(
    suite: Suite, books: _Books, address: str, *, device: str, per_gpu: Workers | None, log_tensorboard: bool
) -> None:
    """Do the runs as tasks of a Ray cluster; this process locks the directory and writes the files."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        raise SuiteError("--ray: does not go with torchrun, whose processes do one run together; use one of them")
    extras.require("--ray", "ray")
    from labeldrop_bench.sweep import cluster  # imports Ray

    note = books.listener.note
    with stoppable(), folder.locked(books.directory, first=True), cluster.connected(address, note):
        job, needs = cluster.survey(suite, device, per_gpu, note=note, log_tensorboard=log_tensorboard)
        job = replace(job, precision=books.kept_precision(job.device) or job.precision)
        cluster.run_all(books.open(job), job, books.directory, needs, books.tell)


def _check_shares(suite: Suite, prepared: Prepared, processes: int) -> None:
    """Each process must get a sample of every batch."""
    for run in {run.condition: run for run in prepared.config.runs()}.values() if processes > 1 else ():
        prefix = f"conditions.{run.condition}." if run.condition else ""
        check_batches(suite, run, prepared.dataset(run), processes=processes, prefix=prefix)
