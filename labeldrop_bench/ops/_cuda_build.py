"""Whether the CUDA kernels that were built can run here: compiler and architectures against driver and device."""

from __future__ import annotations

from dataclasses import dataclass

# CUDA's major version -> the first NVIDIA driver that runs what its compiler made
OLDEST_DRIVER = {12: 525, 13: 580}
OLDEST_ARCHITECTURE = {12: 50, 13: 75}
BRING_A_COMPILER = (
    "build them with `LABELDROP_CUDA=PIP pip install .`, which brings a compiler along, or with LABELDROP_CUDA=ON and "
    "an nvcc on PATH"
)


@dataclass(frozen=True)
class CudaBuild:
    """What the compiled module says of itself.

    Attributes:
        architectures: of GPUs, such as 80 and 90. Each is in the module as machine code, which later GPUs of the same
            generation run too, and as PTX, which the driver compiles for any later GPU.
        runtime: version of CUDA, such as 13000.
    """

    architectures: tuple[int, ...]
    runtime: int


def cuda_version(number: int) -> str:
    """CUDA's 13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver_problem(build: CudaBuild, driver: int) -> str | None:
    """What is wrong with the driver, and the remedy; None if nothing is, or if there is no driver.

    Args:
        build: what was compiled.
        driver: the newest CUDA that the driver runs, as 13000; 0 without a driver.
    """
    major = build.runtime // 1000
    if not driver or driver // 1000 >= major:
        return None
    oldest = f" ({OLDEST_DRIVER[major]} or newer)" if major in OLDEST_DRIVER else ""
    return (
        f"the CUDA kernels were built by CUDA {cuda_version(build.runtime)} and need a driver for it{oldest}; that "
        f"here runs CUDA {cuda_version(driver)} at most. Update the driver, or build the kernels with an nvcc of CUDA "
        f"{driver // 1000} on PATH: LABELDROP_CUDA=ON pip install ."
    )


def device_problem(build: CudaBuild, device: str, capability: tuple[int, int]) -> str | None:
    """What keeps a GPU from running what was compiled, and the remedy; None if nothing does.

    Args:
        build: what was compiled.
        device: its name.
        capability: its compute capability.
    """
    architecture = 10 * capability[0] + capability[1]
    if architecture >= min(build.architectures, default=0):
        return None
    major = build.runtime // 1000
    compiler = "" if architecture >= OLDEST_ARCHITECTURE.get(major, 0) else f" with an nvcc of CUDA {major - 1} on PATH"
    return (
        f"{device} has compute capability {capability[0]}.{capability[1]}; the CUDA kernels were built for "
        f"{', '.join(map(str, build.architectures))} and later ones. Build them for it{compiler}: "
        f"LABELDROP_CUDA=ON LABELDROP_CUDA_ARCHS={architecture} pip install ."
    )
