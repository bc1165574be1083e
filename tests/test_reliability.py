"""Sweeps that are killed, that run out of disk, that meet each other or what somebody has damaged."""

from __future__ import annotations

import csv
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from call_server import Calls
from typer.testing import CliRunner

from labeldrop_bench import records
from labeldrop_bench.commands import app
from labeldrop_bench.sweep import folder

pytestmark = pytest.mark.slow
KILLS = 20
WITH_WORKERS = 3  # of the kills: each waits for two worker processes, which import torch for seconds
# smoke, made smaller; a run can go on after every epoch; nothing depends on how fast the machine is
STRATEGIES = """[
    {name = "full", loss = "ce", full_labels = true},
    {name = "standard", loss = "ce"},
    {name = "adaptive", loss = "adaptive_ce", dropout = 0.5},
]"""
SET = (
    f"strategies={STRATEGIES}", "training.precision=32-true", "training.epochs=4", "training.save_every=1",
    "data.size=16", "data.train=4", "data.test=2",
)  # fmt: skip


def _run(out: Path, *overrides: str) -> list[str]:
    words = [word for override in (*SET, *overrides) for word in ("--set", override)]
    return ["run", "smoke", "--out", str(out), "--device", "cpu", *words]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    if not hasattr(os, "fork"):
        pytest.skip("forks, and this system cannot")
    calls = Calls(tmp_path_factory.mktemp("calls"))
    yield calls
    calls.close()


