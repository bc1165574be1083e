"""The compiled modules, and the codes by which they are told element types."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

# Before the kernels: they use the OpenMP runtime that torch brings.
import torch
from torch import Tensor

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
INTEGERS = {torch.uint8: 0, torch.int16: 1, torch.int32: 2, torch.int64: 3}


def _load(name: str) -> ModuleType | None:
    """A module that is there must import: a broken one is an error, not a missing backend."""
    full_name = f"labeldrop_bench.{name}"
    return import_module(full_name) if find_spec(full_name) else None


_MODULES = {"cpu": _load("_cpu"), "cuda": _load("_cuda")}


def built_for(device_type: str, operator: str) -> bool:
    """Whether there is a compiled kernel of an operator for a type of device ("cpu", "cuda")."""
    return hasattr(_MODULES.get(device_type), operator)


def module(device: torch.device, operator: str) -> ModuleType:
    """The compiled module for a device.

    Raises:
        RuntimeError: the module, or its kernel for this operator, is not built.
    """
    found = _MODULES.get(device.type)
    if found is None or not built_for(device.type, operator):
        fix = {
            "cpu": "install the package with `pip install .`, which compiles it",
            "cuda": "reinstall with LABELDROP_CUDA=ON and nvcc on PATH, if this version has the kernel for CUDA",
        }.get(device.type, "move the tensors to the CPU or a CUDA device")
        raise RuntimeError(
            f"{operator}: there is no compiled kernel for device '{device.type}' in this installation; {fix}, "
            f"or choose backend='reference'"
        )
    return found


def pointer(tensor: Tensor | None) -> int:
    """Where a tensor's data are; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


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
