"""Set cross-entropy in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def set_cross_entropy(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-probability that a pixel's class is one of its candidates, among the active classes.

    `loss = logsumexp over active z - logsumexp over candidates z`. Arguments, result and sources are those of
    `labeldrop_bench.ops.set_cross_entropy`; the arithmetic is in float32 for half types, like the kernel's.
    """
    counted = target != ignore_index
    label = torch.where(counted, target, 0).long()
    # A pixel that does not count is cut off here: a NaN among its logits reaches neither loss nor gradient.
    z = torch.where(counted.unsqueeze(1), logits, 0)
    z = z.float() if z.dtype in (torch.bfloat16, torch.float16) else z

    sample = torch.arange(len(target), device=target.device).view(-1, *[1] * (target.ndim - 1))
    log_sum = [
        z.masked_fill(~table[sample, label].movedim(-1, 1), -torch.inf).logsumexp(dim=1)
        for table in (active, candidates)
    ]
    loss = torch.where(counted, log_sum[0] - log_sum[1], 0)
    if reduction == "none":
        return loss
    total = loss.sum()
    return total / counted.sum().clamp(min=1) if reduction == "mean" else total
