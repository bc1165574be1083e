"""What `progress` does with the leaderboard: writes it when that costs little, and at the end; a row for each entry."""

import io

import pytest
from invented import write_suite
from rich.console import Console

from labeldrop_bench import leaderboard, progress, records
from labeldrop_bench.records import SuiteConfig

SUITE = SuiteConfig.model_validate(
    {
        "name": "watched",
        "title": "Watched",
        "data": {"name": "phantom"},
        "conditions": [{"name": "easy"}, {"name": "hard", "data": {"hidden": {"A": ["LV"]}}}],
        "strategies": [{"name": "one", "loss": "ce"}, {"name": "two", "loss": "ce"}],
    }
)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A listener, its runs, what it prints, and how often it wrote the leaderboard."""
    write_suite(tmp_path, SUITE, domains={"A": ("LV",)}, cases=3)
    written = []

    def write(directory):
        written.append(directory)
        return leaderboard.load(directory)

    monkeypatch.setattr(progress.leaderboard, "write", write)
    text = io.StringIO()
    listener = progress.ProgressListener(tmp_path, lambda _: 1, Console(file=text, width=200))
    return listener, [(run, records.read_result(tmp_path, run)) for run in SUITE.runs()], text, written


def test_a_row_for_each_strategy_in_each_condition(watched):
    listener, runs, text, _ = watched
    with listener:
        listener.begin([run for run, _ in runs], 0)
        listener.finished(*runs[0])
        listener.finished(*runs[1])
    lines = text.getvalue().splitlines()
    heads = [line.split() for line in lines if line.startswith("Dice, ")]
    assert heads == [["Dice,", "easy", "annotated", "overall"], ["Dice,", "hard", "unannotated", "overall"]]
    assert sum(line.startswith("one ") for line in lines) == 2
    assert sum(line.startswith("two ") for line in lines) == 2  # not again after the second run


def test_leaderboard_is_written_when_it_is_due_and_at_the_end(watched, monkeypatch):
    listener, runs, _, written = watched
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    write = progress.leaderboard.write
    monkeypatch.setattr(progress.leaderboard, "write", lambda d: (clock.__setitem__(0, clock[0] + 2), write(d))[1])
    with listener:
        listener.begin([run for run, _ in runs], 0)
        listener.finished(*runs[0])
        assert len(written) == 1
        clock[0] = 2 + 2 * progress.PATIENCE - 1
        listener.finished(*runs[1])
        assert len(written) == 1  # it took two seconds, and not enough time has gone by
        clock[0] += 2
        listener.finished(*runs[2])
        assert len(written) == 2
        listener.finished(*runs[3])
    assert len(written) == 3


def test_nothing_is_written_at_the_end_if_nothing_is_new(watched):
    listener, runs, _, written = watched
    with listener:
        listener.begin([run for run, _ in runs], 0)
    assert written == []
