"""Where runs are done on this machine: in this process one by one, or in worker processes side by side.

Small networks do not fill a processor's cores: the quick suite's step takes 35 ms on one core and 27 ms on two, so two
runs side by side are done in little more than half the time of one after the other. Threads that wait for each other
at every layer also suffer badly where anything else wants a core (a step of 1000 ms instead of 27 was seen).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from lightning_fabric import Fabric

from labeldrop_bench import records
from labeldrop_bench.records import RunConfig, RunFailure, RunResult
from labeldrop_bench.sweep.checks import Prepared, prepare
from labeldrop_bench.sweep.jobs import Job, News, Outcome, Tell, do, failure, make_fabric

KILLED = -9  # by SIGKILL, which Windows does not know
SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
GRACE = 10  # seconds that a worker has to end before it is killed


def one_by_one(todo: Sequence[RunConfig], prepared: Prepared, directory: Path, fabric: Fabric, tell: Tell) -> None:
    """Do the runs in this process."""
    for config in todo:
        do(config, prepared, directory, fabric=fabric, tell=tell)


def side_by_side(
    todo: Sequence[RunConfig], job: Job, directory: Path, places: Sequence[int | None], tell: Tell
) -> None:
    """Do the runs in worker processes. One that is killed costs its run; a fresh one takes its place.

    Args:
        todo: the runs.
        job: what they have in common.
        directory: the suite's.
        places: the GPU of each worker; None on the CPU.
        tell: told about every run.
    """
    waiting = deque(todo)
    crew = [_Worker(job, directory, f"worker {n}", place) for n, place in enumerate(places, start=1)]
    try:
        for worker in crew[: len(todo)]:
            worker.give(waiting.popleft())
        while busy := [worker for worker in crew if worker.config is not None]:
            heard = wait([worker.connection for worker in busy])
            for worker in (worker for worker in busy if worker.connection in heard):
                config, news = worker.news()
                tell(config, news)
                if worker.config is None and waiting:
                    worker.give(waiting.popleft())
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """A process that does one run at a time, as its parent sees it.

    Each has a pipe of its own: a queue that several share is lost to all when one is killed while it writes.

    Attributes:
        config: of the run that it does; None if it has none.
    """

    def __init__(self, job: Job, directory: Path, name: str, gpu: int | None) -> None:
        self.job, self.directory, self.gpu = job, directory, gpu
        self.name = name if gpu is None else f"{name}, GPU {gpu}"
        self.config: RunConfig | None = None
        self._process: SpawnProcess | None = None
        self.connection: Connection

    def give(self, config: RunConfig) -> None:
        """Let it do a run; start the process if there is none."""
        if self._process is None:
            self.connection, theirs = SPAWN.Pipe()
            arguments = (self.job, self.directory, self.name, self.gpu, theirs)
            self._process = SPAWN.Process(target=_work, args=arguments, name=self.name, daemon=True)
            self._process.start()
            theirs.close()  # so that the pipe ends with the process
        self.config = config
        with suppress(OSError):  # it has just been killed, which `news` tells
            self.connection.send(config)

    def news(self) -> tuple[RunConfig, News]:
        """The next thing that it has to tell about its run."""
        assert self.config is not None  # noqa: S101 - for the type checker: `side_by_side` waits for busy ones alone
        config = self.config
        try:
            news: News = self.connection.recv()
        except (EOFError, OSError):
            news = self._ended(config)
        if isinstance(news, RunResult | RunFailure):
            self.config = None
        return config, news

    def end(self) -> None:
        """Stop the process, whatever it does."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(GRACE)
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process = None

    def _ended(self, config: RunConfig) -> Outcome:
        """What is left of a run whose process has ended."""
        assert self._process is not None  # noqa: S101 - for the type checker: it had a run
        self._process.join()
        code = self._process.exitcode
        self.end()
        finished = records.read_result(self.directory, config)  # it may have died right after it wrote this
        if finished is not None:
            return finished
        why = "; killed, as the system does where memory runs out: if it is short, take fewer workers"
        message = f"its worker process ended with exit code {code}{why if code == KILLED else ''}"
        return RunFailure(run=config.run, message=message, traceback="")


def _work(job: Job, directory: Path, name: str, gpu: int | None, connection: Connection) -> None:
    """What a worker process does: run after run, until its parent ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    prepared = fabric = None
    while True:
        config: RunConfig = connection.recv()
        try:
            prepared = prepared or prepare(job.suite)
            fabric = fabric or make_fabric(job, gpu)
        except Exception as error:
            connection.send(failure(config, error))
            continue
        do(config, prepared, directory, fabric=fabric, tell=lambda _, news: connection.send(news), worker=name)


def _end_with_parent() -> None:
    """A worker must not write into a directory that its parent, killed, no longer holds the lock of."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
