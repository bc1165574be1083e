"""nnU-Net for tests: its folders and variables, its commands in processes of their own, its trainers in this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("nnunetv2") is None:
    REASON = "nnU-Net is not installed: pip install -c constraints.txt '.[nnunet]'"
    if "CI" in os.environ:
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

INTEGRATIONS = Path(__file__).parent / "integrations"


def torchvision_works() -> bool:
    """Not where it was built for another torch: it then raises whatever it likes."""
    try:
        import torchvision  # noqa: F401
    except Exception:
        return False
    return True


def environment(place: Path, *trainers: Path) -> dict[str, str]:
    """The variables of nnU-Net, with its folders in `place` and trainers of these folders; no processes of its own."""
    # While it looks for a trainer nnU-Net imports timm, and that imports torchvision.
    stand_ins = [] if torchvision_works() else [str(INTEGRATIONS / "stand_ins")]
    paths = [*stand_ins, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "nnUNet_raw": str(place / "raw"),
        "nnUNet_preprocessed": str(place / "preprocessed"),
        "nnUNet_results": str(place / "results"),
        "nnUNet_extTrainer": os.pathsep.join(map(str, trainers)),
        "nnUNet_def_n_proc": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
    }


def call(command: str, variables: dict[str, str], **more: str) -> str:
    """What a command prints, with these variables added to the environment.

    Augmentation runs inside of the training process; planning wants the number of its processes to be positive.
    """
    augmentation = "0" if command.startswith("nnUNetv2_train") else "1"
    name, *arguments = command.split()
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or name
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, **variables, "nnUNet_n_proc_DA": augmentation, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout[-6000:]}"
    return done.stdout


def edit(path: Path, **keys: object) -> None:
    """Change keys of a JSON file; None takes one out."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **keys}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


def shrink(plans: Path, channels: tuple[int, ...] = (8, 16, 32, 64)) -> None:
    """Make the networks of all configurations of a plans file as small as this."""
    content = json.loads(plans.read_text(encoding="utf-8"))
    for configuration in content["configurations"].values():
        if "architecture" not in configuration:
            continue
        network = configuration["architecture"]["arch_kwargs"]
        stages = network["n_stages"] = min(len(channels), network["n_stages"])
        network["features_per_stage"] = list(channels[:stages])
        for key in ("kernel_sizes", "strides"):
            network[key] = network[key][:stages]
        network["n_conv_per_stage"], network["n_conv_per_stage_decoder"] = [1] * stages, [1] * (stages - 1)
    plans.write_text(json.dumps(content), encoding="utf-8")
