"""Softmax family: set cross-entropy with the standard, adaptive and marginal rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from labeldrop_bench import rules

from ._pixel_loss import PixelLoss
from ._weights import as_weights


class SetCrossEntropy(PixelLoss):
    """`logsumexp over active z - logsumexp over candidates z`; see `labeldrop_bench.ops.set_cross_entropy`.

    Args:
        num_classes: see `PartialLabelLoss`, also for the other options.
        class_weights: K weights: a pixel has that of its class, one that reads the background row that of background,
            and one with a super-label the mean of its classes'.
        **options: those of `PartialLabelLoss`.
    """

    operator = "set_cross_entropy"
    rule: ClassVar[str]

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

    def _own_weight(self, annotated: Tensor) -> dict[str, Tensor | None]:
        """`[N, L]`: the weight of the pixels with a label."""
        if self.class_weights is None:
            return {"label_weight": None}
        member, _ = self._label_space_on(annotated.device)
        weights = self.class_weights.to(annotated.device)
        own = (member * weights).sum(dim=1) / member.sum(dim=1)  # [L]
        return {"label_weight": own.where(annotated, weights[0])}


class CrossEntropy(SetCrossEntropy):
    """Cross-entropy that takes what was not drawn for background: `F.cross_entropy`."""

    rule = "standard"


class AdaptiveCrossEntropy(SetCrossEntropy):
    """Cross-entropy over the covered classes; a missing class gets exactly zero gradient."""

    rule = "adaptive"


class MarginalCrossEntropy(SetCrossEntropy):
    """Cross-entropy in which a background pixel may be background or any missing class."""

    rule = "marginal"
