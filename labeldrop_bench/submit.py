"""Checks somebody's results, and merges them into a leaderboard directory of the same suite.

A leaderboard directory is a suite directory without weights and histories: suite.json, results.csv, and of each run
config.json, cases.csv, examples.npz and result.json.

Everything is checked before anything is written. Then come the files of the new runs, then suite.json, which makes
them part of the leaderboard, and at last results.csv, which follows from the others. Each appears under its name when
it is whole. What a killed call leaves is therefore either not part of the leaderboard yet, or lacks results.csv alone;
the same call again puts both right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from labeldrop_bench import records
from labeldrop_bench.errors import UserError
from labeldrop_bench.leaderboard import reading
from labeldrop_bench.records import CaseRow, RunConfig, RunResult, SuiteConfig
from labeldrop_bench.records.differences import Difference
from labeldrop_bench.text import read_text

FREE = ("strategies", "standard", "figures", "title", "description", "workers")
"""Keys of a suite in which a submission may differ: what else is compared, what is shown, how fast it goes."""
FILES = ("config.json", "cases.csv", "examples.npz", "result.json")  # result.json last: it says that a run is finished
SHOWN = 5  # of the things that are wrong, in one message

T = TypeVar("T")


class SubmissionError(UserError, ValueError):
    """Results that cannot become part of a leaderboard; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Finished:
    """A run with all that came out of it."""

    folder: Path
    config: RunConfig
    result: RunResult
    cases: tuple[CaseRow, ...]


@dataclass(frozen=True)
class Results:
    """A finished suite directory.

    Attributes:
        runs: one for each of `suite.runs()`, in that order.
    """

    directory: Path
    suite: SuiteConfig
    runs: tuple[Finished, ...]


def check(directory: Path, strategies: Sequence[str] = ()) -> Results:
    """Read a suite directory, and see that it is whole and agrees with itself.

    Args:
        directory: what `labeldrop-bench run` wrote, or a leaderboard directory.
        strategies: names of those that matter; none means all.

    Raises:
        SubmissionError: a file that is missing or does not hold what it should, a run that has not finished, scores
            that are not the means of their cases, runs whose splits or cases differ, a strategy that is not there.
    """
    suite = _chosen(directory, _read(lambda: reading.read_suite(directory)), strategies)
    missing = [run.run for run in suite.runs() if not (records.run_directory(directory, run) / "result.json").exists()]
    if missing:
        raise SubmissionError(
            f"{directory}: {len(missing)} of {len(suite.runs())} runs have not finished: {_few(missing)}. Call "
            f"`labeldrop-bench run` again, which does the rest, or choose finished strategies with --strategy"
        )
    runs = tuple(_finished(directory, run) for run in suite.runs())
    _check_comparable(runs)
    return Results(directory, suite, runs)


def merge(submission: Results, directory: Path) -> tuple[str, ...]:
    """Make checked results part of a leaderboard directory, or of a new one where there is nothing.

    Args:
        submission: from `check`.
        directory: of the leaderboard.

    Returns:
        Names of the runs that it did not have before.

    Raises:
        SubmissionError: `directory` is the submission itself, is in use, holds something else, or is damaged; its suite
            has another configuration; a strategy of the same name has another configuration or other numbers; splits
            or cases differ.
    """
    if directory.resolve() == submission.directory.resolve():
        raise SubmissionError(f"{directory} is the submission itself: give the directory of a leaderboard with --to")
    with _locked(directory):
        old = _leaderboard(directory, submission.suite)
        _check_same_suite(old, submission)
        for run in old.runs:
            _check_not_changed(run, submission)
        suite = _union(old, submission)
        had = {run.config.run for run in old.runs}
        new = [run for run in submission.runs if run.config.run not in had]
        _check_comparable((*old.runs, *new))
        _write(directory, suite, old.runs, new)
    return tuple(run.config.run for run in new)


def _chosen(directory: Path, suite: SuiteConfig, names: Sequence[str]) -> SuiteConfig:
    """The suite with some of its strategies."""
    known = [strategy.name for strategy in suite.strategies]
    for name in names:
        if name not in known:
            raise SubmissionError(f"--strategy: {directory} has no strategy {name!r}. Known: {', '.join(known)}")
    kept = tuple(s for s in suite.strategies if s.name in names or not names)
    return suite.model_copy(update={"strategies": kept})


def _finished(directory: Path, run: RunConfig) -> Finished:
    """All that came out of a run, checked."""
    folder = records.run_directory(directory, run)
    remedy = f"remove {folder} and call `labeldrop-bench run` again, which repeats this run only"
    try:
        config = RunConfig.model_validate_json(read_text(folder / "config.json"))
    except (OSError, ValueError) as error:
        raise SubmissionError(f"{folder / 'config.json'} cannot be read: {remedy}\n{error}") from error
    different = records.differences(config, run)
    if different:
        raise SubmissionError(f"{folder / 'config.json'} is not what suite.json asks for: {remedy}{_lines(different)}")
    result = _read(lambda: reading.read_result(directory, run))
    cases = _read(lambda: reading.read_cases(directory, run))
    if result is None or result.run != run.run:
        raise SubmissionError(f"{folder / 'result.json'} is of another run: {remedy}")
    wrong = records.disagreements(run, result, cases)
    if wrong:
        listed = "".join(f"\n  {line}" for line in wrong[:SHOWN])
        raise SubmissionError(
            f"{folder}: result.json and cases.csv do not fit in {len(wrong)} places: {remedy}{listed}"
        )
    try:
        records.read_examples(directory, run)
    except (OSError, ValueError) as error:
        raise SubmissionError(f"{folder / 'examples.npz'} cannot be read: {remedy}\n{error}") from error
    return Finished(folder, run, result, cases)


