"""examples/lightning/train.py under what Lightning does to a module, each check in a process of its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from integrations.stand_in import environment

CHECKS = Path(__file__).with_name("lightning_checks.py")
EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning"


@pytest.mark.parametrize("check", ["precisions", "resume", "checkpoints", "processes"])
def test_lightning(check, tmp_path):
    if find_spec("lightning") is None and "CI" not in os.environ:
        pytest.skip("Lightning is not installed: pip install -c constraints.txt '.[lightning]'")
    path = os.pathsep.join([str(EXAMPLE), environment().get("PYTHONPATH", "")])
    variables = {**environment(), "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", str(CHECKS), check]
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
