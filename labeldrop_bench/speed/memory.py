"""The two states of the CPU's memory, and the peak of a step.

A large tensor's memory is either new from the operating system, which clears each page at its first touch (a page fault
that costs more than copying the page), or was freed by an earlier tensor and is mapped already. Which of the two a step
meets depends on the C library and on what ran before it, and the same loss differs by a factor of two between them.
So both are measured, each in a phase of its own:

    fresh    tensors from 1 MiB on are mapped anew and unmapped when freed: what the C library does from 32 MiB on
    reused   nothing goes back to the operating system: after some rounds no step touches a page for the first time
    cached   a CUDA device: torch's caching allocator, which is always in the second state
    unknown  a C library without `mallopt`: whatever it does
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from labeldrop_bench.text import read_text

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # <malloc.h>
SETTINGS = {
    "fresh": {M_MMAP_THRESHOLD: 1 << 20},
    "reused": {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1},  # no mapping of its own for any tensor, and no trimming
}
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = b"5"  # what resets VmHWM, see proc(5)
SETTLING, FEW_PAGES = 12, 128  # rounds at most; 512 KiB
SMALL_SIZES, LONGEST_LIST = range(24, 200, 16), 32  # bytes, one for each list; the lists hold 7 or 16 by default

_seen: list[str] = []  # states of this process so far


def memory_states(device: torch.device) -> tuple[str, ...]:
    """The states that can be measured on a device, in the only order that works in one process."""
    if device.type == "cuda":
        return ("cached",)
    there = sys.platform != "win32" and hasattr(ctypes.CDLL(None), "mallopt")
    return tuple(SETTINGS) if there else ("unknown",)


def set_memory_state(state: str) -> None:
    """Bring this process into a state, from now on.

    Raises:
        RuntimeError: "fresh" after "reused" (free memory that the process has kept would be used again), or the C
            library refuses.
    """
    settings = SETTINGS.get(state, {})
    if state == "fresh" and "reused" in _seen:
        raise RuntimeError("set_memory_state: 'fresh' cannot follow 'reused' in a process; start another one")
    for parameter, value in settings.items():
        if ctypes.CDLL(None).mallopt(parameter, value) != 1:
            raise RuntimeError(f"set_memory_state: mallopt({parameter}, {value}) was refused for state {state!r}")
    _seen.append(state)


def peak_bytes(step: Callable[[], None], device: torch.device) -> int | None:
    """Run a step; the most memory that it held beyond what was there before, in bytes.

    CUDA: what torch's allocator counts, exact. CPU: the high-water mark of the process's resident memory, which Linux
    keeps and lets us reset: it sees a kernel's own scratch as well, and is exact to a fraction of a MiB (transparent
    huge pages: 2 MiB) for tensors that get fresh memory. None where neither can be had: another system, or memory
    that is being reused, which was resident before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if _seen[-1:] != ["fresh"] or not _reset_high_water():
        step()
        return None
    before = _status("VmRSS")
    step()
    return max(_status("VmHWM") - before, 0)


def settle(steps: Iterable[Callable[[], None]]) -> bool:
    """Call steps in turn until they meet no new page, where memory is being reused; otherwise do nothing.

    A freed block that small neighbours have closed in is a few bytes too small for the next tensor of its size, which
    is aligned: some more blocks are mapped before the process has all that it needs.

    Returns:
        False if they still met new pages in the last round.
    """
    if _seen[-1:] != ["reused"]:
        return True
    import resource  # there is none on systems without `mallopt`

    steps = tuple(steps)
    _fill_lists_of_small_blocks()
    for _ in range(SETTLING):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for step in steps:
            step()
        if resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < FEW_PAGES:
            return True
    return False


def _fill_lists_of_small_blocks() -> None:
    """Let what is cut off from a large aligned block be joined with it again when both are free.

    The C library keeps some freed blocks of each small size in a list of the thread ("tcache"), where they count as
    used. A tensor's block is cut from one that is larger by up to 112 bytes. As long as there is room in that list for
    the rest, it stands in the way when the tensor is freed, and the next tensor gets new pages, each time.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    for block in [library.malloc(size) for size in SMALL_SIZES for _ in range(LONGEST_LIST)]:
        library.free(block)


def _reset_high_water() -> bool:
    try:
        CLEAR.write_bytes(RESET_PEAK)
    except OSError:  # no Linux, or a container that forbids it
        return False
    return True


def _status(key: str) -> int:
    """A size of /proc/self/status in bytes; it is given there in KiB."""
    line = next(line for line in read_text(STATUS).splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
