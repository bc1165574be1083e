"""How many runs go side by side on this machine, and where: as many as were asked for, as long as memory lasts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import psutil
import torch

from labeldrop_bench.text import read_text

GIB = 2**30
CGROUPS = Path("/sys/fs/cgroup")  # where Linux shows control groups, version 2
OWN_CGROUP = Path("/proc/self/cgroup")
STATUS = Path("/proc/self/status")
# Each process that uses a GPU holds a CUDA context there, which torch's count does not include: kernels of torch and of
# its libraries. It cannot be asked for; half a GiB is usual.
CUDA_CONTEXT = GIB // 2

Workers = int | Literal["auto"]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wanted(workers: Workers, device: str, todo: int) -> int:
    """How many workers there should be, were memory no matter.

    Args:
        workers: a number; or "auto": as many as there are cores for the threads of a run, or GPUs.
        device: "cpu" or "cuda".
        todo: number of runs.
    """
    if workers == "auto":
        workers = torch.cuda.device_count() if device == "cuda" else cores() // torch.get_num_threads()
    return max(1, min(workers, todo))


def places(number: int, device: str, note: Callable[[str], None]) -> tuple[int | None, ...]:
    """Where each of several workers computes, fewer than asked for if memory is short.

    Args:
        number: workers asked for, at least two.
        device: "cpu" or "cuda".
        note: told the numbers if they are fewer.

    Returns:
        For each worker the index of its GPU; on the CPU None. At least one.
    """
    need, free = peak_memory(), available_memory()
    fitting = min(number, free // need)
    limits = [_needs(need, free, "memory")]
    chosen: Sequence[int | None] = [None] * fitting
    if device == "cuda":
        gpu = torch.cuda.max_memory_reserved() + CUDA_CONTEXT
        torch.cuda.empty_cache()  # this process need not keep what its trial step took
        room = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        chosen = share(fitting, [bytes_ // gpu for bytes_ in room])
        limits += [_needs(gpu, bytes_, f"memory of GPU {i}") for i, bytes_ in enumerate(room)]
    if len(chosen) < number:
        note(f"{max(1, len(chosen))} instead of {number} workers: {'; '.join(limits)}")
    return tuple(chosen) or (None if device == "cpu" else 0,)


def share(number: int, room: Sequence[int]) -> tuple[int, ...]:
    """Deal out workers to GPUs, one to each in turn, passing over those that are full.

    Args:
        number: of workers.
        room: workers that each GPU has memory for.

    Returns:
        The GPU of each worker; fewer than `number` if there is no more room.
    """
    turns = (gpu for turn in range(max(room)) for gpu, limit in enumerate(room) if turn < limit)
    return tuple(islice(turns, number))


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes.

    Once it has imported everything, loaded the data and taken a training step, that is what a worker needs.
    """
    if STATUS.exists():  # Linux counts into `ru_maxrss` what the process held that started this one
        line = next(line for line in read_text(STATUS).splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def available_memory() -> int:
    """Memory that new processes may take, in bytes: of the machine, and of the control groups that this one is in."""
    return min([psutil.virtual_memory().available, *_cgroup_room()])


def _cgroup_room() -> list[int]:
    """What each control group around this process leaves, in bytes. Schedulers and containers set such limits."""
    lines = read_text(OWN_CGROUP).splitlines() if OWN_CGROUP.exists() else []
    names = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]  # version 2 has one line
    rooms = []
    for name in names:
        for group in (CGROUPS / name, *(CGROUPS / name).parents):
            limit = group / "memory.max"
            if group.is_relative_to(CGROUPS) and limit.exists() and (text := read_text(limit).strip()) != "max":
                rooms.append(max(0, int(text) - _cgroup_use(group)))
    return rooms


def _cgroup_use(group: Path) -> int:
    """Bytes in use, without files that were read and that the system forgets when memory is asked for."""
    stat = dict(line.split() for line in read_text(group / "memory.stat").splitlines())
    return int(read_text(group / "memory.current")) - int(stat["inactive_file"])


def _needs(need: int, free: int, name: str) -> str:
    return f"each needs {need / GIB:.2f} GiB of {name}, and {free / GIB:.2f} GiB are available"