def _check_comparable(runs: Sequence[Finished]) -> None:
    """Runs of one condition and seed must have seen the same split, and be scored on the same cases and classes."""
    first: dict[tuple[str, int], tuple[Finished, frozenset[tuple[str, ...]]]] = {}
    for run in runs:
        cases = frozenset(
            (row.domain, row.case, row.class_, "scored" if row.scored else "not scored") for row in run.cases
        )
        other, expected = first.setdefault((run.config.condition, run.config.seed), (run, cases))
        if run.result.split != other.result.split:
            raise SubmissionError(
                f"{run.folder / 'result.json'}: split: {other.result.split!r} in {other.folder}, {run.result.split!r} "
                f"here. These runs saw different samples in training and test: make sure that the data are the same, "
                f"and run the suite again in a new directory"
            )
        if cases != expected:
            only = [f"only in {other.folder}: {_places(expected - cases)}"] * bool(expected - cases)
            only += [f"only here: {_places(cases - expected)}"] * bool(cases - expected)
            raise SubmissionError(
                f"{run.folder / 'cases.csv'}: must hold the same cases and classes as that of {other.folder}; "
                f"{'; '.join(only)}. Make sure that the data are the same, and run the suite again in a new directory"
            )


def _leaderboard(directory: Path, suite: SuiteConfig) -> Results:
    """What the directory holds; nothing yet if it is a new one."""
    if (directory / "suite.json").exists():
        return check(directory)
    # a first submission that was killed has left some of its runs
    foreign = sorted(p.name for p in directory.iterdir() if p.name not in (".lock", "runs") and p.suffix != ".tmp")
    if foreign:
        raise SubmissionError(
            f"{directory} holds no suite.json, and is not empty: {_few(foreign)}. Give the directory of a leaderboard "
            f"with --to, or a new one"
        )
    return Results(directory, suite.model_copy(update={"strategies": ()}), ())


def _check_same_suite(old: Results, new: Results) -> None:
    different = records.differences(old.suite, new.suite, leave_out=FREE)
    if different:
        raise SubmissionError(
            f"{new.directory} is another configuration than {old.directory}, and only {', '.join(FREE)} may differ: "
            f"run the strategies again with the leaderboard's values{_lines(different)}"
        )
    known = {strategy.name: strategy for strategy in old.suite.strategies}
    for strategy in new.suite.strategies:
        different = records.differences(known.get(strategy.name, strategy), strategy)
        if different:
            raise SubmissionError(
                f"{old.directory} has a strategy {strategy.name!r} of another configuration: give yours another "
                f"name, and run it{_lines(different)}"
            )


def _union(old: Results, new: Results) -> SuiteConfig:
    """The leaderboard's suite with the strategies that it did not have."""
    had = {strategy.name for strategy in old.suite.strategies}
    strategies = (*old.suite.strategies, *(s for s in new.suite.strategies if s.name not in had))
    try:
        return SuiteConfig.model_validate(
            {**old.suite.model_dump(), "strategies": [s.model_dump() for s in strategies]}
        )
    except ValueError as error:
        raise SubmissionError(f"{new.directory} cannot become part of {old.directory}: {error}") from error


def _check_not_changed(old: Finished, submission: Results) -> None:
    """Raises SubmissionError if a run of the same configuration came out differently."""
    new = next((run for run in submission.runs if run.config == old.config), old)
    if (new.result.rows, new.cases) == (old.result.rows, old.cases):
        return
    pairs = zip(old.result.rows, new.result.rows, strict=False)
    rows = [f"{a.domain} {a.class_} {a.metric}: {a.value} there, {b.value} here" for a, b in pairs if a != b]
    raise SubmissionError(
        f"{old.folder} holds other numbers than {new.folder} ({rows[0] if rows else 'single cases differ'}), as "
        f"another machine may give: choose the strategies that are new with --strategy, or give this one another name"
    )


def _write(directory: Path, suite: SuiteConfig, old: Sequence[Finished], new: Sequence[Finished]) -> None:
    """Add the new runs; in an order that leaves a whole leaderboard wherever it is broken off."""
    for leftover in directory.rglob(".*.tmp"):  # of a killed process; the lock says that no other is writing
        leftover.unlink()
    for run in new:
        folder = records.run_directory(directory, run.config)
        for name in FILES:
            if (run.folder / name).exists():
                records.write_bytes(folder / name, (run.folder / name).read_bytes())
    records.write_json(directory / "suite.json", suite)
    results = {run.config.run: run.result for run in (*old, *new)}
    rows = (row for run in suite.runs() for row in results[run.run].rows)
    records.write_text(directory / "results.csv", records.results_csv(rows))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(directory / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise SubmissionError(
            f"{directory} is in use by another process: wait for it to end, and call again"
        ) from error


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except reading.LeaderboardError as error:
        raise SubmissionError(str(error)) from error


def _few(things: Sequence[str]) -> str:
    rest = [f"and {len(things) - SHOWN} more"] if len(things) > SHOWN else []
    return ", ".join([*things[:SHOWN], *rest])


def _places(places: frozenset[tuple[str, ...]]) -> str:
    return _few([" ".join(place) for place in sorted(places)])


def _lines(different: Sequence[Difference]) -> str:
    return "".join(f"\n  {key}: {there!r} there, {here!r} here" for key, there, here in different)
