"""What the losses that are sums over pixels share."""

from __future__ import annotations

from typing import Any

import torch
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
        if self._is_direct(logits, target, annotated, pixel_weight):
            return self._directly(logits, target, annotated, pixel_weight)
        target, annotated, pixel_weight = self._check(logits, target, annotated, pixel_weight)
        loss: Tensor = getattr(BACKENDS[self.backend], self.operator)(
            logits,
            target,
            *self.table(annotated),
            **self._own_options(),
            **({} if self.class_weights is None else self._own_weight(self.class_weights, annotated)),
            pixel_weight=pixel_weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )
        return loss

    def _directly(
        self, logits: Tensor, target: Tensor, annotated: Tensor | None, pixel_weight: Tensor | None
    ) -> Tensor:
        """The loss, where nobody looks at the call."""
        target, annotated, pixel_weight = self._checked(logits, target, annotated, pixel_weight)
        (words, *weights), scratch = self._tables(annotated, logits)
        return ops.PIXEL_OPERATORS[self.operator].direct(
            logits,
            target,
            words,
            self._own_options(),
            **self._kept_weight(logits, *weights),
            pixel_weight=pixel_weight,
            scratch=scratch,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def _packed(self, annotated: Tensor, dtype: torch.dtype, *_: Any) -> Parts:  # noqa: ANN401 - there are none
        """`[N, L, 2, W]` words, and what a subclass adds."""
        return (ops.pack_tables(self.operator, *self.table(annotated)),)

    def _own_weight(self, class_weights: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """What `class_weights` are to the operator."""
        raise NotImplementedError

    def _kept_weight(self, logits: Tensor, *parts: Tensor) -> dict[str, Tensor]:
        """The same for a direct call, of the type of the arithmetic; `parts` is what `_packed` gave besides words."""
        raise NotImplementedError

    def _own_options(self) -> dict[str, Any]:
        """Those of the operator alone."""
        return {}
