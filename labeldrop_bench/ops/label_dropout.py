"""Label dropout on the annotations, with random numbers that the kernel computes."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks, _native
from ._operator import register

_NAME = "label_dropout"


def label_dropout(annotated: Tensor, probability: Tensor, key: Tensor) -> Tensor:
    """Mark each label of each sample as not annotated, independently, with its probability.

    `out[n, l] = annotated[n, l] and u >= p[l]`, u = w 2^-32 in [0, 1), w being word 0 of Philox4x32-10 (Salmon et al.
    2011) at counter `(e, e >> 32, 0, 1)`, e = n L + l. The same key gives the same result on every device. Label
    dropout is due to Islam et al. 2024, section 2.

    Args:
        annotated: `[N, L]` bool.
        probability: `[L]` float32 in [0, 1]: 0 keeps everything, 1 nothing; background's, `[0]`, should be 0.
        key: `[1]` int64, all 64 bits of which count.

    Returns:
        `[N, L]` bool on the same device, without waiting for it.

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit.
        RuntimeError: no kernel is built for the device; vmap.
    """
    _check(annotated, probability, key)
    result: Tensor = _OPERATOR(annotated, probability, key)
    return result


def _check(annotated: Tensor, probability: Tensor, key: Tensor) -> None:
    """Types, shapes and devices."""
    tensors = {"annotated": annotated, "probability": probability, "key": key}
    _checks.check_tensors(_NAME, tensors)
    _checks.refuse_vmap(_NAME, tensors)
    for argument, dtype in (("annotated", torch.bool), ("probability", torch.float32), ("key", torch.int64)):
        if tensors[argument].dtype != dtype:
            raise TypeError(
                f"{_NAME}: {argument} must be {str(dtype).removeprefix('torch.')}, got {tensors[argument].dtype}"
            )
    if annotated.ndim != 2 or probability.shape != annotated.shape[1:] or annotated.shape[1] < 1:
        raise ValueError(
            f"{_NAME}: annotated must be [N, L] with at least one label, and probability [L], "
            f"got {list(annotated.shape)} and {list(probability.shape)}"
        )
    if list(key.shape) != [1]:
        raise ValueError(f"{_NAME}: key must have shape [1], got {list(key.shape)}")


def _kernel(annotated: Tensor, probability: Tensor, key: Tensor) -> Tensor:
    native = _native.module(annotated.device, _NAME)
    annotated, probability = annotated.contiguous(), probability.contiguous()
    out = torch.empty_like(annotated)
    samples, labels = annotated.shape
    arguments = dict(
        annotated=annotated.data_ptr(),
        probability=probability.data_ptr(),
        out=out.data_ptr(),
        samples=samples,
        labels=labels,
    )
    if _native.is_cuda(annotated):
        with _native.on_device(annotated):
            native.label_dropout(**arguments, key=key.data_ptr(), stream=_native.stream(annotated))
    else:
        native.label_dropout(**arguments, key=int(key) % 2**64)
    return out


def _fake(annotated: Tensor, probability: Tensor, key: Tensor) -> Tensor:
    return torch.empty_like(annotated, memory_format=torch.contiguous_format)


_OPERATOR = register(_NAME, "(Tensor annotated, Tensor probability, Tensor key) -> Tensor", _kernel, _fake)
