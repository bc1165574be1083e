"""Predictive variance in plain PyTorch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _common
from .philox import normals


def predictive_variance(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    key: Tensor | None = None,
    samples: int = 10,
    gamma: float = 0.0,
    average: str = "loss",
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Sum over a pixel's active classes of the average of `l(z + e^(s/2) eps_t)` over T samples eps_t of N(0, 1).

    l is the focal loss with exponent gamma; for average="probability" the average is `-log(1/T sum_t exp(-l_t))`.
    Arguments, result and sources are those of `labeldrop_bench.ops.predictive_variance`, except that without a key the
    noise comes from `torch.randn`. The noise is stored: this takes T times the memory of the logits and more.
    """
    dtype = _common.accumulation_dtype(logits)
    pixels = _common.Pixels(target, ignore_index, dtype, pixel_weight=pixel_weight)
    counted = pixels.rows(active) & pixels.counted.unsqueeze(1)  # [N, K, *spatial]
    z, s = (_common.cut_off(channels, counted) for channels in logits.chunk(2, dim=1))  # [N, K, *spatial] each

    if key is None:
        noise = torch.randn(samples, *z.shape, dtype=dtype, device=z.device)  # [T, N, K, *spatial]
    else:
        noise = normals(key, samples, z.shape).to(dtype)
    x = z + (s / 2).exp() * noise
    toward = torch.where(pixels.rows(candidates), x, -x)  # the logit of what the label says
    loss = -F.logsigmoid(toward)
    if gamma != 0:
        loss = loss * (gamma * F.logsigmoid(-toward)).exp()
    terms = loss.mean(dim=0) if average == "loss" else math.log(samples) - (-loss).logsumexp(dim=0)
    terms = terms + (z - z) + (s - s)  # NaN for an infinite logit or variance
    return pixels.reduce(_common.sum_over_classes(terms, counted, class_weight), reduction)
