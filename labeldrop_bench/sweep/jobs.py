"""What a process that trains has to know and to do, wherever it is: this one, a worker, one on another machine."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from labeldrop_bench import records
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import TrainingError, UserError
from labeldrop_bench.records import RunConfig, RunFailure, RunResult
from labeldrop_bench.run import run
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep.checks import Precision, Prepared
from labeldrop_bench.sweep.tensorboard import TensorBoard


@dataclass(frozen=True)
class Job:
    """What all runs of a sweep have in common. It can be pickled.

    Attributes:
        suite: what is run.
        device: "cpu" or "cuda".
        precision: Lightning Fabric's word.
        threads: of torch on the CPU.
        tensorboard: whether event files are written.
    """

    suite: Suite
    device: str
    precision: Precision
    threads: int
    tensorboard: bool = False


@dataclass(frozen=True)
class Started:
    """A run has begun.

    Attributes:
        worker: who does it, for people.
    """

    worker: str


Outcome = RunResult | RunFailure
News = Started | Epoch | Outcome
Tell = Callable[[RunConfig, News], None]


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Let torch use so many threads on the CPU; None leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM, which schedulers send before they kill, ends this process as Ctrl-C does, and its workers with it."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set what a signal does
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_fabric(job: Job, gpu: int | None = None) -> Fabric:
    """One process, or all those that torchrun started, with the work shared by DDP.

    Args:
        job: gives device and precision.
        gpu: index of the one to use; None takes the first, or under torchrun each process its own.
    """
    shared = "LOCAL_WORLD_SIZE" in os.environ
    callbacks: list[Any] = [TensorBoard()] if job.tensorboard else []
    fabric = Fabric(
        accelerator=job.device,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if gpu is None else [gpu],
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        strategy="ddp" if shared else "auto",
        precision=job.precision,
        callbacks=callbacks,
    )
    fabric.launch()
    return fabric


def do(
    config: RunConfig, prepared: Prepared, directory: Path, *, fabric: Fabric, tell: Tell, worker: str = "here"
) -> None:
    """One run, from nothing to its result. An error is told as a failure, so that other runs can follow.

    Args:
        config: of the run.
        prepared: its suite.
        directory: the suite's.
        fabric: device, precision and processes.
        tell: told on the first process that the run has begun, about every epoch, and how it ended.
        worker: who does it, for people.

    Raises:
        Exception: under torchrun, an error that the other processes need not have: they may be waiting for this one.
    """
    first = fabric.is_global_zero
    here = records.run_directory(directory, config)
    news: Outcome | None
    if first:
        tell(config, Started(worker))
    try:
        if first:
            records.write_json(here / "config.json", config)  # `folder.open_` has seen to it that nothing else is here
        news = run(config, prepared.dataset(config), here, fabric=fabric, on_epoch=lambda epoch: tell(config, epoch))
    except Exception as error:
        news = failure(config, error)
        if fabric.world_size > 1 and not isinstance(error, TrainingError):
            if first:
                tell(config, news)
            raise
    finally:
        fabric.call("on_run_end")
    if first and news is not None:
        tell(config, news)


def failure(config: RunConfig, error: BaseException) -> RunFailure:
    """An error as the record of a failed run."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return RunFailure(
        run=config.run,
        message=text.removeprefix(f"run {config.run}: "),
        traceback="".join(traceback.format_exception(error)),
    )
