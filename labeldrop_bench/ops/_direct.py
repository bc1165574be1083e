"""Whether an operator may be called as a function of memory, past torch's dispatcher.

Going through a registered operator costs tens of microseconds, as much as a small step's arithmetic. It is there for
who wants to see the call instead of its result: compilers, tracers, transforms, tensors that stand for something else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn import Parameter

# Looked up once: a training step asks eight times.
_dispatch_keys = torch._C._dispatch_keys
_transformed = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state
_KINDS = frozenset({Tensor, Parameter})
_ordinary: set[int] = set()  # dispatch keys that were found to be those of numbers in memory


def is_direct(*tensors: Tensor | None) -> bool:
    """Whether nobody but the caller wants to know of the call, and each tensor is numbers in memory.

    That is a torch.Tensor itself, strided, on the CPU or a GPU, and no view that negates or conjugates.
    """
    if is_compiling() or _transformed() or forward_ad._current_level >= 0 or _dispatch_modes():
        return False
    if _tracing() is not None:
        return False
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _KINDS:
            return False
        keys = _dispatch_keys(tensor).raw_repr()
        if keys not in _ordinary and not _is_ordinary(tensor, keys):
            return False
    return True


def _is_ordinary(tensor: Tensor, keys: int) -> bool:
    """Whether torch's dispatcher sees in a tensor what it sees in any of its device, of inference mode or not."""
    if tensor.is_cpu or tensor.is_cuda:
        for inference in (False, True):
            with torch.inference_mode(inference):
                _ordinary.add(_dispatch_keys(torch.empty(0, device=tensor.device)).raw_repr())
    return keys in _ordinary


def is_one(upstream: Tensor) -> bool:
    """Whether an upstream gradient is known to be 1, as in `loss.backward()`, without waiting for a device."""
    return upstream.is_cpu and not torch.is_grad_enabled() and is_direct(upstream) and upstream.item() == 1
