"""What lies under benchmarks/ and is not installed: options of pytest, the device report, the check of spills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import labeldrop_bench as lb

ROOT = Path(__file__).parents[1]
SAY = "import sys; del sys.path[0]; "  # imports the package that is tested, not the tree that the process stands in
TRAININGS = [
    sys.executable, "-c",
    f"{SAY}sys.path.append('.'); import runpy; runpy.run_module('benchmarks.trainings_per_hour', run_name='__main__')",
]  # fmt: skip
PYTEST = [sys.executable, "-c", f"{SAY}import pytest; sys.exit(pytest.main(sys.argv[1:]))"]

if not (ROOT / "benchmarks").is_dir():
    pytest.skip("benchmarks/ is not in this copy of the sources", allow_module_level=True)


def run(*command, **options):
    # the package that is tested here, wherever it was found
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment.pop("PYTEST_XDIST_WORKER", None)  # a pytest that is called here is nobody's worker
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, **options)


def collected(*arguments):
    done = run(*PYTEST, "--collect-only", "-q", "-p", "no:cacheprovider", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_quick_subset_has_every_loss():
    quick = collected("benchmarks", "--benchmark-only")
    for loss in lb.losses.names():
        assert any(f"-{loss}-K14-" in name or f"[{loss}-K14-" in name for name in quick), loss
    assert not any("-K32-" in name for name in quick)


def test_the_option_runs_the_benchmarks_alone_and_k_chooses_from_all():
    chosen = collected("--benchmark", "-k", "marginal_ce-K32-1x96x96x96-bfloat16-contiguous")
    assert chosen
    assert all(name.startswith("benchmarks/test_speed.py") and "-K32-" in name for name in chosen)


def test_plain_pytest_runs_no_benchmark(pytestconfig):
    assert pytestconfig.getini("testpaths") == ["tests"]


@pytest.mark.slow
def test_a_benchmark_tells_bytes_and_memory(tmp_path):
    file = tmp_path / "out.json"
    pattern = "marginal_ce-K4-1x64x64x64-float32-contiguous and (fused or copy) and not compile"
    done = run(*PYTEST, "--benchmark", "-q", "-p", "no:cacheprovider", "-k", pattern, f"--benchmark-json={file}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {b["name"]: b["extra_info"] for b in json.loads(file.read_text())["benchmarks"]}
    assert found["fused"]["bytes"] == 64**3 * (2 * 4 * 4 + 1)
    assert 0 < found["fused"]["share_of_copy"] < 2


# What a machine for kernels need not have
ABSENT = ("monai", "pydantic", "nibabel", "SimpleITK", "nnunetv2", "ray", "lightning")
TOOL = """#!/bin/sh
echo "$0 $@" >> {log}
echo "========= ERROR SUMMARY: {errors} errors"
while [ "${{1%python*}}" = "$1" ]; do shift; done
"$@" || exit 1
exit {code}
"""


def report(tmp_path, *arguments, path="", patch="", absent=()):
    """`python -m benchmarks.device_report` with folders put in front of PATH, names changed, and packages missing."""
    missing = tmp_path / "missing"
    missing.mkdir()
    for name in absent:
        (missing / f"{name}.py").write_text("raise ImportError('not on this machine')\n")
    code = f"import sys; from benchmarks import device_report as d; {patch or 'pass'}; sys.exit(d.main())"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(missing), *(p for p in sys.path if p)]),
        "PATH": os.pathsep.join(filter(None, [str(path), os.environ["PATH"]])),
    }
    command = [sys.executable, "-c", code, "--out", str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, json.loads((tmp_path / "report.json").read_text()), (tmp_path / "report.md").read_text()


def statuses(content):
    return {part["name"]: part["status"] for part in content["parts"]}


@pytest.mark.slow
def test_a_rehearsal_of_the_device_report_goes_through_every_part(tmp_path):
    done, content, page = report(tmp_path, "--dry", absent=ABSENT)
    assert done.returncode == 0, done.stdout + done.stderr + page
    assert statuses(content) == dict.fromkeys(
        ("environment", "build", "tests", "sanitizers", "benchmark", "ncu"), "passed"
    )
    assert {row["loss"] for row in content["rows"]} >= set(lb.losses.names())
    assert all(row["milliseconds"] > 0 for row in content["rows"] if not row["note"])
    assert any(row["peer"] == "compile" and row["milliseconds"] for row in content["rows"])
    notes = {part["name"]: part["note"] for part in content["parts"]}
    assert " skipped" in notes["tests"]  # the very tests that a GPU runs
    assert [each["tool"] for each in content["sanitizers"]] == ["memcheck", "racecheck", "initcheck", "synccheck"]
    assert all(each["note"].split()[0] != "0" and "touched" in each["note"] for each in content["sanitizers"])
    assert "| label_flip" in page
    assert "a rehearsal on the CPU" in page
    after = done.stdout.split("Set cross-entropy: of a clone")[1]
    assert "float32 contiguous" in after
    assert len(done.stdout.splitlines()) < 60


def fake_tools(folder, errors=0):
    """compute-sanitizer and ncu that write down how they were called, run the process, and find errors."""
    for name, code in (("compute-sanitizer", 9 if errors else 0), ("ncu", 0)):
        (folder / name).write_text(TOOL.format(log=folder / "log", errors=errors, code=code))
        (folder / name).chmod(0o755)
    return folder


FEW = ("--dry", "--skip", "build", "--skip", "tests", "--skip", "benchmark")


def test_the_tools_are_called_with_what_they_know(tmp_path):
    (tools := tmp_path / "tools").mkdir()
    done, _, page = report(tmp_path, *FEW, path=fake_tools(tools))
    assert done.returncode == 0, done.stdout + page
    calls = (tools / "log").read_text()
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck"):
        assert f"--tool {tool} --error-exitcode 9" in calls
        assert f"| {tool}" in page
    assert "--csv --clock-control none --kernel-name regex:(set_cross_entropy_contiguous" in calls


def test_what_a_sanitizer_finds_fails_its_part_and_the_next_one_is_done(tmp_path):
    (tools := tmp_path / "tools").mkdir()
    done, content, page = report(tmp_path, *FEW, path=fake_tools(tools, errors=3))
    assert done.returncode == 1
    assert statuses(content) == {"environment": "passed", "sanitizers": "failed", "ncu": "passed"}
    assert "ERROR SUMMARY: 3 errors" in page


def test_parts_that_raise_or_have_no_time_left_leave_the_others(tmp_path):
    no_time = "d.LIMITS |= dict(environment=90, sanitizers=0, benchmark=-99, ncu=99)"
    raises = "d.PARTS['sanitizers'] = lambda *_: 1 / 0"
    done, content, page = report(tmp_path, *FEW[:5], patch=f"{no_time}; {raises}")
    assert done.returncode == 1
    expected = {"environment": "passed", "sanitizers": "failed", "benchmark": "failed", "ncu": "passed"}
    assert statuses(content) == expected
    assert "ZeroDivisionError" in page


def test_all_parts_together_take_eight_minutes_at_most():
    done = run(sys.executable, "-c", "from benchmarks.device_report import LIMITS; print(sum(LIMITS.values()))")
    assert int(done.stdout) <= 8 * 60, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_device_report_without_a_device_says_so(tmp_path):
    done, content, _ = report(tmp_path)
    assert done.returncode == 2
    assert "no CUDA device" in done.stdout
    assert statuses(content) == {"environment": "failed"}


NCU = """\
==PROF== Connected to process 7
a line of the program
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","dice_sums_kernel","dram__bytes_read.sum","Gbyte","1.20"
"0","7","dice_sums_kernel","gpu__time_duration.sum","us","340"
"1","7","other_kernel","dram__bytes_read.sum","Mbyte","5"
==PROF== Disconnected
"""


def test_metrics_of_ncu_are_read():
    code = "import json, sys; from benchmarks.device_tools import metrics; print(json.dumps(metrics(sys.stdin.read())))"
    assert json.loads(run(sys.executable, "-c", code, input=NCU).stdout) == [
        {"kernel": "dice_sums_kernel", "read": "1.20 Gbyte", "time": "340 us"},
        {"kernel": "other_kernel", "read": "5 Mbyte"},
    ]


LOG = """\
ptxas info    : Compiling entry function '_Z4goodv' for 'sm_90'
ptxas info    : Function properties for _Z4goodv
    0 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""


