"""NVIDIA's tools around a process: compute-sanitizer and ncu, and a ninja that only says what it would do."""

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.processes import execute

SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
FOUND_SOMETHING = 9  # exit code of a sanitizer
ENDING = 15  # seconds in which a sanitizer says what it has found, after its last case
KERNELS = "regex:(set_cross_entropy_contiguous|set_cross_entropy_many_classes|dice_sums)_kernel"
METRICS = {
    "gpu__time_duration.sum": "time",
    "dram__bytes_read.sum": "read",
    "dram__bytes_write.sum": "written",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "of memory's peak",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issuing",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps active",
    "launch__registers_per_thread": "registers",
}


def program(name):
    """Where a tool of the CUDA toolkit is: on the path or in CUDA_HOME; None if it is not there."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}{home}")


def sanitize(worker, dry, variables, seconds):
    """What each tool says: its name, "passed", "failed" or "missing", a note, the output."""
    tool = program("compute-sanitizer")
    if tool is None and not dry:
        missing = "compute-sanitizer is neither on the path nor in CUDA_HOME"
        return [{"tool": name, "status": "missing", "note": missing, "output": missing} for name in SANITIZERS]
    # torch's cache of memory hides from a sanitizer where a tensor ends
    variables = variables | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [*worker, "touch", "--device", "cpu" if dry else "cuda"]
    command += ["--seconds", str(max(seconds - 2 * ENDING, 5) if not dry else 2)]

    def run(name):
        prefix = [tool, "--tool", name, "--error-exitcode", str(FOUND_SOMETHING)] if tool else []
        done = execute([*prefix, *command], variables, seconds)
        lines = [line.strip("= ") for line in done.output.splitlines()]
        told = [line for line in lines if "SUMMARY" in line or line.endswith("cases touched")]
        note = "; ".join(told) or ("stopped before it said anything" if done.timed_out else "ended without a word")
        status = "passed" if done.code == 0 and told else "failed"
        return {"tool": name, "status": status, "note": note, "output": done.output[-4000:]}

    with ThreadPoolExecutor(len(SANITIZERS)) as pool:
        return list(pool.map(run, SANITIZERS))


def profile(worker, dry, variables, seconds):
    """`device_cases.py once` under ncu; without ncu None, or in a rehearsal the process alone."""
    tool = program("ncu")
    if tool is None and not dry:
        return None
    prefix = [tool, "--csv", "--clock-control", "none", "--kernel-name", KERNELS] if tool else []
    prefix += ["--metrics", ",".join(METRICS)] if tool else []
    return execute([*prefix, *worker, "once", "--device", "cpu" if dry else "cuda"], variables, seconds)


def metrics(output):
    """A dictionary for each kernel that ncu's CSV tells of: its name, and the metrics with their units."""
    lines = output.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found = {}
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        kernel = found.setdefault(row["ID"], {"kernel": row["Kernel Name"]})
        kernel[METRICS.get(row["Metric Name"], row["Metric Name"])] = f"{row['Metric Value']} {row['Metric Unit']}"
    return list(found.values())


def pretending_ninja(folder):
    """A folder with a ninja that lists what it would do; the questions of CMake it answers as the real one does."""
    real, here = shutil.which("ninja"), folder / "pretend"
    here.mkdir()
    script = here / "ninja"
    # what CMake tries while it configures lies in a folder of its own
    script.write_text(
        f'#!/bin/sh\ncase "$PWD $*" in\n  *CMakeScratch*|*--version*|*-t*) exec {real} "$@";;\n'
        f'  *) exec {real} -n "$@";;\nesac\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    return here
