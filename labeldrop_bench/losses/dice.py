"""Soft Dice family: one overlap for each class, from sums over pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.distributed
from torch import Tensor

from labeldrop_bench import rules

from .base import BACKENDS, PartialLabelLoss, check_choice
from .softmax import SetCrossEntropy

EPSILON = 1e-5
# Rules by which every class is active in every pixel.
ALL_ACTIVE = frozenset({"standard", "marginal", "exclusion", "leaf"})


class SoftDice(PartialLabelLoss):
    """`1 - (2 I + eps) / (P + T + eps)`, with I = sum of p t, P = sum of p, T = sum of t over the pixels that count.

    p is softmax over the active classes, or sigmoid. "mean" is over the classes that count, of all samples; a class
    that no sample covers contributes nothing. "none" gives `[N, K]` (`[1, K]` with batch; K-1 with sigmoid), 0 for what
    does not count.

    Args:
        num_classes: see `PartialLabelLoss`, also for the other options.
        batch: sums over the whole batch, and under torch.distributed over all processes, instead of each sample.
        squared: P = sum of p^2.
        include_background: whether class 0 counts (with softmax; with sigmoid there is none).
        activation: "softmax" (K channels) or "sigmoid" (K - 1).
        **options: those of `PartialLabelLoss`.
    """

    operator = "dice_sums"
    rule: ClassVar[str]

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        batch: bool = False,
        squared: bool = False,
        include_background: bool = True,
        activation: str = "softmax",
        **options: Any,  # noqa: ANN401 - the base class names them
    ) -> None:
        super().__init__(num_classes, **options)
        check_choice(self._name, "activation", activation, ("softmax", "sigmoid"))
        self.batch, self.squared, self.include_background = batch, squared, include_background
        self.activation = activation

    def table(self, annotated: Tensor) -> rules.DiceTable:
        """What each label value says, for `annotated` `[N, L]` bool."""
        table = rules.DICE_RULES[self.rule](annotated, *self._label_space_on(annotated.device))
        if self.activation == "sigmoid":
            return rules.DiceTable(*(part[..., 1:] for part in table))
        if not self.include_background:
            is_foreground = torch.arange(table.included.shape[1], device=annotated.device) > 0
            return table._replace(included=table.included & is_foreground)
        return table

    def forward(self, logits: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:
        """The loss.

        Args:
            logits: `[N, out_channels, *spatial]`.
            target: `[N, *spatial]` or `[N, 1, *spatial]` label values.
            annotated: `[N, L]` bool: was the label drawn in this sample? None means that all were.

        Returns:
            Scalar, or one value for each sample and class with reduction="none".
        """
        return self.with_cross_entropy(logits, target, annotated, partner=None)[0]

    def can_share(self, partner: SetCrossEntropy) -> bool:
        """Whether both losses need the same softmax of the same pixels, and nothing that `dice_sums` does not do."""
        same_classes = partner.rule == self.rule or {partner.rule, self.rule} <= ALL_ACTIVE
        alike = partner.backend == self.backend and partner.ignore_index == self.ignore_index
        plain = partner.class_weights is None and partner.reduction == "mean" and self.activation == "softmax"
        return same_classes and alike and plain

    def with_cross_entropy(
        self, logits: Tensor, target: Tensor, annotated: Tensor | None, *, partner: SetCrossEntropy | None
    ) -> tuple[Tensor, Tensor]:
        """The loss, and that of a cross-entropy of the same logits, in the same passes over memory.

        Args:
            logits: `[N, K, *spatial]`.
            target: `[N, *spatial]` or `[N, 1, *spatial]` label values.
            annotated: `[N, L]` bool, or None.
            partner: a loss that this one `can_share` with; None leaves it out, and its value is 0.
        """
        target, annotated = self._prepare(logits, target, annotated)
        table = self.table(annotated)
        candidates = None if partner is None else partner.table(annotated)[0]
        sums = BACKENDS[self.backend].dice_sums(
            logits,
            target,
            table.positive,
            table.counted,
            table.active,
            torch.zeros_like(table.merged) if self.activation == "sigmoid" else table.merged,
            candidates=candidates,
            squared=self.squared,
            activation=self.activation,
            ignore_index=self.ignore_index,
        )
        parts = torch.stack([sums.intersection, sums.prediction, sums.truth.to(sums.prediction.dtype)])  # [3, N, K]
        return self._reduce(parts, table.included), sums.cross_entropy

    def _reduce(self, parts: Tensor, included: Tensor) -> Tensor:
        if self.batch:
            counts = included.sum(dim=0, keepdim=True).to(parts.dtype).unsqueeze(0)
            parts = torch.where(included, parts, 0).sum(dim=1, keepdim=True)
            parts, counts = _over_processes(torch.cat([parts, counts])).split([3, 1])
            included = counts[0] > 0
        intersection, prediction, truth = parts
        values = torch.where(included, self._of_sums(intersection, prediction + truth), 0)
        if self.reduction == "none":
            return values
        return values.sum() / included.sum().clamp(min=1) if self.reduction == "mean" else values.sum()

    @staticmethod
    def _of_sums(intersection: Tensor, total: Tensor) -> Tensor:
        return 1 - (2 * intersection + EPSILON) / (total + EPSILON)


class Dice(SoftDice):
    """Soft Dice of all classes; what was not drawn is background."""

    rule = "standard"


class AdaptiveDice(SoftDice):
    """Soft Dice of the covered classes, with the probability shared out among these."""

    rule = "adaptive"


class MarginalDice(SoftDice):
    """Soft Dice of the covered classes; the probability of missing ones is added to background's (Shi et al. 2021)."""

    rule = "marginal"


class ExclusionDice(SoftDice):
    """Overlap of each class with where it certainly is not, `2 I / (P + T + eps)`, to be minimised (Shi et al. 2021).

    For a covered class that is wherever it was not drawn, for a missing one the drawn foreground. The paper adds twice
    this to marginal cross-entropy and marginal Dice: `marginal_ce+marginal_dice+exclusion_dice`, weights 1, 1, 2.
    """

    rule = "exclusion"

    @staticmethod
    def _of_sums(intersection: Tensor, total: Tensor) -> Tensor:
        return 2 * intersection / (total + EPSILON)


class LeafDice(SoftDice):
    """Soft Dice in which only pixels that can be one class alone are positive (Fidon et al. 2021).

    Squared as in the paper, unless squared=False. A class that no label of a sample names alone is left out there.
    """

    rule = "leaf"

    def __init__(self, num_classes: int | None = None, *, squared: bool = True, **options: Any) -> None:  # noqa: ANN401
        super().__init__(num_classes, squared=squared, **options)


def _over_processes(parts: Tensor) -> Tensor:
    """Summed over all processes, with a gradient: the mean that DDP takes is then the whole batch's gradient."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return parts
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(parts)
    return total
