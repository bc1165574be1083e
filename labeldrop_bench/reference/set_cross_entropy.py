"""Set cross-entropy in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _common


def set_cross_entropy(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    label_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-probability that a pixel's class is one of its candidates, among the active classes.

    `loss = logsumexp over active z - logsumexp over candidates z`. Arguments, result and sources are those of
    `labeldrop_bench.ops.set_cross_entropy`; the arithmetic is in float32 for half types, like the kernel's.
    """
    pixels = _common.Pixels(
        target,
        ignore_index,
        _common.accumulation_dtype(logits),
        label_weight=label_weight,
        pixel_weight=pixel_weight,
    )
    z = _common.cut_off(logits, pixels.counted.unsqueeze(1))
    log_sum = [z.masked_fill(~pixels.rows(table), -torch.inf).logsumexp(dim=1) for table in (active, candidates)]
    return pixels.reduce(log_sum[0] - log_sum[1], reduction)
