"""Operators on CPU tensors through the CUDA launch and the emulated kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest import mock

from labeldrop_bench.ops import _native

# Orders in which blocks, warps and lanes get their turn: ascending, descending, mixed. No result may depend on it.
ORDERS = (0, 1, 2)


class EmulatedDevice:
    """Where the CUDA kernels run if no GPU does it. Nothing of it shows in a tensor: its device stays the CPU."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    @contextmanager
    def __call__(self, order: int = 0) -> Iterator[None]:
        """Inside, every operator takes the branch for CUDA tensors, and the emulated module is what it launches."""
        self.module.emulation_order(order)
        with (
            mock.patch.object(_native, "is_cuda", return_value=True),
            mock.patch.object(_native, "stream", return_value=0),
            mock.patch.dict(_native._MODULES, {"cpu": self.module}),
        ):
            yield
