"""What operators return that have more than one result."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class DiceSums(NamedTuple):
    """The sums that a soft Dice loss is made of, per sample and class; float32, or float64 for float64 logits.

    Attributes:
        intersection: `[N, K]`, weighted probability of the class over the pixels that are positive for it.
        prediction: `[N, K]`, weighted probability of the class (or its square) over the pixels that count for it.
        truth: `[N, K]`, weight of the pixels that are positive for the class: without weights their number.
        cross_entropy: `[]`, weighted mean set cross-entropy of the same logits, 0 where none was asked for.
    """

    intersection: Tensor
    prediction: Tensor
    truth: Tensor
    cross_entropy: Tensor
