"""What a run was made by: versions, device, threads, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from labeldrop_bench.text import read_text

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PACKAGES = ("labeldrop-bench", "torch", "monai", "kornia", "lightning", "lightning-fabric", "numpy")


def describe(fabric: Fabric) -> dict[str, str]:
    """The record of a run's environment.

    Args:
        fabric: gives the device, the precision and the number of processes.

    Returns:
        Text by key; what is not known here (a package that is not installed, a commit outside a checkout) is left out.
    """
    device = fabric.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    known = {
        "python": platform.python_version(),
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
        "processes": str(fabric.world_size),
        "precision": fabric.strategy.precision.precision,
    }
    versions = {package: _version(package) for package in PACKAGES}
    found = {**versions, "commit": _commit(Path(__file__).parent.parent)}
    return known | {key: value for key, value in found.items() if value is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Name of the processor: Linux tells it in /proc/cpuinfo, other systems through `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = read_text(cpuinfo).splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit(root: Path) -> str | None:
    """Commit of the checkout that the package is run from, "-dirty" if files differ from it; None elsewhere."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)  # noqa: S603 - fixed
    except OSError:  # no git here
        return None
    return answer.stdout.strip() or None
