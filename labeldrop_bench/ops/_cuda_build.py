"""Whether the CUDA kernels that were built can run here: compiler and architectures against driver and device."""

from __future__ import annotations

from dataclasses import dataclass

# CUDA's major version -> the first NVIDIA driver that runs what its compiler made
OLDEST_DRIVER = {12: 525, 13: 580}
OLDEST_ARCHITECTURE = {12: 50, 13: 75}
OLDEST_OF_WHEELS = 75  # what tools/wheels.py makes has kernels for these GPUs and all later ones
BRING_A_COMPILER = (
    "install a wheel that has them, or build them with `LABELDROP_CUDA=PIP pip install .`, which brings a compiler "
    "along, or with LABELDROP_CUDA=ON and an nvcc on PATH"
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

    def __str__(self) -> str:
        """Such as "built by CUDA 13.0 for compute capabilities 8.0, 9.0"."""
        names = ", ".join(f"{each // 10}.{each % 10}" for each in self.architectures)
        return f"built by CUDA {cuda_version(self.runtime)} for compute capabilities {names}"


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use: its name and compute capability."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        """Such as "Tesla T4 (compute capability 7.5)"."""
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]})"


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        cuda: the newest CUDA that it runs, as 13000; 0 without a driver.
        name: its own version, such as "580.65.06", where it is known.
    """

    cuda: int = 0
    name: str | None = None

    def __str__(self) -> str:
        """Such as "driver 580.65.06 (CUDA 13.0)"."""
        cuda = f"CUDA {cuda_version(self.cuda)}" if self.cuda else "no CUDA"
        return f"driver {self.name} ({cuda})" if self.name else f"a driver for {cuda}"


def cuda_version(number: int) -> str:
    """CUDA's 13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def cuda_problem(build: CudaBuild, driver: Driver, gpu: Gpu | None) -> str | None:
    """What keeps a GPU from running what was compiled, and the remedy; None if nothing does.

    Args:
        build: what was compiled.
        driver: of this machine; nothing is said of one that is not there.
        gpu: None where torch can use none, so that only the driver is known.
    """
    here = f"{gpu} with {driver}" if gpu else str(driver)
    too_old = f"{here}: the CUDA kernels were {build} and need a newer driver"
    major = build.runtime // 1000
    if driver.cuda and driver.cuda // 1000 < major:
        oldest = f", {OLDEST_DRIVER[major]} or later" if major in OLDEST_DRIVER else ""
        return (
            f"{too_old}{oldest}. Update the driver, or build the kernels with an nvcc of CUDA {driver.cuda // 1000} on "
            f"PATH: LABELDROP_CUDA=ON pip install ."
        )
    if gpu is None:
        return None
    architecture = 10 * gpu.capability[0] + gpu.capability[1]
    anew = f"LABELDROP_CUDA=ON LABELDROP_CUDA_ARCHS={architecture} pip install ."
    if architecture < min(build.architectures, default=0):
        compiler = (
            "" if architecture >= OLDEST_ARCHITECTURE.get(major, 0) else f" with an nvcc of CUDA {major - 1} on PATH"
        )
        wheel = ", or install a wheel, which has them" if architecture >= OLDEST_OF_WHEELS else ""
        return f"{here}: the CUDA kernels were {build}, and later ones. Build them for it{compiler}: {anew}{wheel}"
    has_machine_code = any(each // 10 == gpu.capability[0] and each <= architecture for each in build.architectures)
    if not has_machine_code and driver.cuda and driver.cuda < build.runtime:
        return (
            f"{too_old}, because there is no machine code for it in them and drivers compile what CUDA of their own "
            f"version or an earlier one has made. Update the driver, or build the kernels for it: {anew}"
        )
    return None
