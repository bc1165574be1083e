"""The package alone, in an empty environment, without a compiler: what it brings, and that it trains.

`LABELDROP_WHEEL` names a wheel that is there already; without it one is built, which takes a minute.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = "Scripts" if sys.platform == "win32" else "bin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the sources are not beside this copy of the tests"),
]

TRAIN = """
import torch
import labeldrop_bench as lb

torch.manual_seed(0)
network = torch.nn.Conv2d(1, 3, 3, padding=1)
target = torch.randint(0, 3, (4, 1, 16, 16))
image = target + 0.1 * torch.randn(4, 1, 16, 16)
annotated = torch.tensor([[True, True, True], [True, True, False]] * 2)
loss, drop = lb.losses.create("marginal_ce+marginal_dice", num_classes=3), lb.LabelDropout(p=0.3)
optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
before = loss(network(image), target, annotated).item()
for _ in range(10):
    optimizer.zero_grad()
    loss(network(image), target, drop(annotated)).backward()
    optimizer.step()
print(before - loss(network(image), target, annotated).item())
"""


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _wheel(folder: Path) -> Path:
    """The one that is named; or a new one, from a copy of the sources, since setuptools builds inside of them."""
    if named := os.environ.get("LABELDROP_WHEEL"):
        return Path(named)
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", "*.so", "runs", "results", "docs")
    sources = shutil.copytree(ROOT, folder / "sources", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sources]
    _run(*pip, env={**os.environ, "LABELDROP_CUDA": "OFF", "PYTHONPATH": ""})
    (wheel,) = folder.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment with the package and what it requires, and nothing else on the path."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        _run(sys.executable, "-m", "venv", folder)
        self.folder, self.bin = folder, folder / BIN
        keep = {name: os.environ[name] for name in ("HOME", "SYSTEMROOT", "TMPDIR") if name in os.environ}
        self.environ = {**keep, "PATH": str(self.bin)}
        # what is never imported need not be compiled
        pip = [self.bin / "python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt"]
        _run(*pip, wheel, env={**os.environ, "PYTHONPATH": ""})

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment; from its own folder, which holds no sources."""
        command = [self.bin / words[0], *words[1:]]
        return subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("base"), _wheel(tmp_path_factory.mktemp("wheel")))


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_it_brings_torch_and_numpy_and_what_these_require(base: Environment) -> None:
    listed = json.loads(base.call("python", "-m", "pip", "inspect").stdout)["installed"]
    requires = {
        _name(item["metadata"]["name"]): {
            _name(line) for line in item["metadata"].get("requires_dist", ()) if "extra ==" not in line
        }
        for item in listed
    }
    assert requires["labeldrop-bench"] == {"torch", "numpy"}
    reached, ahead = set(), {"labeldrop-bench"}
    while ahead:
        reached |= ahead
        ahead = set().union(*(requires.get(name, set()) for name in ahead)) - reached
    assert set(requires) <= reached | {"pip", "setuptools"}, "more than a loss needs"


def test_ten_steps_are_trained(base: Environment) -> None:
    done = base.call("python", "-c", TRAIN)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.05
    # nothing that is in the way of other people's logs
    assert done.stderr == ""


def test_the_doctor_lists_the_kernels(base: Environment) -> None:
    done = base.call("labeldrop-bench", "doctor")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert re.search(r"^  set_cross_entropy +cpu", done.stdout, re.MULTILINE)
    assert re.search(r"^  cpu .*a tiny loss is right$", done.stdout, re.MULTILINE)
    assert str(base.folder) in done.stdout


def test_the_benchmark_is_an_extra_that_is_named(base: Environment) -> None:
    done = base.call("labeldrop-bench", "run", "quick")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Error: labeldrop-bench run: needs typer, not installed; the extra 'bench' brings that: "
        "pip install 'labeldrop-bench[bench]'"
    ]
    shown = base.call("labeldrop-bench", "--help")
    assert shown.returncode == 0
    assert "the benchmark, which is the extra 'bench'" in shown.stdout
    missing = base.call("labeldrop-bench", "nnunet")
    assert missing.returncode == 2
    assert "pip install 'labeldrop-bench[nnunet]'" in missing.stderr


def test_every_loss_works_without_the_extras(base: Environment) -> None:
    code = "import labeldrop_bench as lb; [lb.losses.create(name, num_classes=3) for name in lb.losses.names()]"
    assert base.call("python", "-c", code).returncode == 0
