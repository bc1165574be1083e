"""A suite's runs: what is done is skipped, what was broken off is done again.

Everything that can be wrong with a suite is found by `prepare`, before anything is trained. `run` then works in one
directory (see `records` for its layout), which it locks. A run is finished when its result.json is there; every file
appears under its name only when it is whole, so a killed process leaves nothing that could be mistaken for a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import SuiteError, TrainingError
from labeldrop_bench.records import RunConfig, RunResult
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep import folder, workers
from labeldrop_bench.sweep.checks import Prepared, choose_device, choose_precision, prepare
from labeldrop_bench.sweep.workers import News
from labeldrop_bench.train import steps_per_epoch

__all__ = ["Listener", "Prepared", "prepare", "run"]


class Listener(Protocol):
    """Who is told how a suite gets on; only by the first process."""

    def begin(self, todo: Sequence[RunConfig], done: int) -> None:
        """Before the first run: the runs to be done, and how many were found finished."""

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        """After every epoch."""

    def finished(self, config: RunConfig, result: RunResult) -> None:
        """After every run, with results.csv up to date."""

    def failed(self, config: RunConfig, error: TrainingError) -> None:
        """After a run that could not go on; the others do."""


def run(suite: Suite, directory: Path, *, device: str, listener: Listener) -> None:
    """Train and score everything that a suite asks for and that the directory does not hold yet.

    On the CPU, runs go side by side if the suite allows it (`workers`). Under torchrun its processes share every
    batch instead; the first one checks, writes and listens.

    Args:
        suite: what to run.
        directory: where the files go; made if need be.
        device: "cpu", "cuda" or "auto" (cuda where there is one and every loss can use it).
        listener: told about epochs and runs.

    Raises:
        SuiteError: the suite is wrong, the directory holds something else or is in use, there is no such device.
        TrainingError: some runs could not go on; the others are done.
    """
    prepared = prepare(suite)
    config = prepared.config
    device = choose_device(device, prepared)
    failures: list[str] = []

    def tell(run_config: RunConfig, news: News) -> None:
        if isinstance(news, Epoch):
            listener.epoch(run_config, news)
        elif isinstance(news, RunResult):
            folder.write_results(directory, config)
            listener.finished(run_config, news)
        else:
            failures.append(str(news))
            listener.failed(run_config, news)

    with workers.threads(config.training.threads):
        precision = choose_precision(prepared, device)
        fabric = workers.make_fabric(device, precision)
        _check_shares(suite, prepared, fabric.world_size)
        with folder.locked(directory, fabric.is_global_zero):
            todo = fabric.broadcast(folder.open_(directory, config) if fabric.is_global_zero else [])
            if fabric.is_global_zero:
                listener.begin(todo, len(config.runs()) - len(todo))
            side_by_side = 1 if fabric.world_size > 1 or device != "cpu" else workers.count(config, len(todo))
            if side_by_side > 1:
                workers.side_by_side(todo, suite, directory, precision, side_by_side, tell)
            else:
                workers.one_by_one(todo, prepared, directory, fabric, tell)
    if failures:
        raise TrainingError(f"{len(failures)} of {len(todo)} runs could not go on:\n  " + "\n  ".join(failures))


def _check_shares(suite: Suite, prepared: Prepared, processes: int) -> None:
    """Each process must get a sample of every batch."""
    for run in prepared.config.runs() if processes > 1 else ():
        dataset = prepared.dataset(run)
        smallest_batch = len(dataset.train) * run.patches.per_image // steps_per_epoch(dataset, run)
        if smallest_batch < processes:
            raise SuiteError(
                f"{suite.source}: training.batch_size: {run.training.batch_size} gives batches of {smallest_batch}, "
                f"and each of the {processes} processes needs a sample: make it larger, or start fewer processes"
            )
