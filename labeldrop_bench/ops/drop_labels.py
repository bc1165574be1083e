"""Label dropout as a rewrite of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks, _native
from ._operator import register

_NAME = "drop_labels"


def drop_labels(target: Tensor, annotated: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Set every pixel whose label is not annotated in its sample to background, for other people's losses.

    `out = target where annotated[n, target] or target == ignore_index, else 0`; one read and one write per pixel.
    With our own losses there is no need for it: they read `annotated` (Islam et al. 2024, section 2).

    Args:
        target: `[N, *spatial]` (or `[N, 1, *spatial]`) uint8, int16, int32 or int64 label values.
        annotated: `[N, L]` bool on the same device.
        ignore_index: value of pixels that are left as they are.

    Returns:
        New tensor of the target's shape and type.

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit; on the CPU, a value that is neither a label nor ignore_index
            (on CUDA such a pixel is left as it is, for the loss to find).
        RuntimeError: no kernel is built for the device; vmap.
    """
    _checks.check_tensors(_NAME, {"target": target, "annotated": annotated})
    _checks.refuse_vmap(_NAME, {"target": target, "annotated": annotated})
    _checks.check_target(_NAME, target)
    if annotated.dtype != torch.bool:
        raise TypeError(f"{_NAME}: annotated must be bool, got {annotated.dtype}")
    if target.ndim < 2 or annotated.ndim != 2 or annotated.shape[0] != target.shape[0] or annotated.shape[1] < 1:
        raise ValueError(
            f"{_NAME}: target must be [N, *spatial] and annotated [N, L] with at least one label, "
            f"got {list(target.shape)} and {list(annotated.shape)}"
        )
    result: Tensor = _OPERATOR(target, annotated, _checks.integer(_NAME, "ignore_index", ignore_index))
    return result


def _kernel(target: Tensor, annotated: Tensor, ignore_index: int) -> Tensor:
    native = _native.module(target.device, _NAME)
    target, annotated = target.contiguous(), annotated.contiguous()
    out = torch.empty_like(target)
    samples, labels = annotated.shape
    arguments = dict(
        target=target.data_ptr(),
        out=out.data_ptr(),
        target_type=_native.INTEGERS[target.dtype],
        annotated=annotated.data_ptr(),
        samples=samples,
        pixels=target.numel() // max(samples, 1),
        labels=labels,
        ignore_index=ignore_index,
    )
    if _native.is_cuda(target):
        with _native.on_device(target):
            native.drop_labels(**arguments, stream=_native.stream(target))
        return out
    invalid = native.drop_labels(**arguments, threads=torch.get_num_threads())
    if invalid >= 0:
        _checks.raise_invalid_label(_NAME, target, invalid, labels, ignore_index)
    return out


def _fake(target: Tensor, annotated: Tensor, ignore_index: int) -> Tensor:
    return torch.empty_like(target, memory_format=torch.contiguous_format)


_OPERATOR = register(_NAME, "(Tensor target, Tensor annotated, int ignore_index) -> Tensor", _kernel, _fake)
