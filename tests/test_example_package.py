"""The example package, installed as its README says, is found by name and makes a leaderboard."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import labeldrop_bench as lb

EXAMPLE = Path(__file__).parents[1] / "examples" / "labeldrop_example"
HERE = Path(lb.__file__).parents[1]  # where a process started here finds the package that is being tested

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the example package is not part of this copy of the tests"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put it. From a copy, since setuptools builds inside of the source tree."""
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example")
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", target, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def _python(installed: Path, *words: str) -> str:
    path = os.pathsep.join(map(str, (installed, HERE)))
    done = subprocess.run(  # elsewhere, for the working directory comes first where modules are looked for
        [sys.executable, *words], cwd=installed, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _command(installed: Path, *words: str) -> str:
    return _python(installed, "-m", "labeldrop_bench.cli", *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["losses"], "generalised_ce K Zhang and Sabuncu 2018 (1 - p^q) / q, p = probability of the candidates"),
        (["datasets"], "blobs Apache-2.0 Bright and dark blobs in two domains"),
        (["models"], "dilated A plain network whose n-th convolution is dilated by 2^n"),
    ],
)
def test_it_is_listed(installed: Path, words: list[str], line: str) -> None:
    lines = [" ".join(shown.split()) for shown in _command(installed, *words).splitlines()]
    assert any(shown.startswith(line) for shown in lines), lines


def test_its_suite_makes_a_leaderboard(installed: Path, tmp_path: Path) -> None:
    settings = ["training.epochs=2", "data.train=4", "data.validation=2", "data.test=2", "data.size=16"]
    words = [word for setting in settings for word in ("--set", setting)]
    shown = _command(
        installed, "run", str(EXAMPLE / "blobs.toml"), "--out", str(tmp_path / "out"), "--device", "cpu", *words
    )
    assert "generalised + dropout 0.5" in shown
    rows = list(csv.DictReader((tmp_path / "out" / "leaderboard.csv").open()))
    assert {row["loss"] for row in rows} == {"ce", "marginal_ce", "generalised_ce"}
    assert all(row["unannotated mean"] for row in rows)


def test_its_loss_is_what_it_says(installed: Path, tmp_path: Path) -> None:
    """Towards q = 0 it is the marginal cross-entropy, at q = 1 one minus the probability of the candidates."""
    code = """
import torch
import labeldrop_bench as lb

torch.manual_seed(0)
logits = torch.randn(2, 3, 5, 5, dtype=torch.float32)
target = torch.randint(0, 3, (2, 5, 5))
target[0, 0] = 255
annotated = torch.tensor([[True, True, True], [True, True, False]])
losses = [
    lb.losses.create("generalised_ce", num_classes=3, ignore_index=255, q=1e-4),
    lb.losses.create("marginal_ce", num_classes=3, ignore_index=255, backend="reference"),
    lb.losses.create("generalised_ce", num_classes=3, ignore_index=255, q=1.0),
    lb.losses.create("marginal_ce", num_classes=3, ignore_index=255, backend="reference", reduction="none"),
]
values = [loss(logits, target, annotated) for loss in losses]
values[3] = (1 - (-values[3]).exp())[target != 255].mean()
print(*(value.item() for value in values))
"""
    nearly_ce, ce, absolute, expected = map(float, _python(installed, "-c", code).split())
    assert nearly_ce == pytest.approx(ce, rel=1e-3)  # of the order of q times the loss
    assert absolute == pytest.approx(expected, rel=1e-5)
