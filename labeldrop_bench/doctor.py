"""`labeldrop-bench doctor`: what is installed, whether it works on each device, and how to mend what does not.

`gather` looks, `findings` and `report` judge and tell what it saw: they are functions of the facts alone.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import labeldrop_bench
from labeldrop_bench import losses, ops, reference
from labeldrop_bench.ops import CudaBuild, Driver, Gpu
from labeldrop_bench.text import read_text

# Packages of which the version decides what works, besides torch and numpy; not all are there everywhere
FRAMEWORKS = ("monai", "pytorch-ignite", "nnunetv2", "lightning", "lightning-fabric", "ray", "tensorboard")
TRIED = ("marginal_ce+marginal_dice", "adaptive_ce", "smile")  # between them every kind of kernel with a gradient
TOLERANCE = 1e-4  # between two orders of summing a few hundred float32 numbers


@dataclass(frozen=True)
class Facts:
    """What was found.

    Attributes:
        folder: that the package is imported from.
        checkout: whether that is a source tree.
        compiled: folders that the compiled modules are imported from.
        versions: name -> version of what is installed.
        torch_cuda: CUDA that torch was built for; None for a torch for CPUs or another maker's GPUs.
        isa: the instruction set chosen for the CPU kernels; None if there are none.
        kernels: operator -> the kinds of devices ("cpu", "cuda") that there is a kernel for.
        build: of the CUDA kernels; None if there are none.
        driver: NVIDIA's; None if there is none.
        cards: NVIDIA's graphics cards in this machine, with a driver or without one, where the system tells.
        gpus: that torch can use.
        openmp: files of the OpenMP runtimes in this process; None where the system does not tell.
        failures: device -> what went wrong with a tiny loss there; empty text if all is well.
    """

    folder: Path
    checkout: bool
    compiled: tuple[str, ...]
    versions: dict[str, str]
    torch_cuda: str | None
    isa: str | None
    kernels: dict[str, tuple[str, ...]]
    build: CudaBuild | None
    driver: Driver | None
    cards: int
    gpus: tuple[Gpu, ...]
    openmp: tuple[str, ...] | None
    failures: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, tell, and return the exit code: 0 if all is well, 1 otherwise."""
    parser = argparse.ArgumentParser(
        "labeldrop-bench doctor",
        description="Say which versions, devices and kernels there are, compute a tiny loss on each device, and say "
        "how to mend what is wrong. Exit code: 0 if all is well, 1 otherwise.",
    )
    parser.parse_args(arguments)
    facts = gather()
    print(report(facts))
    return 1 if findings(facts) else 0


def findings(facts: Facts) -> list[str]:
    """What is wrong, each with its remedy; nothing if all is well."""
    if facts.isa is None:
        return [_no_kernels(facts)]
    found = _about_cuda(facts)
    if facts.compiled != (str(facts.folder),):
        found.append(
            f"the package is imported from {facts.folder}, and its kernels from {', '.join(facts.compiled)}, which may "
            f"be of another version: call Python from another folder, and see what PYTHONPATH says"
        )
    if facts.openmp == ():
        found.append(
            "there is no OpenMP runtime in this process, so that the kernels run on one thread: install a torch that "
            "brings one, as pip's and conda's do"
        )
    if facts.openmp is not None and len(facts.openmp) > 1:
        found.append(
            f"{len(facts.openmp)} OpenMP runtimes in one process, {', '.join(facts.openmp)}: each has threads of its "
            f"own, and they are in each other's way. Install torch and numpy in a fresh environment, both by pip or "
            f"both by conda"
        )
    failed = ((device, failure) for device, failure in facts.failures.items() if failure)
    return found + [
        f"a tiny loss on {device}: {failure}. Install the package anew; if that does not help, report this page"
        for device, failure in failed
    ]


def _no_kernels(facts: Facts) -> str:
    if facts.checkout:
        return (
            f"the package is imported from its source folder, {facts.folder}, where the kernels are not compiled: call "
            f"Python from another folder to get the package that is installed, or compile them there: pip install -e ."
        )
    return f"there are no compiled kernels in {facts.folder}: install the package anew, `pip install .` compiles them"


def _about_cuda(facts: Facts) -> list[str]:
    driver = facts.driver
    if driver is None and not (facts.cards and facts.torch_cuda):
        return []  # no NVIDIA GPU, or nobody means to use it, and nothing wrong with that
    if driver is None:
        return [
            "there is an NVIDIA graphics card, and no driver for it: install NVIDIA's, if you mean to use the card, or "
            "start the container with it (docker run --gpus all)"
        ]
    if facts.torch_cuda is None:
        return [
            f"there is an NVIDIA GPU with {driver}, but torch {facts.versions.get('torch')} was built without CUDA: "
            f"install a torch for CUDA in its place, if you mean to use the GPU"
        ]
    found = []
    if not facts.gpus:
        found.append(
            f"there is an NVIDIA GPU with {driver}, and torch, built for CUDA {facts.torch_cuda}, can use none: see "
            f"what `nvidia-smi` lists, and whether CUDA_VISIBLE_DEVICES hides it; start a container with it (docker "
            f"run --gpus all); where the driver is too old for torch, update it, or take a torch for an older CUDA"
        )
    if facts.build is None:
        seen = f"torch sees {', '.join(map(str, facts.gpus))} with {driver}"
        return found or [f"{seen}, and there are no CUDA kernels: {ops.BRING_A_COMPILER}"]
    problems = (ops.cuda_problem(facts.build, driver, gpu) for gpu in facts.gpus or (None,))
    return found + list(filter(None, dict.fromkeys(problems)))  # the same GPU many times has one problem


