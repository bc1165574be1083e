"""The compiled modules, and the codes by which they are told element types."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

# Before the kernels: they use the OpenMP runtime that torch brings.
import torch
from torch import Tensor

from ._cuda_build import BRING_A_COMPILER, CudaBuild, Driver, Gpu, cuda_problem

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
INTEGERS = {torch.uint8: 0, torch.int16: 1, torch.int32: 2, torch.int64: 3}
INSTRUCTION_SETS = ("baseline", "AVX2", "AVX-512")  # of the CPU kernels, by the codes of select_isa


def _load(name: str) -> ModuleType | None:
    """A module that is there must import: a broken one is an error, not a missing backend."""
    full_name = f"labeldrop_bench.{name}"
    return import_module(full_name) if find_spec(full_name) else None


def _choose_instructions(cpu: ModuleType | None) -> None:
    """What the environment asks of the CPU kernels: a lesser set, to measure or to test it."""
    wanted = os.environ.get("LABELDROP_ISA")
    if not wanted or cpu is None:
        return
    names = [name.lower().replace("-", "") for name in INSTRUCTION_SETS]
    if wanted not in names or not cpu.select_isa(names.index(wanted)):
        there = names[: cpu.current_isa() + 1]
        raise RuntimeError(
            f"LABELDROP_ISA must be one of {', '.join(there)}, which this processor and this build have, got {wanted!r}"
        )


_MODULES = {"cpu": _load("_cpu"), "cuda": _load("_cuda")}
_choose_instructions(_MODULES["cpu"])


def built_for(device_type: str, operator: str) -> bool:
    """Whether there is a compiled kernel of an operator for a type of device ("cpu", "cuda")."""
    return hasattr(_MODULES.get(device_type), operator)


def module(device: torch.device, operator: str) -> ModuleType:
    """The compiled module for a device.

    Raises:
        RuntimeError: the module, or its kernel for this operator, is not built, or not for this GPU or this driver.
    """
    kind = device.type
    found = _MODULES.get(kind)
    if found is None or not hasattr(found, operator):
        fix = {
            "cpu": "install the package with `pip install .`, which compiles it",
            "cuda": BRING_A_COMPILER,
        }.get(kind, "move the tensors to the CPU or a CUDA device")
        raise RuntimeError(
            f"{operator}: there is no compiled kernel for device '{kind}' in this installation; {fix}, "
            f"or choose backend='reference'"
        )
    if kind == "cuda" and (problem := _problem(device)):
        raise RuntimeError(f"{operator}: {problem}, or choose backend='reference'")
    return found


def kernel(tensor: Tensor, operator: str) -> Callable[..., Any]:
    """The compiled function of an operator for a tensor's device; raises what `module` raises."""
    # torch's description of a device takes longer to make and to read than all else here
    found = getattr(_MODULES["cpu"], operator, None) if tensor.is_cpu else None
    function: Callable[..., Any] = found or getattr(module(tensor.device, operator), operator)
    return function


def folders() -> tuple[str, ...]:
    """Where the compiled modules lie."""
    return tuple(sorted({str(Path(str(found.__file__)).parent) for found in _MODULES.values() if found}))


def instruction_set() -> str | None:
    """The one chosen for the CPU kernels; None if there are no kernels."""
    found = _MODULES["cpu"]
    return None if found is None else INSTRUCTION_SETS[found.current_isa()]


def cuda_build() -> CudaBuild | None:
    """What the CUDA module was built by and for; None if there is none."""
    found = _MODULES["cuda"]
    return None if found is None else CudaBuild(found.architectures, found.runtime_version)


def cuda_driver() -> int:
    """The newest CUDA that the driver runs, as 13000; 0 without a driver, or without a module that could ask it."""
    found = _MODULES["cuda"]
    return 0 if found is None else int(found.driver_version())


@cache
def _problem(device: torch.device) -> str | None:
    """What keeps the CUDA kernels from running on a device; asked once for each."""
    build = cuda_build()
    if build is None or not torch.cuda.is_available():
        return None
    gpu = Gpu(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
    return cuda_problem(build, Driver(cuda_driver()), gpu)


def pointer(tensor: Tensor | None) -> int:
    """Where a tensor's data are; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def loss_arguments(
    logits: Tensor, target: Tensor, tables: Tensor, ignore_index: int, pixel_weight: Tensor | None
) -> tuple[int, ...]:
    """`LossArguments` of csrc/arguments.h, with which every loss's arguments begin.

    By position, which is quicker than by name: in the order of csrc/bindings.h.
    """
    shape = logits.shape
    return (
        logits.data_ptr(),
        FLOATS[logits.dtype],
        not logits.is_contiguous(),  # channels_last
        target.data_ptr(),
        INTEGERS[target.dtype],
        tables.data_ptr(),
        shape[0],  # samples
        shape[1],  # channels
        math.prod(shape[2:]),  # pixels
        tables.shape[1],  # labels
        ignore_index,
        pointer(pixel_weight),
    )


def is_cuda(tensor: Tensor) -> bool:
    """Whether an operator on this tensor takes the CUDA launch."""
    return tensor.is_cuda


def stream(tensor: Tensor) -> int:
    """The current stream of a CUDA tensor's device."""
    handle: int = torch.cuda.current_stream(tensor.device).cuda_stream
    return handle


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Makes a CUDA tensor's device the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
