"""Where runs are done: in this process one by one, or in worker processes side by side.

Small networks do not fill a processor's cores: the quick suite's step takes 35 ms on one core and 27 ms on two, so two
runs side by side are done in little more than half the time of one after the other. Threads that wait for each other
at every layer also suffer badly where anything else wants a core (a step of 1000 ms instead of 27 was seen).
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from labeldrop_bench import records
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.errors import TrainingError
from labeldrop_bench.records import RunConfig, RunResult, SuiteConfig
from labeldrop_bench.run import run
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep.checks import Precision, Prepared, prepare

News = Epoch | RunResult | TrainingError
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


def count(config: SuiteConfig, todo: int) -> int:
    """How many runs to do side by side: as the suite says; "auto" gives each of them the cores for its threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = cores // torch.get_num_threads() if config.workers == "auto" else config.workers
    return max(1, min(wanted, todo))


def make_fabric(device: str, precision: Precision) -> Fabric:
    """One process, or all those that torchrun started, with the work shared by DDP."""
    shared = "LOCAL_WORLD_SIZE" in os.environ
    fabric = Fabric(
        accelerator=device,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        strategy="ddp" if shared else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def one_by_one(todo: Sequence[RunConfig], prepared: Prepared, directory: Path, fabric: Fabric, tell: Tell) -> None:
    """Do the runs in this process. A run that cannot go on is told, and the next one follows."""
    for config in todo:
        _do(config, prepared, directory, fabric, tell)


def side_by_side(
    todo: Sequence[RunConfig], suite: Suite, directory: Path, precision: Precision, number: int, tell: Tell
) -> None:
    """Do the runs in so many worker processes on the CPU.

    Raises:
        TrainingError: a worker was killed.
        RuntimeError: a worker met an error that no user can put right; with its traceback.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    tasks: Queue[Any] = context.Queue()  # RunConfig, or None for "no more"
    events: Queue[Any] = context.Queue()  # (RunConfig, News), or (RunConfig or None, traceback)
    for task in (*todo, *[None] * number):
        tasks.put(task)
    arguments = (suite, directory, precision, torch.get_num_threads(), tasks, events)
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(number)]
    try:
        for process in processes:
            process.start()
        left = len(todo)
        while left:
            config, news = _next(events, processes)
            if isinstance(news, str):
                raise RuntimeError(f"worker process, {config.run if config else 'before its first run'}:\n{news}")
            left -= not isinstance(news, Epoch)
            tell(config, news)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _do(config: RunConfig, prepared: Prepared, directory: Path, fabric: Fabric, tell: Tell) -> None:
    """One run, from nothing to its result."""
    here = records.run_directory(directory, config)
    if fabric.is_global_zero:
        records.write_json(here / "config.json", config)  # `folder.open_` has seen to it that nothing else is here
    news: News | None
    try:
        news = run(config, prepared.dataset(config), here, fabric=fabric, on_epoch=lambda epoch: tell(config, epoch))
    except TrainingError as error:
        news = error
    if fabric.is_global_zero and news is not None:
        tell(config, news)


def _work(
    suite: Suite, directory: Path, precision: Precision, num_threads: int, tasks: Queue[Any], events: Queue[Any]
) -> None:
    """What a worker process does: run after run, until there is none left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    config = None
    try:
        torch.set_num_threads(num_threads)
        prepared, fabric = prepare(suite), make_fabric("cpu", precision)
        while (config := tasks.get()) is not None:
            _do(config, prepared, directory, fabric, lambda run, news: events.put((run, news)))
    except Exception:  # whatever it is, it must reach the parent
        events.put((config, traceback.format_exc()))


def _end_with_parent() -> None:
    """A worker must not write into a directory that its parent, killed, no longer holds the lock of."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _next(events: Queue[Any], processes: Sequence[BaseProcess]) -> tuple[Any, News | str]:
    """The next thing that a worker has to tell."""
    while True:
        with suppress(queue.Empty):
            answer: tuple[Any, News | str] = events.get(timeout=1)
            return answer
        codes = [process.exitcode for process in processes if process.exitcode]
        if codes:
            raise TrainingError(
                f"a worker process ended with exit code {codes[0]} (-9: killed, as the system does where memory runs "
                f"out): call again to do the rest, with fewer `workers` if memory is short"
            )
