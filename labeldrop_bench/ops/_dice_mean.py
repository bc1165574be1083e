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
        q = (2 * intersection + self.offset) / (total + EPSILON)
        terms = torch.where(self.included, 1 - q if self.complement else q, 0)
        return terms if self.class_weights is None else terms * self.class_weights.to(terms)

    def weights(self, like: Tensor) -> Tensor:
        """`[N, K]`."""
        weights = self.included.to(like.dtype)
        return weights if self.class_weights is None else weights * self.class_weights.to(like)


class Mean(NamedTuple):
    """`factor sum of terms [/ sum of weights] + cross_entropy_factor cross-entropy`.

    Attributes:
        terms: of the Dice.
        positive: `[N, L, K]` bool, the labels that T is the sum of.
        mean: whether to divide, by 1 where the weights add up to 0.
        factor: of the Dice.
        cross_entropy_factor: None if there is no cross-entropy.
    """

    terms: Terms
    positive: Tensor
    mean: bool
    factor: float
    cross_entropy_factor: float | None

    def of(self, sums: ops.SumsInMemory, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """The value `[]`; its derivatives by I and P `[2, N, K]`, and by the sum of cross-entropies `[1]` float64."""
        if sums.on_cuda:
            return self._on_device(sums, dtype)
        return ops.mean_overlap(
            sums,
            (self.positive, self.terms.included, self.terms.class_weights),
            dtype,
            offset=self.terms.offset,
            epsilon=EPSILON,
            complement=self.terms.complement,
            mean=self.mean,
            factor=self.factor,
            cross_entropy_factor=self.cross_entropy_factor,
        )

    def _on_device(self, sums: ops.SumsInMemory, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """The same by torch, for whose kernels the host does not wait."""
        terms = self.terms
        intersection, prediction = sums.overlaps.to(dtype)
        total = prediction + ops.truth(self.positive, sums.label_weight).to(dtype)
        weights = terms.weights(total)
        scale = self.factor / _nonzero(weights.sum()) if self.mean else self.factor
        value = terms.of(intersection, total).sum() * scale
        by_intersection = weights * scale / (total + EPSILON) * (-2 if terms.complement else 2)
        by_prediction = by_intersection * ((2 * intersection + terms.offset) / (total + EPSILON)) / -2
        slopes = torch.where(terms.included, torch.stack([by_intersection, by_prediction]), 0)
        by_cross_entropy = sums.cross_entropy.new_zeros(1)
        if self.cross_entropy_factor is not None:
            by_cross_entropy = (self.cross_entropy_factor / _nonzero(sums.label_weight.sum())).view(1)
            value = value + (sums.cross_entropy.sum() * by_cross_entropy[0]).to(dtype)
        return value, slopes, by_cross_entropy


def _nonzero(total: Tensor) -> Tensor:
    return total.where(total != 0, 1)


class MeanOverlap(torch.autograd.Function):
    """A `Mean` of the sums over some pixels."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inputs: ops.DiceInputs, mean: Mean) -> Tensor:  # noqa: ANN401 - torch's
        value, slopes, by_cross_entropy = mean.of(ops.run_dice(inputs), ops.accumulation_dtype(logits))
        ctx.save_for_backward(logits, *inputs[1:5], slopes, by_cross_entropy)
        ctx.options = inputs[5:]
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        *tensors, slopes, by_cross_entropy = ctx.saved_tensors
        if not ops.is_one(upstream):
            slopes, by_cross_entropy = slopes * upstream, by_cross_entropy * upstream
        by_intersection, by_prediction = slopes.unbind()
        inputs = ops.DiceInputs._make([*tensors, *ctx.options])
        return ops.dice_gradient(inputs, by_intersection, by_prediction, by_cross_entropy), None, None


# past what torch does in Python for transforms, of which there are none
mean_overlap: Callable[[Tensor, ops.DiceInputs, Mean], Tensor] = super(torch.autograd.Function, MeanOverlap).apply
