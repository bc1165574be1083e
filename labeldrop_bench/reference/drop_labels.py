"""Label dropout as a rewrite of the target, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ._common import is_ignored


def drop_labels(target: Tensor, annotated: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Set every pixel whose label is not annotated in its sample to background.

    Arguments and result are those of `labeldrop_bench.ops.drop_labels`.
    """
    counted = ~is_ignored(target, ignore_index)
    label = torch.where(counted, target.long(), 0)
    kept = annotated.gather(1, label.flatten(1)).view_as(target)
    return torch.where(counted & ~kept, 0, target.long()).to(target.dtype)
