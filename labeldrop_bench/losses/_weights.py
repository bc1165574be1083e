"""Class weights as users give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_weights(loss: str, weights: Sequence[float] | Tensor | None, count: int, meaning: str) -> Tensor | None:
    """`[count]` float64, or None.

    Raises:
        ValueError: another number of weights, or one that is negative or not finite.
    """
    if weights is None:
        return None
    values = torch.as_tensor(weights, dtype=torch.float64).detach().clone()
    if values.shape != (count,):
        raise ValueError(f"{loss}: class_weights must be {count} numbers, {meaning}; got shape {list(values.shape)}")
    bad = values[~(values.isfinite() & (values >= 0))]
    if bad.numel():
        raise ValueError(f"{loss}: class_weights must be finite and not negative, got {values.tolist()}")
    return values
