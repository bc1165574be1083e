"""How many runs go side by side, and where."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from labeldrop_bench.sweep import limits
from labeldrop_bench.sweep.jobs import threads

GIB = limits.GIB


def _never(text: str) -> None:
    raise AssertionError(text)


def test_as_many_runs_go_side_by_side_as_were_asked_for_and_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    with threads(2):
        assert limits.wanted(1, "cpu", todo=7) == 1
        assert limits.wanted("auto", "cpu", todo=7) == 4
        assert limits.wanted("auto", "cpu", todo=3) == 3
        assert limits.wanted(6, "cpu", todo=7) == 6
        assert limits.wanted(6, "cpu", todo=0) == 1


def test_auto_is_one_worker_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert limits.wanted("auto", "cuda", todo=7) == 3
    assert limits.wanted(5, "cuda", todo=7) == 5
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert limits.wanted("auto", "cuda", todo=7) == 1


@pytest.mark.parametrize(
    ("number", "room", "expected"),
    [
        (2, [9, 9, 9, 9], (0, 1)),
        (6, [9, 9, 9, 9], (0, 1, 2, 3, 0, 1)),
        (6, [1, 9, 0, 2], (0, 1, 3, 1, 3, 1)),
        (4, [1, 0, 1], (0, 2)),
        (3, [0, 0], ()),
        (3, [5], (0, 0, 0)),
    ],
)
def test_gpus_take_workers_in_turn_as_long_as_they_have_room(
    number: int, room: list[int], expected: tuple[int, ...]
) -> None:
    assert limits.share(number, room) == expected


@pytest.mark.parametrize(("free", "started"), [(64, 8), (10, 3), (2, 1)])
def test_memory_limits_the_workers_and_it_is_told(free: int, started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "peak_memory", lambda: 3 * GIB)
    monkeypatch.setattr(limits, "available_memory", lambda: free * GIB)
    notes: list[str] = []
    assert limits.places(8, "cpu", notes.append) == (None,) * started
    expected = f"{started} instead of 8 workers: each needs 3.00 GiB of memory, and {free}.00 GiB are available"
    assert notes == ([] if started == 8 else [expected])


def test_memory_of_gpus_limits_the_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "peak_memory", lambda: GIB)
    monkeypatch.setattr(limits, "available_memory", lambda: 64 * GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 4 * GIB - limits.CUDA_CONTEXT)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: ((13, 5)[i] * GIB, 80 * GIB))
    assert limits.places(4, "cuda", _never) == (0, 1, 0, 0)
    notes: list[str] = []
    assert limits.places(6, "cuda", notes.append) == (0, 1, 0, 0)
    (note,) = notes
    assert note.startswith("4 instead of 6 workers: each needs 1.00 GiB of memory, and 64.00 GiB are available; ")
    assert note.endswith("each needs 4.00 GiB of memory of GPU 1, and 5.00 GiB are available")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (0, 80 * GIB))
    assert limits.places(4, "cuda", notes.append) == (0,)  # one run has to be tried


def _group(path: Path, limit: str, current: int, files: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{current}\n")
    (path / "memory.stat").write_text(f"anon {current - files}\ninactive_file {files}\n")


def test_the_tightest_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GIB))
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "OWN_CGROUP", tmp_path / "own")
    assert limits.available_memory() == 100 * GIB  # a system without control groups
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "cgroup").mkdir()
    assert limits.available_memory() == 100 * GIB  # groups without a limit
    _group(tmp_path / "cgroup/job/step", "max", 2 * GIB, 0)
    _group(tmp_path / "cgroup/job", str(16 * GIB), 10 * GIB, 3 * GIB)  # files that were read can be forgotten
    assert limits.available_memory() == 9 * GIB
    _group(tmp_path / "cgroup/job/step", str(4 * GIB), 5 * GIB, 0)
    assert limits.available_memory() == 0


def test_peak_memory_is_in_bytes_and_grows_with_what_is_held() -> None:
    before = limits.peak_memory()
    assert before > 50 * 2**20  # torch alone
    size = before + 2**27
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])  # touches every page
    assert size <= limits.peak_memory() < 3 * size
