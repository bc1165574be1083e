"""What the losses that are sums over pixels share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from labeldrop_bench import ops

from ._kept_tables import Parts
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
        direct = self._is_direct(logits, target, annotated, pixel_weight)
        target, annotated, pixel_weight = self._prepare(logits, target, annotated, pixel_weight, direct=direct)
        common: dict[str, Any] = {
            **self._own_weight(annotated),
            "pixel_weight": pixel_weight,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
        }
        if direct:
            (words,) = self._tables(annotated)
            return ops.PIXEL_OPERATORS[self.operator].direct(logits, target, words, self._own_options(), **common)
        operator = getattr(BACKENDS[self.backend], self.operator)
        loss: Tensor = operator(logits, target, *self.table(annotated), **self._own_options(), **common)
        return loss

    def _packed(self, annotated: Tensor, *_: Any) -> Parts:  # noqa: ANN401 - there are none
        """`[N, L, 2, W]` words."""
        return (ops.pack_tables(self.operator, *self.table(annotated)),)

    def _own_weight(self, annotated: Tensor) -> dict[str, Tensor | None]:
        """What `class_weights` are to the operator."""
        raise NotImplementedError

    def _own_options(self) -> dict[str, Any]:
        """Those of the operator alone."""
        return {}