@pytest.mark.parametrize(
    ("log", "code"), [(LOG.format(stores=0, loads=0), 0), (LOG.format(stores=8, loads=4), 1), ("", 1)]
)
def test_spills_are_found(tmp_path, log, code):
    (tmp_path / "log").write_text(log)
    done = run(sys.executable, "benchmarks/ptxas.py", str(tmp_path / "log"))
    assert done.returncode == code, done.stdout
    assert ("NOT ALLOWED" in done.stdout) == ("8 bytes" in log)


@pytest.mark.slow
def test_trainings_per_hour_are_measured_by_sweeps(tmp_path):
    small = ["data.train=2", "data.validation=2", "data.test=2", "training.epochs=3", "training.precision=32-true"]
    sets = [word for override in small for word in ("--set", override)]
    command = ["--suite", "smoke", "--device", "cpu", "--processes", "1", "2", "--runs", "2", "--out", str(tmp_path)]
    done = run(*TRAININGS, *command, *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "trainings_per_hour.json").read_text())
    assert report["environment"]["device"].startswith("cpu (")
    for processes, row in zip((1, 2), report["rows"], strict=True):
        assert row["processes"] == row["used"] == processes
        assert row["runs"] == 2 * processes
        rounding = 0.001 + 0.005 / row["seconds"]  # two digits of the seconds are written down
        assert row["per_hour"] == pytest.approx(3600 * row["runs"] / row["seconds"], rel=rounding)
        assert f"{row['per_hour']:.1f}".rstrip("0").rstrip(".") in done.stdout
    again = run(*TRAININGS, *command, "--strategy", "adaptiv")
    assert again.returncode == 1
    assert "smoke.toml has no strategy 'adaptiv'; it has: full, standard, adaptive" in again.stderr


@pytest.mark.slow
def test_a_run_with_more_than_a_hundred_classes_tells_its_memory():
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is told by Linux alone")
    small = ["--size", "32", "--box", "16", "--epochs", "1", "--threads", "1"]
    done = run(sys.executable, "-c", TRAININGS[2].replace("trainings_per_hour", "many_labels"), *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "117 foreground classes, volumes of 32^3" in done.stdout
    # One float32 number for each class and voxel is 15 MB: this is what Python, torch and MONAI take
    assert 0.1 < float(done.stdout.split("highest peak: ")[1].split()[0]) < 2
