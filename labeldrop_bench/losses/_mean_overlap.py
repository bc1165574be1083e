"""The mean of Dice terms as one step of autograd: a dozen numbers whose dozen steps take longer than the pixels do."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-5


class Terms(NamedTuple):
    """`q = (2 I + offset) / (P + T + eps)`; a term is `1 - q`, or q itself.

    Attributes:
        included: `[N, K]` bool, the terms that count.
        class_weights: `[K]`, or None for 1.
        offset: of the numerator.
        complement: whether a term is `1 - q`.
    """

    included: Tensor
    class_weights: Tensor | None
    offset: float
    complement: bool

    def of(self, intersection: Tensor, total: Tensor) -> Tensor:
        """`[N, K]`: the terms of I and P + T; 0 where they do not count."""
        q = (2 * intersection + self.offset) / (total + EPSILON)
        terms = torch.where(self.included, 1 - q if self.complement else q, 0)
        return terms if self.class_weights is None else terms * self.class_weights

    def weights(self, dtype: torch.dtype) -> Tensor:
        """`[N, K]`."""
        weights = self.included.to(dtype)
        return weights if self.class_weights is None else weights * self.class_weights


class MeanOverlap(torch.autograd.Function):
    """The sum of the terms over a divisor. The same numbers, bit for bit, as autograd of `Terms.of`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        intersection: Tensor,
        prediction: Tensor,
        truth: Tensor,
        terms: Terms,
        divisor: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(intersection, prediction, truth, terms.included, terms.class_weights, divisor)
        ctx.offset, ctx.complement = terms.offset, terms.complement
        total = terms.of(intersection, prediction + truth).sum()
        return total if divisor is None else total / divisor

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        intersection, prediction, truth, included, class_weights, divisor = ctx.saved_tensors
        numerator, denominator = 2 * intersection + ctx.offset, prediction + truth + EPSILON
        upstream = upstream if divisor is None else upstream / divisor
        upstream = upstream if class_weights is None else upstream * class_weights
        of_q = torch.where(included, -upstream if ctx.complement else upstream, 0)
        return of_q / denominator * 2, -of_q * (numerator / denominator / denominator), None, None, None
