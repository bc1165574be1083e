"""Whether an operator may be called as a function of memory, past torch's dispatcher.

Going through a registered operator costs tens of microseconds, as much as a small step's arithmetic. It is there for
who wants to see the call instead of its result: compilers, tracers, transforms, tensors that stand for something else.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from . import _checks

_dispatch_keys = torch._C._dispatch_keys


def is_direct(*tensors: Tensor | None) -> bool:
    """Whether nobody but the caller wants to know of the call, and each tensor is numbers in memory.

    That is a torch.Tensor itself, strided, on the CPU or a GPU, and no view that negates or conjugates.
    """
    if torch.compiler.is_compiling() or _checks.transformed() or forward_ad._current_level >= 0:
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() is not None:
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) is not Tensor and type(tensor) is not Parameter:
            return False
        device = "cpu" if tensor.is_cpu else "cuda" if tensor.is_cuda else None
        if device is None or _dispatch_keys(tensor).raw_repr() not in _ordinary(device):
            return False
    return True


@cache
def _ordinary(device: str) -> frozenset[int]:
    """What torch's dispatcher sees in such tensors, of inference mode and others."""
    keys = set()
    for inference in (False, True):
        with torch.inference_mode(inference):
            keys.add(_dispatch_keys(torch.empty(0, device=device)).raw_repr())
    return frozenset(keys)
