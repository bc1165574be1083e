"""Tensors that a module makes of its own arguments, and that no checkpoint has: their values must not get lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on


class HasConstants(nn.Module):
    """A module with tensors that are no buffers: they go where it goes, and keep their values and types.

    As buffers they would be rounded by `half()`, left to what lies in memory by `to_empty()`, averaged with the weights
    by `AveragedModel(use_buffers=True)`, which fails for bool, and sent around by DDP at each step.

    Attributes:
        constants: names of the attributes; None is no tensor.
    """

    constants: ClassVar[tuple[str, ...]]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in self.constants:
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None:
                device = fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device)).device
                setattr(self, name, tensor if device.type == "meta" else tensor.to(device))
        return self


def device_with_values() -> torch.device:
    """Torch's default device; the CPU instead of the meta device, on which networks are made before they are filled."""
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device
