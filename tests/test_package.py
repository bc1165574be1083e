"""What the package promises as a whole: light imports, imports that point one way, one OpenMP runtime, one version."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import labeldrop_bench as lb
from labeldrop_bench.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(lb.__file__).parent
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

# The parts of the package, and the parts that each may import. A new part has to be given its place here.
MAY_IMPORT = {
    "label_space": [],
    "constants": [],
    "dropout": ["constants", "ops", "reference"],
    "records": ["errors", "text"],
    "metrics": [],
    "errors": [],
    "text": ["errors"],
    "plugins": ["errors"],
    "environment": ["text"],
    "results": [],
    "reference": ["results"],
    "models": ["plugins"],
    "sets": [],
    "ops": ["results", "sets"],
    "rules": ["constants", "label_space", "sets"],
    "losses": ["constants", "label_space", "plugins", "rules", "sets", "ops", "reference"],
    "__init__": ["label_space", "rules", "dropout", "ops", "reference", "losses"],
    "data": ["extras", "label_space", "plugins", "records", "text"],
    "init": ["data", "errors", "extras", "records"],
    "augment": ["records"],
    "suites": ["errors", "records", "text"],
    "leaderboard": ["records", "text"],
    "submit": ["errors", "leaderboard", "records", "text"],
    "speed": ["environment", "errors", "losses", "ops", "records", "text"],
    "foreground": ["data"],
    "patches": ["data", "foreground", "records"],
    "checkpoints": ["errors", "records"],
    "evaluate": ["label_space", "data", "metrics", "patches", "records"],
    "cost": ["data", "speed", "train", "records"],
    "train": [
        "label_space", "dropout", "losses", "data", "augment", "models", "patches", "checkpoints", "evaluate", "errors",
        "records",
    ],
    "procedures": [
        "label_space", "plugins", "rules", "losses", "data", "checkpoints", "evaluate", "train", "records",
    ],
    "run": [
        "label_space", "data", "environment", "errors", "checkpoints", "cost", "evaluate", "train", "procedures",
        "records",
    ],
    "sweep": [
        "extras", "losses", "data", "patches", "checkpoints", "evaluate", "train", "procedures", "run", "suites",
        "errors", "records", "text",
    ],
    "progress": ["checkpoints", "leaderboard", "errors", "records"],
    "extras": ["errors"],
    "integrations": ["label_space", "rules", "dropout", "losses", "ops", "errors", "extras", "text"],
    "doctor": ["__init__", "losses", "ops", "reference", "text"],
    "commands": [
        "losses", "data", "init", "models", "plugins", "suites", "run", "sweep", "progress", "leaderboard",
        "submit", "speed", "errors", "records",
    ],
    "cli": ["__init__", "extras", "doctor", "integrations", "commands"],
}  # fmt: skip


def _part(path: Path) -> str:
    """The part of the package that a module or folder right under it makes."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


PARTS = sorted({_part(path) for path in PACKAGE.rglob("*.py")})


