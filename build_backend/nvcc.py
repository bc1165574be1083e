"""Which CUDA compiler builds the kernels: the system's, one from the package index, or none.

Used twice: when pip asks what the build environment needs (`requirements`), and when the build runs in it (`choose`).
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

CHOICES = ("AUTO", "ON", "OFF", "PIP")

# What nvcc consists of on the package index. 13.0 and nothing newer: its kernels run with every driver from 580 on.
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
VERSION = "13.0.*"

EXECUTABLE = "nvcc.exe" if sys.platform == "win32" else "nvcc"
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR, MINOR = 75, 76  # the driver's numbers of what makes a compute capability


@dataclass(frozen=True)
class Choice:
    """The compiler, None for none; why, in a sentence; and what its environment needs besides."""

    nvcc: Path | None
    why: str
    environment: dict[str, str] = field(default_factory=dict)


def wanted(environment: Mapping[str, str]) -> str:
    """The value of `LABELDROP_CUDA`.

    Raises:
        SystemExit: it is none of `CHOICES`.
    """
    value = environment.get("LABELDROP_CUDA", "AUTO")
    if value not in CHOICES:
        raise SystemExit(
            f"LABELDROP_CUDA={value!r}: give AUTO (CUDA kernels if nvcc is found or there is an NVIDIA driver), ON (by "
            "the nvcc of this system), PIP (by the nvcc of the package index) or OFF (none)"
        )
    return value


def of_system(environment: Mapping[str, str]) -> Path | None:
    """The nvcc that `CUDACXX` or `CUDA_HOME` names, or that is on the path.

    Raises:
        SystemExit: `CUDACXX` names something that is not there.
    """
    if named := environment.get("CUDACXX"):
        if found := shutil.which(named, path=environment.get("PATH")):
            return Path(found)
        raise SystemExit(f"CUDACXX={named}: there is no such program; give the path of nvcc, or unset it")
    home = environment.get("CUDA_HOME")  # images that only run CUDA programs set it too, and have no nvcc in it
    if home and (found := shutil.which(Path(home) / "bin" / EXECUTABLE)):
        return Path(found)
    on_path = shutil.which(EXECUTABLE, path=environment.get("PATH"))
    return Path(on_path) if on_path else None


def of_package_index() -> Path | None:
    """The nvcc of the package that is installed beside this Python."""
    try:
        files = importlib.metadata.files(PACKAGES[0]) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(file.locate()).resolve() for file in files if file.name == EXECUTABLE), None)


def driver_visible() -> bool:
    """Whether there is an NVIDIA driver on this machine."""
    if Path("/proc/driver/nvidia").exists():
        return True
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def requirements(environment: Mapping[str, str]) -> list[str]:
    """The packages that the build needs: nvcc, where `choose` will look for that of the package index."""
    value = wanted(environment)
    from_index = value == "PIP" or (value == "AUTO" and of_system(environment) is None and driver_visible())
    return [f"{package}=={VERSION}" for package in PACKAGES] if from_index else []


def choose(environment: Mapping[str, str]) -> Choice:
    """The compiler of this build.

    Raises:
        SystemExit: `LABELDROP_CUDA` asks for one that is not there.
    """
    value = wanted(environment)
    if value == "OFF":
        return Choice(None, "no CUDA kernels: LABELDROP_CUDA=OFF")
    system = of_system(environment) if value != "PIP" else None
    if system is not None:
        return Choice(system, f"CUDA kernels by the nvcc of this system, {system}", _links_with_runtime(system))
    if value == "ON":
        raise SystemExit(
            "LABELDROP_CUDA=ON: no nvcc was found; put it on the PATH, set CUDACXX or CUDA_HOME, or take that of the "
            "package index with LABELDROP_CUDA=PIP"
        )
    if value == "AUTO" and not driver_visible():
        return Choice(
            None, "no CUDA kernels: neither nvcc nor an NVIDIA driver is here (LABELDROP_CUDA=PIP builds them)"
        )
    found = of_package_index()
    if found is not None:
        return Choice(found, f"CUDA kernels by the nvcc of the package index, {found}", _links_with_runtime(found))
    missing = f"its packages are not in the build environment: pip install {' '.join(requirements(environment))}"
    if value == "PIP":
        raise SystemExit(f"LABELDROP_CUDA=PIP: {missing}")
    return Choice(None, f"no CUDA kernels: there is an NVIDIA driver and no nvcc, and {missing}")


def architectures_here(nvcc: Path) -> str:
    """The architectures of this machine's GPUs, such as "90"; "" without a GPU, or with one that is too old for nvcc.

    Of a GPU that is newer than nvcc, the newest architecture that nvcc knows: the driver goes on from there.
    """
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    known = [int(number) for number in re.findall(r"compute_(\d+)", listed)]
    newest = [[each for each in known if each <= 10 * major + minor] for major, minor in capabilities()]
    return ";".join(map(str, sorted({max(each) for each in newest}))) if all(newest) else ""


def capabilities() -> list[tuple[int, int]]:
    """Compute capabilities of the GPUs that the driver tells of; none where there is no driver or none that works."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return []
    count, parts = ctypes.c_int(0), (ctypes.c_int(0), ctypes.c_int(0))
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    found = []
    for device in range(count.value):
        for part, attribute in zip(parts, (MAJOR, MINOR), strict=True):
            if driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device) != 0:
                return []
        found.append((parts[0].value, parts[1].value))
    return found


def _links_with_runtime(nvcc: Path) -> dict[str, str]:
    """Nvcc looks for its runtime in lib64; in what its packages unpack to, it is in lib."""
    library = nvcc.parents[1] / "lib"
    if not (library / "libcudart_static.a").exists() or (nvcc.parents[1] / "lib64").exists():
        return {}
    flags = [os.environ.get("NVCC_APPEND_FLAGS", ""), f'-L"{library}"']
    return {"NVCC_APPEND_FLAGS": " ".join(filter(None, flags))}