def report(facts: Facts) -> str:
    """Everything that was found, for a person and for a message to us."""
    lines = ["Versions"]
    lines += [f"  {name:<20} {text}" for name, text in facts.versions.items()]
    lines += [f"  {'imported from':<20} {facts.folder}", "", "Devices"]
    lines.append(f"  {'cpu':<20} {facts.isa or 'no kernels'}{_tried(facts, 'cpu')}")
    for index, gpu in enumerate(facts.gpus):
        lines.append(f"  {f'cuda:{index}':<20} {gpu}{_tried(facts, f'cuda:{index}')}")
    lines += [f"  {'NVIDIA driver':<20} {facts.driver or 'none'}", "", "Kernels"]
    lines += [f"  {name:<20} {', '.join(kinds) or 'none'}" for name, kinds in facts.kernels.items()]
    if facts.build:
        lines.append(f"  {'CUDA':<20} {facts.build}")
    found = findings(facts)
    lines += ["", "What is wrong" if found else "All is well."]
    return "\n".join([*lines, *(f"  {number}. {text}" for number, text in enumerate(found, 1))])


def _tried(facts: Facts, device: str) -> str:
    return {None: "", "": "; a tiny loss is right"}.get(facts.failures.get(device), "; a tiny loss FAILED")


def gather() -> Facts:
    """Look at this process and this machine."""
    folder = Path(labeldrop_bench.__file__).parent
    gpus = range(torch.cuda.device_count()) if torch.version.cuda and torch.cuda.is_available() else ()
    build, has_cpu = ops.cuda_build(), bool(ops.instruction_set())
    devices = [*["cpu"] * has_cpu, *(f"cuda:{index}" for index in gpus if build)]
    operators = [name for name in ops.__all__ if hasattr(reference, name)]  # the others are made of these
    return Facts(
        folder=folder,
        checkout=(folder.parent / "pyproject.toml").exists(),
        compiled=ops.folders(),
        versions=_versions(),
        torch_cuda=torch.version.cuda,
        isa=ops.instruction_set(),
        kernels={name: tuple(kind for kind in ("cpu", "cuda") if ops.built_for(kind, name)) for name in operators},
        build=build,
        driver=_driver(),
        cards=_cards(),
        gpus=tuple(Gpu(torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i)) for i in gpus),
        failures={device: try_losses(device) for device in devices},
        openmp=_openmp(),
    )


def try_losses(device: str) -> str:
    """Compute tiny losses and their gradients by kernels and by the reference.

    Returns:
        What went wrong, if anything.
    """
    try:
        for name in TRIED:
            values = [_value_and_gradient(name, backend, device) for backend in ("fused", "reference")]
            apart = max(float((one - other).abs().max()) for one, other in zip(*values, strict=True))
            if not apart <= TOLERANCE:  # nor may it be NaN
                return f"{name}: kernel and reference are {apart:.1e} apart"
    except Exception as error:  # whatever it is: that is what was to be found out
        return f"{type(error).__name__}: {error}"
    return ""


def _value_and_gradient(name: str, backend: str, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    loss: Any = losses.create(name, num_classes=3, backend=backend)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, loss.out_channels, 8, 8), generator=generator).to(device).requires_grad_()
    target = torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8, generator=generator).to(device)
    annotated = torch.tensor([[True, True, True], [True, True, False]], device=device)
    value = loss(logits, target, annotated)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def _versions() -> dict[str, str]:
    known = {"labeldrop-bench": labeldrop_bench.__version__, "python": platform.python_version()}
    known["system"] = f"{platform.system()} {platform.machine()}"
    for name in ("torch", "numpy", *FRAMEWORKS):
        with suppress(PackageNotFoundError):  # not everybody has every framework
            known[name] = version(name)
    return known


def _driver() -> Driver | None:
    """NVIDIA's driver. The part of it that programs load tells the newest CUDA that it runs."""
    number = ctypes.c_int(0)
    with suppress(OSError, AttributeError):  # there is none
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        library.cuDriverGetVersion(ctypes.byref(number))
    name = _driver_name()
    return Driver(number.value, name) if number.value or name else None


def _cards(folder: Path = Path("/sys/bus/pci/devices")) -> int:
    """NVIDIA's graphics cards on the bus, which Linux lists; 0 where nobody tells."""
    identities = [[path / name for name in ("vendor", "class")] for path in folder.glob("*")]
    known = [[read_text(file).strip() for file in files] for files in identities if all(map(Path.exists, files))]
    return sum(vendor == "0x10de" and kind.startswith("0x03") for vendor, kind in known)


def _driver_name() -> str | None:
    """The driver's own version. Linux tells it in a file; elsewhere nobody does without a tool of NVIDIA's."""
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"Module\S*(?:\s+for\s+\S+)?\s+(\d+(?:\.\d+)+)", read_text(path)) if path.exists() else None
    return found[1] if found else None


def _openmp() -> tuple[str, ...] | None:
    """OpenMP runtimes that this process has loaded. Linux lists its files."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    names = re.findall(rb"\S*/lib(?:gomp|iomp|omp)[^\s/]*", maps.read_bytes())
    return tuple(sorted({os.fsdecode(name) for name in names}))


if __name__ == "__main__":
    sys.exit(main())
