"""Label-flip loss in plain PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _common


def label_flip(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    gamma: float = 0.0,
    detach_target: bool = False,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Sum over a pixel's active classes of `l(p, t) + l(q, d)`, l the focal loss with exponent gamma.

    `p = sigmoid(z)` and `q = sigmoid(f) / 2`, x = 1 for candidates and 0 for the other classes,
    `t = (1 - x) q + x (1 - q)`, d = 1 where `(p > 1/2) != x`. Arguments, result and sources are those of
    `labeldrop_bench.ops.label_flip`.
    """
    pixels = _common.Pixels(target, ignore_index, _common.accumulation_dtype(logits), pixel_weight=pixel_weight)
    counted = pixels.rows(active) & pixels.counted.unsqueeze(1)  # [N, K, *spatial]
    positive = pixels.rows(candidates)
    z, f = (_common.cut_off(channels, counted) for channels in logits.chunk(2, dim=1))  # [N, K, *spatial] each

    q = f.sigmoid() / 2
    soft_target = torch.where(positive, 1 - q, q)
    if detach_target:
        soft_target = soft_target.detach()
    disagrees = (z > 0) != positive  # p > 1/2 would miss a z so small that p rounds to 1/2
    terms = _common.binary_focal(F.logsigmoid(z), F.logsigmoid(-z), soft_target, gamma)
    terms = terms + _common.binary_focal(F.logsigmoid(f) - math.log(2), (-q).log1p(), disagrees.to(z.dtype), gamma)
    terms = terms + (z - z) + (f - f)  # NaN for an infinite logit
    return pixels.reduce(_common.sum_over_classes(terms, counted, class_weight), reduction)
