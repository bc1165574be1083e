"""Label dropout on the annotations, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import key_words, philox4x32


def label_dropout(annotated: Tensor, probability: Tensor, key: Tensor) -> Tensor:
    """Mark each label of each sample as not annotated, independently, with its probability.

    Arguments and result are those of `labeldrop_bench.ops.label_dropout`.
    """
    element = torch.arange(annotated.numel(), device=annotated.device).view(annotated.shape)
    zero = torch.zeros_like(element)
    counter = torch.stack([element & 0xFFFFFFFF, element >> 32, zero, zero + 1], dim=-1)  # [N, L, 4]
    # compared as integers, w >= p 2^32: devices without float64 can do it
    bound = (probability * 2.0**32).ceil().long()
    return annotated & (philox4x32(counter, key_words(key))[..., 0] >= bound)
