"""A listener of a sweep that remembers, and a worker that ends, for tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from labeldrop_bench import suites, sweep
from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.records import RunConfig, RunFailure, RunResult


class Heard:
    """A listener that remembers.

    Args:
        on_epoch: what to do after an epoch besides.
    """

    def __init__(self, on_epoch: Callable[[RunConfig, Epoch], None] = lambda *_: None) -> None:
        self.on_epoch = on_epoch
        self.notes: list[str] = []
        self.begun: list[tuple[int, int]] = []
        self.starts: list[tuple[str, str]] = []
        self.epochs: list[tuple[str, int]] = []
        self.runs: list[str] = []
        self.failures: list[RunFailure] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, todo: Sequence[RunConfig], done: int) -> None:
        self.begun.append((len(todo), done))

    def started(self, config: RunConfig, worker: str) -> None:
        self.starts.append((config.run, worker))

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        self.epochs.append((config.run, epoch.epoch))
        self.on_epoch(config, epoch)

    def finished(self, config: RunConfig, result: RunResult) -> None:
        assert config.run == result.run
        self.runs.append(config.run)

    def failed(self, config: RunConfig, failure: RunFailure) -> None:
        assert config.run == failure.run
        self.failures.append(failure)


def run_suite(path: str, out: Path, *overrides: str, **options: Any) -> Heard:
    """A whole sweep on the CPU; `options` are those of `sweep.run`."""
    heard = Heard()
    sweep.run(suites.load(path, overrides), out, **{"device": "cpu", "listener": heard, **options})
    return heard


def end_at_once(*_: object) -> None:
    """What a worker process can find by its name: a module of tests has none that it could import."""
    os._exit(3)
