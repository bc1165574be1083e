"""Sigmoid focal loss, and binary cross-entropy, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _common


def sigmoid_focal(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    gamma: float = 0.0,
    alpha: float | None = None,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Sum over a pixel's active classes of `-a (1 - p)^gamma log p`, or of `-(1 - a) p^gamma log(1 - p)`.

    The first for candidates, the second for the other classes. Arguments, result and sources are those of
    `labeldrop_bench.ops.sigmoid_focal`.
    """
    pixels = _common.Pixels(target, ignore_index, _common.accumulation_dtype(logits), pixel_weight=pixel_weight)
    counted = pixels.rows(active) & pixels.counted.unsqueeze(1)  # [N, K, *spatial]
    positive = pixels.rows(candidates)
    z = _common.cut_off(logits, counted)

    terms = _common.binary_focal(F.logsigmoid(z), F.logsigmoid(-z), positive.to(z.dtype), gamma)
    if alpha is not None:
        terms = torch.where(positive, alpha * terms, (1 - alpha) * terms)
    terms = terms + (z - z)  # NaN for an infinite logit
    return pixels.reduce(_common.sum_over_classes(terms, counted, class_weight), reduction)
