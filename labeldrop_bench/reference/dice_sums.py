"""The sums of soft Dice losses in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..results import DiceSums
from ._common import accumulation_dtype, is_ignored
from .set_cross_entropy import set_cross_entropy


def dice_sums(
    logits: Tensor,
    target: Tensor,
    positive: Tensor,
    counted: Tensor,
    active: Tensor,
    merged: Tensor,
    *,
    candidates: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    squared: bool = False,
    activation: str = "softmax",
    ignore_index: int = -100,
) -> DiceSums:
    """Per sample and class: sums of w p over positive pixels, w p (or w p^2) over counted ones, w over positive ones.

    Arguments, result and sources are those of `labeldrop_bench.ops.dice_sums`; the arithmetic is in float32 for half
    types, like the kernel's, and sums over pixels are in float64.
    """
    seen = ~is_ignored(target, ignore_index)
    weight = torch.ones_like(target, dtype=accumulation_dtype(logits))  # [N, *spatial]
    if pixel_weight is not None:
        weight = pixel_weight.to(weight.dtype)
        seen = seen & (weight != 0)
    label = torch.where(seen, target.long(), 0)
    sample = torch.arange(target.shape[0], device=target.device).view(-1, *[1] * (target.ndim - 1))

    def of_pixels(table: Tensor) -> Tensor:  # [N, L, K] to [N, K, *spatial]
        return table[sample, label].movedim(-1, 1) & seen.unsqueeze(1)

    def sum_over_pixels(values: Tensor, where: Tensor) -> Tensor:  # [N, K, *spatial] to [N, K]
        return torch.where(where, values * weight.unsqueeze(1), 0).flatten(2).sum(dim=2, dtype=torch.float64)

    p = _probabilities(logits, of_pixels(active), activation)
    merged = merged[:, 1:]  # class 0 cannot be merged into itself
    into_background = merged.view(*merged.shape, *[1] * (target.ndim - 1))
    background = p[:, :1] + torch.where(into_background, p[:, 1:], 0).sum(dim=1, keepdim=True)
    p = torch.cat([background, p[:, 1:]], dim=1)

    counted = torch.cat([counted[..., :1], counted[..., 1:] & ~merged.unsqueeze(1)], dim=-1)
    is_counted, is_positive = of_pixels(counted), of_pixels(positive & counted)
    intersection = sum_over_pixels(p, is_positive)
    prediction = sum_over_pixels(p.square() if squared else p, is_counted)
    truth = sum_over_pixels(torch.ones_like(p), is_positive)
    cross_entropy = (
        p.new_zeros(())
        if candidates is None
        else set_cross_entropy(logits, target, candidates, active, pixel_weight=pixel_weight, ignore_index=ignore_index)
    )
    return DiceSums(intersection.to(p.dtype), prediction.to(p.dtype), truth.to(p.dtype), cross_entropy)


def _probabilities(logits: Tensor, is_active: Tensor, activation: str) -> Tensor:
    """`[N, K, *spatial]`: of the active classes; 0 for the others, whose logits reach neither value nor gradient."""
    z = torch.where(is_active, logits, -torch.inf)
    z = z.float() if z.dtype in (torch.bfloat16, torch.float16) else z
    if activation == "sigmoid":
        return torch.where(is_active, z.sigmoid(), 0)
    z = z.masked_fill(~is_active.any(dim=1, keepdim=True), 0)  # softmax of nothing would be NaN
    return torch.where(is_active, z.softmax(dim=1), 0)
