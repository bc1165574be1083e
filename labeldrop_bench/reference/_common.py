"""What the plain versions of the pixel losses share: a pixel's row of a table, weights, reduction."""

from __future__ import annotations

import torch
from torch import Tensor


class Pixels:
    """The pixels of a target: which of them count, with what weight, and their rows of the tables."""

    def __init__(
        self,
        target: Tensor,
        ignore_index: int,
        dtype: torch.dtype,
        *,
        label_weight: Tensor | None = None,
        pixel_weight: Tensor | None = None,
    ) -> None:
        """Look the pixels up.

        Args:
            target: `[N, *spatial]` label values.
            ignore_index: target value of pixels that count for nothing.
            dtype: of the loss, `accumulation_dtype(logits)`.
            label_weight: `[N, L]`, weight of the pixels that have a label.
            pixel_weight: `[N, *spatial]`; a pixel of weight 0 counts for nothing.
        """
        labelled = ~is_ignored(target, ignore_index)
        self._label = torch.where(labelled, target.long(), 0)
        self._sample = torch.arange(target.shape[0], device=target.device).view(-1, *[1] * (target.ndim - 1))
        weight = labelled.to(dtype)
        if pixel_weight is not None:
            weight = torch.where(labelled, pixel_weight.to(dtype), 0)
        if label_weight is not None:
            weight = weight * label_weight.to(dtype)[self._sample, self._label]
        self.weight = weight  # [N, *spatial], 0 where a pixel does not count
        self.counted = weight != 0  # [N, *spatial]

    def rows(self, table: Tensor) -> Tensor:
        """`[N, K, *spatial]`: each pixel's row of a table `[N, L, K]`, that of label 0 where it does not count."""
        return table[self._sample, self._label].movedim(-1, 1)

    def reduce(self, loss: Tensor, reduction: str) -> Tensor:
        """Loss `[N, *spatial]`, weighted: itself, its sum, or its sum over the sum of the weights (0 if that is 0)."""
        weighted = torch.where(self.counted, loss * self.weight, 0)
        if reduction == "none":
            return weighted
        total = weighted.sum()
        if reduction == "sum":
            return total
        divisor = self.weight.sum()
        return total / torch.where(divisor == 0, 1, divisor)


def is_ignored(target: Tensor, ignore_index: int) -> Tensor:
    """Which pixels have the value ignore_index. One that does not fit the type would be wrapped around by `==`."""
    limits = torch.iinfo(target.dtype)
    fits = limits.min <= ignore_index <= limits.max
    return target == ignore_index if fits else torch.zeros_like(target, dtype=torch.bool)


def accumulation_dtype(logits: Tensor) -> torch.dtype:
    """The type of the arithmetic and of the loss: float64 for float64 logits, else float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def cut_off(channels: Tensor, active: Tensor) -> Tensor:
    """Channels `[N, K, *spatial]` with 0 in place of what is not active, so that no NaN comes through from there.

    A product with 0 would be NaN; so would the gradient through a choice that is made after the arithmetic.
    """
    return torch.where(active, channels.to(accumulation_dtype(channels)), 0)


def sum_over_classes(terms: Tensor, active: Tensor, class_weight: Tensor | None) -> Tensor:
    """Loss `[N, *spatial]` of a pixel from its classes' terms `[N, K, *spatial]`, those that are active."""
    if class_weight is not None:
        terms = terms * class_weight.to(terms.dtype).view(-1, *[1] * (terms.ndim - 2))
    return torch.where(active, terms, 0).sum(dim=1)


def binary_focal(log_p: Tensor, log_not_p: Tensor, target: Tensor, gamma: float) -> Tensor:
    """`-t (1 - p)^gamma log p - (1 - t) p^gamma log(1 - p)`, from the logarithms of p and 1 - p; t may be any share."""
    if gamma == 0:
        return -target * log_p - (1 - target) * log_not_p
    # exp(gamma log p), not p ** gamma, whose derivative is infinite where p has underflown to 0 and gamma < 1
    return -target * (gamma * log_not_p).exp() * log_p - (1 - target) * (gamma * log_p).exp() * log_not_p
