"""The mean of Dice terms as one step of autograd: a dozen numbers whose dozen steps take longer than the pixels do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labeldrop_bench import ops

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
        return self.of_quotient((2 * intersection + self.offset) / (total + EPSILON))

    def of_quotient(self, q: Tensor) -> Tensor:
        """`[N, K]`: the terms of q."""
        terms = torch.where(self.included, 1 - q if self.complement else q, 0)
        return terms if self.class_weights is None else terms * self.class_weights

    def weights(self, dtype: torch.dtype) -> Tensor:
        """`[N, K]`."""
        weights = self.included.to(dtype)
        return weights if self.class_weights is None else weights * self.class_weights

    def divisor(self, dtype: torch.dtype) -> Tensor:
        """`[]`: the sum of the weights, 1 if that is 0."""
        weight = self.weights(dtype).sum()
        return torch.where(weight == 0, 1, weight)


class Mean(NamedTuple):
    """`weight sum of terms / divisor + partner cross-entropy`.

    Attributes:
        terms: of the Dice.
        positive: `[N, L, K]` bool, the pixels with which labels T is the sum of.
        divisor: `[]`, or None for 1.
        weight: factor of the Dice.
        partner: factor of the cross-entropy; None if there is none.
    """

    terms: Terms
    positive: Tensor
    divisor: Tensor | None
    weight: float
    partner: float | None


class MeanOverlap(torch.autograd.Function):
    """`Mean` of the sums over some pixels. The same numbers, bit for bit, as autograd of `Terms.of`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inputs: ops.DiceInputs, mean: Mean) -> Tensor:  # noqa: ANN401 - torch's
        sums, label_weight, cross_entropy = ops.run_dice(inputs)
        dtype = ops.accumulation_dtype(logits)
        numerator, denominator = sums.to(dtype).unbind()
        denominator.add_(ops.truth(mean.positive, label_weight).to(dtype)).add_(EPSILON)
        q = numerator.mul_(2).add_(mean.terms.offset).div_(denominator)
        value = mean.terms.of_quotient(q).sum()
        value = value if mean.divisor is None else value / mean.divisor
        value = value if mean.weight == 1 else value * mean.weight
        of_pixels = None
        if mean.partner is not None:
            of_pixels = ops.cross_entropy_divisor(label_weight)
            other = (cross_entropy.sum() / of_pixels).to(dtype)
            value = (other if mean.partner == 1 else other * mean.partner) + value
        ctx.save_for_backward(logits, *inputs[1:5], q, denominator, of_pixels)
        ctx.options, ctx.mean = inputs[5:], mean
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        *tensors, q, denominator, of_pixels = ctx.saved_tensors
        terms, _, divisor, weight, partner = ctx.mean
        of_terms = upstream if weight == 1 else upstream * weight
        of_terms = of_terms if divisor is None else of_terms / divisor
        of_terms = of_terms if terms.class_weights is None else of_terms * terms.class_weights
        of_terms = torch.where(terms.included, of_terms, 0)  # times -1 with the complement
        sign = -1 if terms.complement else 1
        of_intersection, of_prediction = of_terms / denominator * (2 * sign), of_terms * (q / denominator)
        of_prediction = of_prediction if terms.complement else -of_prediction
        if partner is None:
            of_pixels = upstream.new_zeros((), dtype=torch.double)
        else:
            of_pixels = (upstream if partner == 1 else upstream * partner) / of_pixels
        inputs = ops.DiceInputs._make([*tensors, *ctx.options])
        return ops.dice_gradient(inputs, of_intersection, of_prediction, of_pixels), None, None


# past what torch does in Python for transforms, of which there are none
mean_overlap: Callable[[Tensor, ops.DiceInputs, Mean], Tensor] = super(torch.autograd.Function, MeanOverlap).apply