@pytest.fixture(scope="module")
def undisturbed(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small suite, run in one go; beside it, how long that took."""
    out, began = tmp_path_factory.mktemp("undisturbed") / "out", time.monotonic()
    assert calls.run(*_run(out)) == 0, calls.stderr
    (out.parent / "seconds").write_text(str(time.monotonic() - began))
    return out


def _scores(out: Path) -> dict[str, bytes]:
    """Every file with numbers that must not depend on how the runs came about."""
    paths = [out / "results.csv", *sorted(out.glob("runs/*/cases.csv")), *sorted(out.glob("runs/*/split.csv"))]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def _group(pid: int) -> list[int]:
    """The living processes of a group."""
    living = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # has just ended
            continue
        if int(group) == pid and state != "Z":
            living.append(int(stat.parent.name))
    return living


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_until_ended(pid: int, seconds: float) -> bool:
    """Whether a process ends by itself within some time, which is spent waiting for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and _lives(pid):
        time.sleep(0.02)
    return not _lives(pid)


def _trained_since(out: Path, began: float) -> bool:
    return any(path.stat().st_mtime > began for path in out.glob("runs/*/history.csv"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes where Linux shows them")
def test_killed_at_any_moment_it_ends_with_the_same_numbers(calls: Calls, undisturbed: Path, tmp_path: Path) -> None:
    """Kill -9, twenty times, in one process and with workers; whatever ends in between must be right too."""
    rng, out = random.Random(5), tmp_path / "out"  # noqa: S311 - no secret
    expected = _scores(undisturbed)
    longest = float((undisturbed.parent / "seconds").read_text()) / 4  # so that it takes several kills to get through
    with_workers = set(rng.sample(range(KILLS), WITH_WORKERS))
    kills = in_training = parents_alone = 0
    while kills < KILLS:
        began = time.time()
        pid = calls.start(*_run(out, *["workers=2"] * (kills in with_workers)))
        if kills in with_workers or kills % 3:  # the others are killed anywhere, most of them before they train
            while not _trained_since(out, began) and _lives(pid):
                time.sleep(0.02)
        alone = kills in with_workers and not parents_alone  # its workers have to notice
        if not _wait_until_ended(pid, longest * rng.random() * rng.random()):
            with suppress(ProcessLookupError):  # it has just ended
                (os.kill if alone else os.killpg)(pid, signal.SIGKILL)
        code = calls.wait()
        if code == 0:
            assert _scores(out) == expected
            shutil.rmtree(out)
            continue
        assert code == -signal.SIGKILL, calls.stderr
        end = time.monotonic() + 20
        while _group(pid) and time.monotonic() < end:
            time.sleep(0.1)
        assert not _group(pid), "workers outlive their parent"
        parents_alone += alone
        kills += 1
        begun = [path.parent for path in out.glob("runs/*/history.csv")]
        in_training += any(not (run / "result.json").exists() for run in begun)
    assert in_training >= 3, "too few of the kills came while a run was under way to show anything"
    assert parents_alone
    assert calls.run(*_run(out)) == 0, calls.stderr
    assert _scores(out) == expected
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("last.pt"))


def test_a_sweep_repeats_itself_bit_by_bit(calls: Calls, undisturbed: Path, tmp_path: Path) -> None:
    """The same seed and the same number of threads; side by side or not makes no difference."""
    assert calls.run(*_run(tmp_path / "again", "workers=2")) == 0, calls.stderr
    assert _scores(tmp_path / "again") == _scores(undisturbed)
    for path in sorted(undisturbed.glob("runs/*/history.csv")):
        runs = [path.parent, tmp_path / "again" / path.parent.relative_to(undisturbed)]
        histories = [list(csv.DictReader((run / "history.csv").open())) for run in runs]
        one, other = ([{k: v for k, v in row.items() if k != "seconds"} for row in rows] for rows in histories)
        assert one == other
        assert len(one) == 4
        weights, again = (torch.load(run / "checkpoint.pt", weights_only=True)["weights"] for run in runs)
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", path)
    yield path
    subprocess.run(["umount", path], check=True)


def _mount(*words: str | Path) -> None:
    try:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("mounts a small file system, and there is no `mount` here")
    if done.returncode != 0:
        pytest.skip(f"mounts a small file system, which is not permitted here: {done.stderr.strip()}")


def _kept(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.glob("runs/*/result.json")}


def _assert_clean(calls: Calls, code: int, out: Path, *words: str) -> None:
    """A message that names a file and a remedy, and no traceback."""
    assert code in (1, 2)  # 1: a run could not go on; 2: the suite could not
    assert "Traceback" not in calls.stderr
    assert str(out) in calls.stderr
    for word in words:
        assert word in calls.stderr


def test_on_a_full_disk_what_is_finished_stays_and_the_rest_follows(
    calls: Calls, undisturbed: Path, disk: Path
) -> None:
    out = disk / "out"
    shutil.copytree(undisturbed, out)
    for run in sorted((out / "runs").iterdir())[1:]:
        shutil.rmtree(run)
    kept = _kept(out)
    assert len(kept) == 1
    with (disk / "ballast").open("wb") as ballast:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write(bytes(free - (1 << 16)))
    code = calls.run(*_run(out))
    _assert_clean(calls, code, out, "No space left on device", "make space; the same command then goes on")
    assert {path: path.read_bytes() for path in kept} == kept
    (disk / "ballast").unlink()
    assert calls.run(*_run(out)) == 0, calls.stderr
    assert _scores(out) == _scores(undisturbed)
    assert not list(out.rglob("*.tmp"))


def test_a_file_that_may_not_grow_is_told_like_a_full_disk(calls: Calls, undisturbed: Path, tmp_path: Path) -> None:
    """As a quota would have it; needs no permission to mount."""
    code = calls.run(*_run(tmp_path), limit=8000)
    _assert_clean(calls, code, tmp_path, "File too large", "make space; the same command then goes on")
    assert not list(tmp_path.rglob("result.json"))
    assert calls.run(*_run(tmp_path)) == 0, calls.stderr
    assert _scores(tmp_path) == _scores(undisturbed)


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_that_cannot_be_written_to(calls: Calls, disk: Path, there: bool) -> None:
    out = disk / "out"
    if there:
        out.mkdir()
    _mount("-o", "remount,ro", disk)
    code = calls.run(*_run(out))
    _assert_clean(calls, code, out, "Read-only file system", "make it writable, or give another directory")
    assert code == 2


def test_the_second_of_two_processes_is_refused(calls: Calls, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pid = calls.start(*_run(out))
    while not list(out.glob("runs/*/history.csv")) and _lives(pid):
        time.sleep(0.02)
    os.killpg(pid, signal.SIGSTOP)  # it stands still, and is there
    second = CliRunner().invoke(app, _run(out))
    os.killpg(pid, signal.SIGCONT)
    assert second.exit_code == 2
    assert f"{out} is in use by another process: wait for it to end" in second.stderr
    assert calls.wait() == 0, calls.stderr
    assert _scores(out) == _scores(undisturbed)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scramble(path: Path) -> None:
    """Other bytes within its arrays; the archive's list of them is whole."""
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(content)


DAMAGE = {
    "result.json, cut off": lambda run: _truncate(run / "result.json"),
    "result.json, empty": lambda run: (run / "result.json").write_bytes(b""),
    "result.json, of no such schema": lambda run: (run / "result.json").write_text('{"dice": 1}'),
    "result.json, no text": lambda run: (run / "result.json").write_bytes(b"\xff\x00\xfe"),
    "result.json, of another run": lambda run: shutil.copy(run.parent / "full-seed0" / "result.json", run),
    "cases.csv, cut off": lambda run: _truncate(run / "cases.csv"),
    "cases.csv, no table": lambda run: (run / "cases.csv").write_bytes(b"\x00\n\x00"),
    "examples.npz, cut off": lambda run: _truncate(run / "examples.npz"),
    "examples.npz, empty": lambda run: (run / "examples.npz").write_bytes(b""),
    "examples.npz, other bytes": lambda run: _scramble(run / "examples.npz"),
    "cases.csv, not there": lambda run: (run / "cases.csv").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named_and_taken_back(undisturbed: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    run = out / "runs" / "adaptive-seed0"
    DAMAGE[damage](run)
    before = _kept(out)
    notes: list[str] = []
    todo = folder.open_(out, records.read_suite(out), notes.append)
    (note,) = notes
    assert note.startswith(f"{run / damage.partition(',')[0]} ")
    assert note.endswith(". Run adaptive-seed0 is done again")
    assert [config.run for config in todo] == ["adaptive-seed0"]
    assert _kept(out) == {path: content for path, content in before.items() if path.parent != run}


def test_what_is_damaged_is_done_again(calls: Calls, undisturbed: Path, tmp_path: Path) -> None:
    """One run from its best epoch, one whose weights are gone from the beginning, one that nothing has happened to."""
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    again, anew, whole = (out / "runs" / f"{name}-seed0" for name in ("full", "standard", "adaptive"))
    _truncate(again / "result.json")
    _truncate(anew / "cases.csv")
    (anew / "checkpoint.pt").unlink()
    paths = [again / "checkpoint.pt", whole / "result.json"]
    before = [path.stat().st_mtime_ns for path in paths]
    assert calls.run(*_run(out)) == 0, calls.stderr
    assert f"{again / 'result.json'} is damaged" in calls.stderr
    assert f"{anew / 'cases.csv'} " in calls.stderr
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert _scores(out) == _scores(undisturbed)
