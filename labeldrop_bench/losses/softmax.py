"""Softmax family: set cross-entropy with the standard, adaptive and marginal rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from labeldrop_bench import rules

from ._weights import as_weights
from .base import BACKENDS, PartialLabelLoss


class SetCrossEntropy(PartialLabelLoss):
    """`logsumexp over active z - logsumexp over candidates z`; see `labeldrop_bench.ops.set_cross_entropy`.

    Args:
        num_classes: see `PartialLabelLoss`, also for the other options.
        class_weights: K weights: a pixel has that of its class, one that reads the background row that of background,
            and one with a super-label the mean of its classes'.
        **options: those of `PartialLabelLoss`.
    """

    operator = "set_cross_entropy"
    rule: ClassVar[str]
    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        class_weights: Sequence[float] | Tensor | None = None,
        **options: Any,  # noqa: ANN401 - the base class names them
    ) -> None:
        super().__init__(num_classes, **options)
        weights = as_weights(self._name, class_weights, self.label_space.num_classes, "one for each class")
        self.register_buffer("class_weights", weights, persistent=False)

    def table(self, annotated: Tensor) -> rules.Table:
        """`(candidates, active)`, each `[N, L, K]` bool, for `annotated` `[N, L]` bool."""
        return rules.RULES[self.rule](annotated, *self._label_space_on(annotated.device))

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        annotated: Tensor | None = None,
        *,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss.

        Args:
            logits: `[N, K, *spatial]`.
            target: `[N, *spatial]` or `[N, 1, *spatial]` label values.
            annotated: `[N, L]` bool: was the label drawn in this sample? None means that all were.
            pixel_weight: `[N, *spatial]` weight of each pixel.

        Returns:
            Scalar, or `[N, *spatial]` with reduction="none".
        """
        target, annotated = self._prepare(logits, target, annotated)
        loss: Tensor = BACKENDS[self.backend].set_cross_entropy(
            logits,
            target,
            *self.table(annotated),
            label_weight=self._label_weight(annotated),
            pixel_weight=pixel_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )
        return loss

    def _label_weight(self, annotated: Tensor) -> Tensor | None:
        """`[N, L]`: the weight of the pixels with a label."""
        if self.class_weights is None:
            return None
        member, _ = self._label_space_on(annotated.device)
        weights = self.class_weights.to(annotated.device)
        own = (member * weights).sum(dim=1) / member.sum(dim=1)  # [L]
        return own.where(annotated, weights[0])


class CrossEntropy(SetCrossEntropy):
    """Cross-entropy that takes what was not drawn for background: `F.cross_entropy`."""

    rule = "standard"


class AdaptiveCrossEntropy(SetCrossEntropy):
    """Cross-entropy over the covered classes; a missing class gets exactly zero gradient."""

    rule = "adaptive"


class MarginalCrossEntropy(SetCrossEntropy):
    """Cross-entropy in which a background pixel may be background or any missing class."""

    rule = "marginal"
