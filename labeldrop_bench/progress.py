"""What a person sees while a suite runs: the runs under way, a bar, and a row for each strategy that is done.

All of it goes to standard error, so that standard output holds nothing but the leaderboard. Where standard error is no
terminal there is no table and no bar; a line for each run takes their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from labeldrop_bench import leaderboard
from labeldrop_bench.leaderboard.wording import number
from labeldrop_bench.records import RunConfig, RunFailure, RunResult

if TYPE_CHECKING:  # torch is slow to import
    from labeldrop_bench.checkpoints import Epoch

NAME_WIDTH, SCORE_WIDTH = 26, 13
PATIENCE = 20  # times as long as the leaderboard takes to write before it is written again


@dataclass
class UnderWay:
    """A run that is being done.

    Attributes:
        worker: who does it.
        epochs: how many it has done here, all its rounds together.
        dice: the last one on the validation split; None before the first.
    """

    worker: str
    epochs: int = 0
    dice: float | None = None


class ProgressListener:
    """A `sweep.Listener` that keeps the leaderboard written and shows how the suite gets on.

    Figures take seconds and some runs take no longer, so that it is written after a run only if that costs little time
    in all, and once more at the end.

    Args:
        directory: the suite's.
        epochs: how many a run takes, all its rounds together; asked once the suite has passed its checks.
        console: where to show it.
    """

    def __init__(self, directory: Path, epochs: Callable[[RunConfig], int], console: Console | None = None) -> None:
        self.directory = directory
        self.epochs = epochs
        self.console = console or Console(stderr=True)
        self.shown: set[tuple[str, str]] = set()  # condition and strategy
        self.head = ""
        self.due = 0.0  # when the leaderboard is to be written again
        self.unwritten = False
        self.started_at = time.monotonic()
        self.todo = self.done = self.total = 0
        self.epochs_of: dict[str, int] = {}
        self.failures = 0
        self.seen: dict[str, int] = {}  # epochs of each run that the bar has counted
        self.under_way: dict[str, UnderWay] = {}
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Progress(*columns, console=self.console, speed_estimate_period=300)
        self.task = self.bar.add_task("", total=None)
        self.live = Live(get_renderable=self.render, console=self.console)

    def __enter__(self) -> ProgressListener:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        if self.unwritten:
            self._write()

    def render(self) -> Group:
        """The table of the runs under way, and the bar."""
        table = Table("run", "worker", "epoch", "validation Dice", box=None, pad_edge=False)
        for run, state in dict(self.under_way).items():  # a copy: another thread draws while this one changes it
            dice = "" if state.dice is None else f"{state.dice:.3f}"
            table.add_row(Text(run), Text(state.worker), f"{state.epochs}/{self.epochs_of[run]}", dice)
        return Group(*([table] if self.under_way else []), self.bar)

    def note(self, text: str) -> None:
        """Show it."""
        self._print(text)

    def begin(self, todo: Sequence[RunConfig], done: int) -> None:
        """Show what was found finished."""
        self.todo, self.started_at = len(todo), time.monotonic()
        self.epochs_of = {config.run: self.epochs(config) for config in todo}
        self.total = sum(self.epochs_of.values())
        self._move()
        if done:
            self.console.print(f"{done} of {self.todo + done} runs were finished before; {self.todo} to do")
            self._rows()

    def started(self, config: RunConfig, worker: str) -> None:
        """Add it to the table; if it begins anew, its epochs count anew."""
        self.under_way[config.run] = UnderWay(worker)
        self.seen[config.run] = 0
        self._move()

    def epoch(self, config: RunConfig, epoch: Epoch) -> None:
        """Move the bar."""
        state = self.under_way[config.run]
        state.epochs += 1
        state.dice = epoch.validation_dice if epoch.validation_dice is not None else state.dice
        self.seen[config.run] += 1
        self._move()

    def finished(self, config: RunConfig, result: RunResult) -> None:
        """Show the run, and its strategy if that is complete; write the leaderboard."""
        dice = f"validation Dice {result.validation_dice:.3f}"
        self._count(config, f"{result.seconds:.0f} s, best epoch {result.best_epoch} ({dice})")
        self._rows()

    def failed(self, config: RunConfig, failure: RunFailure) -> None:
        """Show the error; the bar counts the run as done."""
        self.failures += 1
        line = f"failed: {config.run}: {failure.message}"
        self.console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
        self._count(config, "failed")

    def _move(self) -> None:
        """Bring the bar up to date."""
        counts = {
            "running": len(self.under_way),
            "done": self.done - self.failures,
            "failed": self.failures,
            "waiting": self.todo - self.done - len(self.under_way),
        }
        text = ", ".join(f"{number} {name}" for name, number in counts.items())
        self.bar.update(self.task, total=self.total, completed=sum(self.seen.values()), description=text)

    def _count(self, config: RunConfig, line: str) -> None:
        """One run less to do; epochs that it did not come to are done with too."""
        self.done += 1
        self.under_way.pop(config.run, None)  # it is not there if its worker was lost before it began
        self.seen[config.run] = self.epochs_of[config.run]
        self._move()
        if not self.console.is_terminal:
            # by epochs, since the runs beside this one are half done
            done = sum(self.seen.values())
            left = (time.monotonic() - self.started_at) / done * (self.total - done)
            self._print(f"[{self.done}/{self.todo}] {config.run}: {line}; about {left / 60:.1f} min left")

    def _rows(self) -> None:
        """A row for each strategy whose seeds are all done in a condition and that was not shown yet."""
        self.unwritten = True
        if time.monotonic() >= self.due:
            self._write()
        for board in leaderboard.load(self.directory).boards:
            heads = "".join(f"{column.name:>{SCORE_WIDTH}}" for column in board.summary)
            head = f"{f'Dice, {board.name}' if board.name else 'Dice':<{NAME_WIDTH}}{heads}"
            for entry in board.strategies:
                name = entry.strategy.name
                if entry.missing_seeds or (board.name, name) in self.shown:
                    continue
                if head != self.head:  # also when runs of another condition, side by side, came in between
                    self._print(head)
                    self.head = head
                self.shown.add((board.name, name))
                scores = "".join(f"{number(entry.scores[column]):>{SCORE_WIDTH}}" for column in board.summary)
                self._print(f"{name:<{NAME_WIDTH}}{scores}")

    def _write(self) -> None:
        began = time.monotonic()
        leaderboard.write(self.directory)
        self.unwritten = False
        self.due = time.monotonic() + PATIENCE * (time.monotonic() - began)

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
