"""Sums of losses, which share passes over the logits where they can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labeldrop_bench import ops
from labeldrop_bench.label_space import LabelSpace

from ._arguments import Explained
from .base import PartialLabelLoss
from .dice import SoftDice
from .softmax import SetCrossEntropy


class SumOfLosses(Explained):
    """`sum of w_i loss_i`. A cross-entropy and a softmax Dice over the same active classes are computed together.

    Args:
        terms: losses that read the same channels in the same way, reduction "mean" or "sum".
        weights: a factor for each; None is 1 for all.

    Raises:
        TypeError: no terms, or terms that are no losses.
        ValueError: another number of weights than of terms, a weight that is not finite or wants a gradient, reduction
            "none", or terms that want different channels.
    """

    def __init__(self, terms: Sequence[PartialLabelLoss], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not terms or not all(isinstance(term, nn.Module) for term in terms):
            raise TypeError(f"SumOfLosses: terms must be losses, at least one, got {terms!r}")
        for weight in (weights, *weights) if weights is not None else ():
            ops.refuse_gradient("SumOfLosses", "weights", weight, "a sum of your own of the terms")
        factors = tuple(float(w) for w in weights) if weights is not None else (1.0,) * len(terms)
        if len(factors) != len(terms):
            raise ValueError(
                f"SumOfLosses: weights must be {len(terms)} numbers, one for each term, got {len(factors)}"
            )
        if not all(abs(w) < float("inf") for w in factors):
            raise ValueError(f"SumOfLosses: weights must be finite, got {factors}")
        wanted = {(term.activation, term.out_channels): type(term).__name__ for term in terms}
        if len(wanted) != 1:
            texts = ", ".join(f"{name}: {channels} {activation}" for (activation, channels), name in wanted.items())
            raise ValueError(
                f"SumOfLosses: terms must read the same channels in the same way, got {texts}; "
                f"a Dice takes activation='sigmoid'"
            )
        if any(term.reduction == "none" for term in terms):
            raise ValueError(
                "SumOfLosses: reduction must be 'mean' or 'sum', got 'none': the terms have no common shape"
            )
        self.terms = nn.ModuleList(terms)
        self.weights = factors

    @property
    def out_channels(self) -> int:
        """How many channels the network must give."""
        return self._first.out_channels

    @property
    def label_space(self) -> LabelSpace:
        """Of all terms."""
        return self._first.label_space

    def runs_on(self, device_type: str) -> bool:
        """Whether every term does."""
        return all(term.runs_on(device_type) for term in self._terms)

    def probabilities(self, logits: Tensor) -> Tensor:
        """See `PartialLabelLoss.probabilities`."""
        return self._first.probabilities(logits)

    def predict(self, logits: Tensor) -> Tensor:
        """`[N, *spatial]` int64 class map; see `PartialLabelLoss.predict`."""
        return self._first.predict(logits)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        annotated: Tensor | None = None,
        *,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """The sum: a scalar. Arguments as for the terms."""
        # what was not given is not handed on: a term of another package need not know of it
        given = {} if pixel_weight is None else {"pixel_weight": pixel_weight}
        pair = _sharing(self._terms)  # at each call: options of the terms may have been changed
        values = [
            weight * term(logits, target, annotated, **given)
            for place, (term, weight) in enumerate(zip(self._terms, self.weights, strict=True))
            if place not in pair
        ]
        if pair:
            cross_entropy, dice = (self._terms[place] for place in pair)
            weights = self.weights[pair[1]], self.weights[pair[0]]
            values.append(
                dice.with_cross_entropy(logits, target, annotated, partner=cross_entropy, weights=weights, **given)
            )
        return values[0] if len(values) == 1 else torch.stack(values).sum()

    @property
    def _terms(self) -> list[Any]:
        return list(self.terms)

    @property
    def _first(self) -> PartialLabelLoss:
        first: PartialLabelLoss = self._terms[0]
        return first


def _sharing(terms: Sequence[PartialLabelLoss]) -> tuple[int, ...]:
    """Places of a cross-entropy and a Dice that can share their passes, if there are two such terms."""
    for i, first in enumerate(terms):
        for j, second in enumerate(terms):
            if isinstance(first, SetCrossEntropy) and isinstance(second, SoftDice) and second.can_share(first):
                return i, j
    return ()
