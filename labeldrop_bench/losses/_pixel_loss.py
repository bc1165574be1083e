"""What the losses that are sums over pixels share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from labeldrop_bench import rules

from .base import BACKENDS, PartialLabelLoss


class PixelLoss(PartialLabelLoss):
    """Calls the operator with the rule's table; a subclass says which table, which weights and which options."""

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
            logits: `[N, out_channels, *spatial]`.
            target: `[N, *spatial]` or `[N, 1, *spatial]` label values.
            annotated: `[N, L]` bool: was the label annotated in this sample? None means that all were.
            pixel_weight: `[N, *spatial]` or `[N, 1, *spatial]` weight of each pixel; one of weight 0 counts for
                nothing, whatever its logits are. "mean" divides by the sum of the weights.

        Returns:
            Scalar, or `[N, *spatial]` with reduction="none".

        Raises:
            TypeError: no tensors, or tensors of the wrong type.
            ValueError: shapes, devices or values that do not fit; each message says what to do.
        """
        target, annotated, pixel_weight = self._prepare(logits, target, annotated, pixel_weight)
        loss: Tensor = getattr(BACKENDS[self.backend], self.operator)(
            logits,
            target,
            *self.table(annotated),
            **self._own_weight(annotated),
            **self._own_options(),
            pixel_weight=pixel_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )
        return loss

    def table(self, annotated: Tensor) -> rules.Table:
        """`(candidates, active)`, each bool, for `annotated` `[N, L]` bool."""
        raise NotImplementedError

    def _own_weight(self, annotated: Tensor) -> dict[str, Tensor | None]:
        """What `class_weights` are to the operator."""
        raise NotImplementedError

    def _own_options(self) -> dict[str, Any]:
        """Those of the operator alone."""
        return {}
