"""One command for a machine with a GPU: build, test, sanitize, measure, and write it down, in eight minutes at most.

    python -m benchmarks.device_report --out DIR

Parts: environment; build (in place, for this GPU alone); tests (`pytest -m cuda`, bounded); sanitizers (memcheck,
racecheck, initcheck and synccheck of compute-sanitizer, side by side, on a short selection); benchmark (the losses
against a clone, eager PyTorch, torch.compile and F.cross_entropy); ncu (metrics of three kernels, if it is there).
DIR/report.json and DIR/report.md are written anew after every part and every case of the benchmark. A part has a time
limit of its own, and the time besides that the parts before it have left over. One that fails or is stopped is recorded
with its output, and the next one is done. What matters most is printed last.

Needs torch, pytest, hypothesis, filelock, tabulate, cmake, ninja and nvcc, and nothing from the network; what only some
peers of the benchmark need may be missing.

Exit code: 0 if every part passed, 1 if one failed, 2 without a CUDA device. `--dry` goes through every part on the CPU,
in a minute: nothing is compiled, the tools are left out where they are missing, and the figures mean nothing.
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
from importlib.util import find_spec
from pathlib import Path

from benchmarks import device_tools, ptxas
from benchmarks.device_markdown import markdown, summary
from benchmarks.processes import Worker, execute

ROOT = Path(__file__).resolve().parents[1]
WORKER = (sys.executable, str(Path(__file__).with_name("device_cases.py")))
# Seconds. The first import of torch on a machine that has just been started reads gigabytes.
LIMITS = {"environment": 70, "build": 110, "tests": 75, "sanitizers": 80, "benchmark": 105, "ncu": 40}
TESTS = ("tests/ops", "tests/test_losses.py", "tests/test_dropout.py", "tests/test_every_kernel.py")
# A process that imports what is installed, or what PYTHONPATH says, and not the directory that it is started in.
PYTEST = (sys.executable, "-c", "import sys; del sys.path[0]; import pytest; sys.exit(pytest.main(sys.argv[1:]))")
NO_DEVICE, FAILED = 2, 1
TAIL = 8000  # characters of a part's output that are kept


class Report:
    """The record, as a dictionary that is written after every change.

    Attributes:
        directory: of the files.
        dry: whether this is a rehearsal on the CPU.
        content: what is written.
    """

    def __init__(self, directory, dry):
        self.directory, self.dry = directory, dry
        self.deadline = time.monotonic()
        self.content = {
            "dry": dry, "environment": {}, "parts": [], "kernels": [], "sanitizers": [], "rows": [], "failures": [],
            "ncu": [],
        }  # fmt: skip

    @property
    def device(self):
        """Where the losses are computed."""
        return "cpu" if self.dry else "cuda"

    @property
    def seconds(self):
        """That the part which is running has left."""
        return max(self.deadline - time.monotonic(), 1)

    @property
    def failed(self):
        """Whether a part has failed."""
        return any(part["status"] == "failed" for part in self.content["parts"])

    def save(self):
        """Write both files, each under another name first."""
        _write(self.directory / "report.json", json.dumps(self.content, indent=1) + "\n")
        _write(self.directory / "report.md", markdown(self.content))

    def run(self, name, function):
        """Do a part: `function(report, part)` fills in its record and returns whether it passed."""
        part = {"name": name, "status": "running", "seconds": 0.0, "note": "", "output": ""}
        self.content["parts"].append(part)
        self.save()
        print(f"{name} ...", end=" ", flush=True)
        start = time.perf_counter()
        self.deadline += LIMITS[name]
        try:
            passed = function(self, part)
        except Exception as error:
            passed, part["note"] = False, f"{type(error).__name__}: {error}"
        part["seconds"] = round(time.perf_counter() - start, 1)
        part["status"] = "skipped" if passed is None else "passed" if passed else "failed"
        part["output"] = part["output"][-TAIL:]
        print(f"{part['status']}, {part['seconds']:.0f} s {part['note']}", flush=True)
        self.save()


def environment(report, part):
    """Versions and the device; tried before anything is built."""
    done = execute([*WORKER, "environment", "--device", report.device], variables(report), report.seconds)
    part["output"] = done.output
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
            lines = execute(command, variables(report), report.seconds).output.strip().splitlines()
            found[key] = next((line.strip() for line in lines if "release" in line), (lines or [""])[0])
    return found["available"]


def build(report, part):
    """The compiled modules, in place; in a new build folder, so that the time is that of a whole build."""
    capability = report.content["environment"].get("capability", "9.0")
    environment = variables(report) | {
        "CUDAFLAGS": "-Xptxas=-v",
        "LABELDROP_CUDA": "AUTO" if report.dry else "ON",
        "LABELDROP_CUDA_ARCHS": capability.replace(".", ""),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "setup.py", "build_ext", "--inplace", "--build-temp", folder]
        if report.dry:  # ninja says what it would compile; where that is put, nothing is installed from it
            environment["PATH"] = f"{device_tools.pretending_ninja(Path(folder))}{os.pathsep}{environment['PATH']}"
            command = [*command[:2], "build_ext", "--build-lib", f"{folder}/lib", "--build-temp", folder]
        done = execute(command, environment, report.seconds)
    part["output"] = done.output
    if report.dry:
        files = done.output.count("Building C") + done.output.count("Building CUDA")
        part["note"] = f"{files} files would be compiled"
        return "Linking CXX shared module _cpu" in done.output  # which then is not there to be installed
    found = ptxas.kernels(done.output)
    report.content["kernels"] = [asdict(kernel) for kernel in found]
    spilling = [kernel for kernel in found if kernel.spills]
    part["note"] = f"{len(found)} kernels, {len(spilling)} spill"
    return done.code == 0 and all(kernel.excuse for kernel in spilling)


def tests(report, part):
    """Pytest, in several processes where it can; a line for each test, so that a stopped run tells how far it came."""
    several = ("-n", "8") if find_spec("xdist") and not report.dry else ()
    with tempfile.TemporaryDirectory() as cache:
        options = ["-v", "--tb=short", "--maxfail=20", "-o", f"cache_dir={cache}", *several]
        command = [*PYTEST, *options, "-m", "cuda", *TESTS]  # all of which are skipped in a rehearsal
        done = execute(command, variables(report), report.seconds)
    part["output"] = done.output
    lines = done.output.strip().splitlines()
    last = [line.strip("= ") for line in lines if line.startswith("=") and " in " in line]
    part["note"] = last[-1] if last else f"{done.output.count(' PASSED')} passed, {done.output.count(' FAILED')} failed"
    if done.timed_out:
        part["note"] += ", then stopped"
    return done.code == 0 or (done.timed_out and " FAILED" not in done.output and " PASSED" in done.output)


def benchmark(report, part):
    """Case after case from a worker; one that fails or dies costs that case, and another worker goes on."""
    plan, number = None, 0
    while plan is None or number < len(plan):
        command = [*WORKER, "measure", "--device", report.device, "--size", "tiny" if report.dry else "full"]
        with Worker([*command, "--first", str(number)], variables(report), report.seconds) as worker:
            for message in worker.messages():
                plan = message.get("plan", plan)
                if "case" in message:
                    number = message["case"] + 1
                    report.content["rows"] += message.get("rows", [])
                    if "error" in message:
                        _fail(report, plan[message["case"]], message["error"])
                    report.save()
        part["output"] = worker.errors
        if plan is None:
            part["note"] = "the worker did not start"
            return False
        if number < len(plan) and report.seconds <= 1:
            break
        if number < len(plan) and not worker.said_error:
            _fail(report, plan[number], f"the process ended with code {worker.code}\n{worker.errors[-TAIL:]}")
            number += 1
    failures = len(report.content["failures"])
    stopped = f"; {len(plan) - number} not measured for want of time" if number < len(plan) else ""
    part["note"] = f"{number} of {len(plan)} cases, {failures} failed{stopped}"
    return failures == 0 and number > 0


def _fail(report, case, error):
    report.content["failures"].append({"case": case, "error": error})
    report.save()


def variables(report):
    """Environment of a part: the source tree, where the modules are built in place; in a rehearsal what is here."""
    found = dict(os.environ)
    if not report.dry:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return found


def _write(path, text):
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def sanitizers(report, part):
    """Every tool of compute-sanitizer at once, each in a process of its own, on `device_cases.py touch`."""
    found = device_tools.sanitize(WORKER, report.dry, variables(report), report.seconds)
    report.content["sanitizers"] = found
    part["note"] = "; ".join(f"{each['tool']} {each['status']}" for each in found)
    part["output"] = "\n".join(each["output"] for each in found if each["status"] != "passed")
    return all(each["status"] == "passed" for each in found)


def ncu(report, part):
    """Metrics of three kernels; without ncu nothing is wrong."""
    done = device_tools.profile(WORKER, report.dry, variables(report), report.seconds)
    if done is None:
        part["note"] = "there is no ncu"
        return None
    part["output"] = done.output
    report.content["ncu"] = device_tools.metrics(done.output)
    part["note"] = f"{len(report.content['ncu'])} kernels"
    return done.code == 0 and (report.dry or bool(report.content["ncu"]))


PARTS = {
    "environment": environment,
    "build": build,
    "tests": tests,
    "sanitizers": sanitizers,
    "benchmark": benchmark,
    "ncu": ncu,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for report.json and report.md")
    parser.add_argument("--dry", action="store_true", help="rehearse every part on the CPU")
    parser.add_argument("--skip", choices=[*PARTS][1:], action="append", default=[], help="leave out (repeatable)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # so that a part's processes end with this one
    options.out.mkdir(parents=True, exist_ok=True)
    report = Report(options.out, options.dry)
    for name, function in PARTS.items():
        if name in options.skip:
            continue
        report.run(name, function)
        if name == "environment" and report.content["environment"].get("available") is False:
            print("device_report: torch finds no CUDA device here; --dry rehearses the parts without one")
            return NO_DEVICE
    print(summary(report.content))
    print(f"Written to {options.out}: report.json, report.md")
    return FAILED if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