def _imported_parts(path: Path) -> set[str]:
    """Parts of the package that a file imports, anywhere in it; what is no part is a name in `__init__`."""
    inside = ".".join([PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1]])
    names: list[str] = []
    for node in ast.walk(ast.parse(read_text(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), inside)
            names += [f"{origin}.{alias.name}" for alias in node.names]
    inner = [name.split(".") for name in names if name.split(".")[0] == PACKAGE.name]
    return {parts[1] if len(parts) > 1 and parts[1] in PARTS else "__init__" for parts in inner}


@pytest.mark.parametrize("part", PARTS)
def test_imports_are_those_that_the_part_may_have(part: str) -> None:
    assert part in MAY_IMPORT, "a new part: give it a place in MAY_IMPORT, with as few imports as will do"
    for path in PACKAGE.rglob("*.py"):
        if _part(path) == part:
            assert _imported_parts(path) <= {part, *MAY_IMPORT[part]}, path


def test_imports_point_one_way() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


def _python(code: str) -> str:
    """What a fresh process prints, that finds the package where this one has found it."""
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HARNESS = {
    "PIL", "SimpleITK", "av", "einops", "filelock", "jinja2", "kornia", "lightning_fabric", "matplotlib", "monai",
    "nibabel", "pandas", "psutil", "pydantic", "ray", "rich", "scipy", "skimage", "tabulate", "typer",
}  # fmt: skip

USE_EVERY_LOSS = """
import torch
import labeldrop_bench as lb
from labeldrop_bench.text import read_text

target = torch.randint(0, 3, (2, 4, 4))
annotated = lb.LabelDropout(p=0.5)(torch.tensor([[True, True, True], [True, True, False]]))
for name in lb.losses.names():
    for backend in ("fused", "reference"):
        loss = lb.losses.create(name, num_classes=3, backend=backend)
        loss(torch.randn(2, loss.out_channels, 4, 4, requires_grad=True), target, annotated).backward()
lb.drop_labels(target, annotated)
"""


def test_losses_import_nothing_of_the_harness() -> None:
    """Somebody who only wants a loss waits for torch and nothing else."""
    # torch itself may bring some of these one day: what counts is what the package adds
    code = f"import sys, torch\nbefore = set(sys.modules)\n{USE_EVERY_LOSS}\n"
    added = _python(code + f"print(*({HARNESS} & set(sys.modules) - before))")
    assert added.split() == []


def test_one_openmp_runtime() -> None:
    """The kernels use torch's threads: a second runtime would have a pool of its own, and fight for the cores."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("lists the libraries of a process through /proc/self/maps, which this system does not have")
    show = """
import re
from pathlib import Path
maps = Path("/proc/self/maps").read_text()
print(*sorted(set(re.findall(r"\\S*/lib(?:gomp|iomp|omp)\\S*", maps))), sep="\\n")
"""
    runtimes = _python(USE_EVERY_LOSS + show).split()
    assert len(runtimes) == 1, runtimes


IMPORT_EVERYTHING = """
import builtins
import importlib
import pkgutil
from importlib.util import find_spec

before = builtins.__import__

def on_windows(name, globals=None, *rest, **options):
    ours = ((globals or {}).get("__name__") or "").startswith("labeldrop_bench")
    if ours and name in {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}:
        raise ModuleNotFoundError(f"no module named {name!r}", name=name)
    return before(name, globals, *rest, **options)

folders = find_spec("labeldrop_bench").submodule_search_locations  # not imported yet
builtins.__import__ = on_windows
for module in pkgutil.walk_packages(folders, "labeldrop_bench."):
    if not module.name.startswith(SKIPPED):
        importlib.import_module(module.name)
"""
FRAMEWORKS = ("labeldrop_bench.integrations.nnunet.train",)  # imports what this environment may not have


def test_every_module_is_imported_without_what_only_posix_has() -> None:
    """Whatever part somebody needs, on Windows it is not refused for the sake of another one."""
    _python(IMPORT_EVERYTHING.replace("SKIPPED", repr(FRAMEWORKS)))


POSIX_ALONE = {
    "os": {
        "chown", "fork", "geteuid", "getgid", "getloadavg", "getpgid", "getpgrp", "getuid", "killpg", "mkfifo",
        "nice", "sched_getaffinity", "sched_setaffinity", "setpgid", "setsid", "statvfs", "sync", "sysconf", "uname",
        "wait", "fchmod", "WNOHANG",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm",
        "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait",
    },
}  # fmt: skip


def test_what_only_posix_has_is_asked_for_before_it_is_used() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = read_text(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                line = text.splitlines()[node.lineno - 1]
                asked = f'hasattr({node.value.id}, "{node.attr}")' in line
                assert asked or node.attr not in POSIX_ALONE.get(node.value.id, ()), (
                    f"{path}:{node.lineno}: {line.strip()}"
                )


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["labeldrop_bench._" + name for name in {missing}]))  # None: there is no such module
import torch
import labeldrop_bench as lb
from labeldrop_bench.text import read_text

def try_loss(device, backend):
    tensors = torch.zeros(1, 3, 2, device=device), torch.zeros(1, 2, dtype=torch.int64, device=device)
    try:
        return lb.losses.create("ce", num_classes=3, backend=backend)(*tensors).item()
    except RuntimeError as error:
        return error
"""


def test_the_cpu_module_alone_is_enough_for_the_cpu() -> None:
    code = WITHOUT.format(missing=["cuda"])
    ask = """
from labeldrop_bench.ops import _native
print(round(try_loss("cpu", "fused"), 4))
try:
    _native.module(torch.device("cuda"), "drop_labels")
except RuntimeError as error:
    print(error)
"""
    value, error = _python(code + ask).splitlines()
    assert value == "1.0986"  # log 3
    assert "no compiled kernel for device 'cuda'" in error
    assert "LABELDROP_CUDA=ON" in error


def test_a_kernel_that_is_not_built_is_an_error_and_not_the_reference() -> None:
    code = WITHOUT.format(missing=["cpu", "cuda"])
    shown = _python(code + 'print(try_loss("cpu", "fused"), try_loss("cpu", "reference"), sep="\\n")')
    error, value = shown.splitlines()
    assert "no compiled kernel for device 'cpu'" in error
    assert "pip install ." in error
    assert float(value) == pytest.approx(1.0986, abs=1e-4)


def test_one_version() -> None:
    if lb.__version__ == "unknown":
        pytest.skip("the package is not installed, so it has no version")
    assert lb.__version__ == tomllib.loads(read_text(PYPROJECT))["project"]["version"]
