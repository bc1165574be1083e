"""What a person sees while a suite runs: a bar with the time that is left, and a row for each strategy that is done.

All of it goes to standard error, so that standard output holds nothing but the leaderboard. Where standard error is no
terminal there is no bar; a line for each run takes its place.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from labeldrop_bench import leaderboard
from labeldrop_bench.leaderboard.wording import number
from labeldrop_bench.records import RunConfig, RunResult

if TYPE_CHECKING:  # torch is slow to import
    from labeldrop_bench.errors import TrainingError
    from labeldrop_bench.train import Epoch

NAME_WIDTH, SCORE_WIDTH = 26, 13


class ProgressListener:
    """A `sweep.Listener` that writes the leaderboard after every run and shows how the suite gets on.

    Args:
        directory: the suite's.
        epochs: of one run.
        console: where to show it.
    """

    def __init__(self, directory: Path, epochs: int, console: Console | None = None) -> None:
        self.directory = directory
        self.epochs = epochs
        self.console = console or Console(stderr=True)
        self.shown: set[str] = set()
        self.started = time.monotonic()
        self.todo = self.done = 0
        self.seen: dict[str, int] = {}  # epochs of each run that the bar has counted
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Progress(
            *columns, console=self.console, disable=not self.console.is_terminal, speed_estimate_period=300
        )
        self.task = self.bar.add_task("", total=None)

    def __enter__(self) -> ProgressListener:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, todo: int, done: int) -> None:
        """Show what was found finished."""
        self.todo, self.started = todo, time.monotonic()
        self.bar.update(self.task, total=todo * self.epochs)
        if done:
            self.console.print(f"{done} of {todo + done} runs were finished before; {todo} to do")
            self._rows()

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        """Move the bar."""
        self.seen[config.run] = epoch.epoch
        self.bar.update(self.task, advance=1, description=config.run)

    def finished(self, config: RunConfig, result: RunResult) -> None:
        """Write the leaderboard; show the run, and its strategy if that is complete."""
        dice = f"validation Dice {result.validation_dice:.3f}"
        self._count(config, f"{result.seconds:.0f} s, best epoch {result.best_epoch} ({dice})")
        self._rows()

    def failed(self, config: RunConfig, error: TrainingError) -> None:
        """Show the error; the bar counts the run as done."""
        self.console.print(f"failed: {error}", style="red", markup=False, highlight=False)
        self._count(config, "failed")

    def _count(self, config: RunConfig, line: str) -> None:
        """One run less to do; epochs that it did not come to are done with too."""
        self.done += 1
        self.bar.update(self.task, advance=self.epochs - self.seen.get(config.run, 0))
        self.seen[config.run] = self.epochs
        if not self.console.is_terminal:
            # by epochs, since the runs beside this one are half done
            done = sum(self.seen.values())
            left = (time.monotonic() - self.started) / done * (self.todo * self.epochs - done)
            self._print(f"[{self.done}/{self.todo}] {config.run}: {line}; about {left / 60:.1f} min left")

    def _rows(self) -> None:
        """A row for each strategy whose seeds are all done and that was not shown yet."""
        board = leaderboard.write(self.directory)
        columns = [column for column in board.columns if column.name in ("undrawn", "drawn", "overall")]
        for entry in board.strategies:
            if entry.missing_seeds or entry.strategy.name in self.shown:
                continue
            if not self.shown:
                heads = "".join(f"{column.name:>{SCORE_WIDTH}}" for column in columns)
                self._print(f"{'Dice':<{NAME_WIDTH}}{heads}")
            self.shown.add(entry.strategy.name)
            scores = "".join(f"{number(entry.scores[column]):>{SCORE_WIDTH}}" for column in columns)
            self._print(f"{entry.strategy.name:<{NAME_WIDTH}}{scores}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
