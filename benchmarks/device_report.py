"""One command for a machine with a GPU: build, test, sanitize, measure, and write it down.

    python -m benchmarks.device_report --out DIR

Steps: environment, build (in place, for this GPU's architecture), tests (`pytest -m cuda`), memcheck, racecheck and
initcheck (compute-sanitizer over tests/test_every_kernel.py), benchmark, trainings (how many an hour with several at
once: benchmarks.trainings_per_hour). DIR/report.json and DIR/report.md are written anew after every step and every case
of the benchmark. A step that fails is recorded with its output, and the next one is done.

Needs torch, pytest, hypothesis, tabulate, cmake and ninja, and for the step `trainings` all that the package
needs; what only some peers need may be missing.

Exit code: 0 if every step passed, 1 if one failed, 2 without a CUDA device. `--device cpu` goes through the steps that
make sense without one.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import ptxas
from benchmarks.device_markdown import markdown
from benchmarks.processes import Worker, execute

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("device_cases.py")
STEPS = ("environment", "build", "tests", "memcheck", "racecheck", "initcheck", "benchmark", "trainings")
TESTS = ("tests/ops", "tests/test_losses.py", "tests/test_dropout.py", "tests/test_every_kernel.py")
# A process that imports what is installed, or what PYTHONPATH says, and not the directory that it is started in.
PYTEST = (sys.executable, "-c", "import sys; del sys.path[0]; import pytest; sys.exit(pytest.main(sys.argv[1:]))")
NO_DEVICE, FAILED = 2, 1
TAIL = 8000  # characters of a step's output that are kept


class Report:
    """The record, as a dictionary that is written after every change."""

    def __init__(self, directory, device):
        self.directory = directory
        self.content = {"asked for": device, "environment": {}, "steps": [], "kernels": [], "rows": [], "failures": []}

    @property
    def failed(self):
        """Whether a step has failed."""
        return any(step["status"] == "failed" for step in self.content["steps"])

    def save(self):
        """Write both files, each under another name first."""
        _write(self.directory / "report.json", json.dumps(self.content, indent=1) + "\n")
        _write(self.directory / "report.md", markdown(self.content))

    def step(self, name, function):
        """Do a step: `function(step)` fills in the record of the step and returns whether it passed."""
        step = {"name": name, "status": "running", "seconds": 0.0, "note": "", "output": ""}
        self.content["steps"].append(step)
        self.save()
        print(f"{name} ...", end=" ", flush=True)
        start = time.perf_counter()
        try:
            passed = function(step)
        except Exception as error:
            passed, step["note"] = False, f"{type(error).__name__}: {error}"
        step["seconds"] = round(time.perf_counter() - start, 1)
        step["status"] = "skipped" if passed is None else "passed" if passed else "failed"
        step["output"] = step["output"][-TAIL:]
        print(f"{step['status']}, {step['seconds']:.0f} s {step['note']}", flush=True)
        self.save()


def environment(report, step, options):
    """Versions and the device; tried before anything is built."""
    done = execute([sys.executable, str(WORKER), "environment", "--device", options.device], _variables(), 300)
    step["output"] = done.output
    if done.code != 0:
        return False
    found = json.loads(done.output.splitlines()[-1])
    report.content["environment"] = found
    commands = {
        "driver": ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        "nvcc": ["nvcc", "--version"],
        "commit": ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
    }
    for key, command in commands.items():
        if shutil.which(command[0]):
            lines = execute(command, _variables(), 60).output.strip().splitlines()
            found[key] = next((line.strip() for line in lines if "release" in line), (lines or [""])[0])
    return found["available"]


def build(report, step, options):
    """The compiled modules, in place; in a new build folder, so that the time is that of a whole build."""
    variables = _variables() | {"LABELDROP_CUDA": "ON" if options.device == "cuda" else "OFF"}
    variables["CUDAFLAGS"] = "-Xptxas=-v"
    capability = report.content["environment"].get("capability")
    if capability:
        variables["LABELDROP_CUDA_ARCHS"] = capability.replace(".", "")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "setup.py", "build_ext", "--inplace", "--build-temp", folder]
        done = execute(command, variables, 60 * options.limit)
    step["output"] = done.output
    found = ptxas.kernels(done.output)
    report.content["kernels"] = [asdict(kernel) for kernel in found]
    spilling = [kernel for kernel in found if kernel.spills]
    step["note"] = f"{len(found)} kernels, {len(spilling)} spill"
    return done.code == 0 and all(kernel.excuse for kernel in spilling)


def tests(_, step, options):
    marker = "cuda" if options.device == "cuda" else "not cuda and not slow"
    return _pytest(step, [], ["-m", marker, *(options.tests or TESTS)], options)


def sanitizer(tool):
    """A step of compute-sanitizer."""

    def run(_, step, options):
        if options.device != "cuda":
            step["note"] = "only with a CUDA device"
            return None
        home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
        program = shutil.which("compute-sanitizer", path=f"{os.environ.get('PATH', '')}:{home}")
        if program is None:
            step["note"] = f"compute-sanitizer is neither on PATH nor in {home}"
            return False
        prefix = [program, "--tool", tool, "--error-exitcode", "9"]
        return _pytest(step, prefix, ["-m", "cuda", "tests/test_every_kernel.py"], options)

    return run


def _pytest(step, prefix, arguments, options):
    """Run pytest, under another program if there is a prefix."""
    # torch's cache of memory hides from a sanitizer where a tensor ends
    variables = _variables() | ({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if prefix else {})
    with tempfile.TemporaryDirectory() as cache:
        command = [*prefix, *PYTEST, "-q", "-o", f"cache_dir={cache}", *arguments]
        done = execute(command, variables, 60 * options.limit)
    step["output"] = done.output
    lines = done.output.strip().splitlines()
    step["note"] = "; ".join(line.strip("= ") for line in lines if " passed" in line or "ERROR SUMMARY" in line)
    if done.timed_out:
        step["note"] = f"stopped after {options.limit} minutes"
    return done.code == 0


def benchmark(report, step, options):
    """Case after case from a worker; one that fails or dies costs that case, and another worker goes on."""
    deadline = time.monotonic() + 60 * options.minutes
    plan, number = None, 0
    while plan is None or number < len(plan):
        command = [sys.executable, str(WORKER), "measure", "--device", options.device, "--size", options.size]
        with Worker([*command, "--first", str(number)], _variables(), deadline - time.monotonic()) as worker:
            for message in worker.messages():
                plan = message.get("plan", plan)
                if "case" in message:
                    number = message["case"] + 1
                    report.content["rows"] += message.get("rows", [])
                    if "error" in message:
                        _fail(report, plan[message["case"]], message["error"])
                    report.save()
        step["output"] = worker.errors
        if plan is None:
            step["note"] = "the worker did not start"
            return False
        if number < len(plan) and time.monotonic() >= deadline:
            step["note"] = f"stopped after {options.minutes} minutes, with {number} of {len(plan)} cases done"
            return False
        if number < len(plan) and not worker.said_error:
            _fail(report, plan[number], f"the process ended with code {worker.code}\n{worker.errors[-TAIL:]}")
            number += 1
    failures = len(report.content["failures"])
    step["note"] = f"{len(plan)} cases, {failures} failed"
    return failures == 0


def trainings(_, step, options):
    """Trainings per hour with 1, 2, 4 and 8 processes on the GPU."""
    if options.device != "cuda":
        step["note"] = "only with a CUDA device"
        return None
    command = [sys.executable, "-m", "benchmarks.trainings_per_hour", "--out", str(options.out.resolve())]
    done = execute(command, _variables(), 60 * options.limit)
    step["output"] = done.output
    counts = [line for line in done.output.splitlines() if line.endswith("trainings per hour")]
    step["note"] = "; ".join([*counts, *([f"stopped after {options.limit} minutes"] if done.timed_out else [])])
    return done.code == 0


def _fail(report, case, error):
    report.content["failures"].append({"case": case, "error": error})
    report.save()


def _variables():
    """Environment of a step: the source tree comes first where it is built in place, else what is installed."""
    variables = dict(os.environ)
    if list((ROOT / "labeldrop_bench").glob("_cpu*.so")):
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return variables


def _write(path, text):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


FUNCTIONS = {
    "environment": environment,
    "build": build,
    "tests": tests,
    "benchmark": benchmark,
    "trainings": trainings,
    **{tool: sanitizer(tool) for tool in ("memcheck", "racecheck", "initcheck")},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for report.json and report.md")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--skip", choices=STEPS[1:], action="append", default=[], help="leave out a step (repeatable)")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="of the benchmark")
    parser.add_argument("--limit", type=float, default=20, help="minutes for each step but the benchmark")
    parser.add_argument("--minutes", type=float, default=40, help="minutes for the benchmark")
    parser.add_argument("--tests", action="append", help="test files of the step `tests` (repeatable)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that a step's processes end with this one
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out, options.device)
    for name in STEPS:
        if name in options.skip:
            continue
        report.step(name, lambda step, name=name: FUNCTIONS[name](report, step, options))
        if name == "environment" and report.content["environment"].get("available") is False:
            print("device_report: torch finds no CUDA device here; --device cpu goes through the steps without one")
            return NO_DEVICE
    print(f"Written to {options.out}: report.json, report.md")
    return FAILED if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
