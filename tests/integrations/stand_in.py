"""The environment of a process that imports torchvision, as Lightning and nnU-Net's networks do."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

STAND_INS = Path(__file__).parent / "stand_ins"


@cache
def environment():
    """Of this process; with a stand-in where torchvision was built for another torch, which is no fault of ours."""
    works = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, check=False)
    paths = [] if works.returncode == 0 else [str(STAND_INS)]
    paths += [path for path in [os.environ.get("PYTHONPATH")] if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)} if paths else dict(os.environ)
