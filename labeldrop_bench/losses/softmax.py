"""Softmax family: set cross-entropy with the standard, adaptive and marginal rule."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from labeldrop_bench import ops, rules
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.sets import Program

from ._arguments import as_weights
from ._kept_tables import Parts, content, on_device
from ._pixel_loss import PixelLoss


class SetCrossEntropy(PixelLoss):
    """`logsumexp over active z - logsumexp over candidates z`; see `labeldrop_bench.ops.set_cross_entropy`.

    Args:
        class_weights: K weights: a pixel has that of its class, one that reads the background row that of background,
            and one with a super-label the mean of its classes'.
    """

    operator = "set_cross_entropy"
    rule: ClassVar[str]

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        class_weights: Sequence[float] | Tensor | None = None,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
        check_target: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            label_space=label_space,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            check_target=check_target,
        )
        self.class_weights = as_weights(self._name, class_weights, self.label_space.num_classes, "one for each class")

    @rules.per_sample
    def table(self, annotated: Tensor) -> rules.Table:
        """`(candidates, active)`, each `[N, L, K]` bool, for `annotated` `[N, L]` bool."""
        return self._rule()(annotated, *self._label_space_on(annotated.device))

    def _rule(self) -> rules.Rule:
        return rules.RULES[self.rule]

    def _formula(self, *_: Any) -> ops.Formula | None:  # noqa: ANN401 - there are none
        rule = self._set_rule(SetCrossEntropy)
        return None if rule is None else _formula(rule)

    def _sets_on(self, device: torch.device) -> ops.LabelSets:
        sets = super()._sets_on(device)
        if self.class_weights is None:
            return sets
        (weights,) = on_device("labels' weights", (self.member, self.class_weights), device, _of_labels)
        return sets._replace(weights=weights)

    def _table_options(self) -> tuple[Hashable, ...]:
        return () if self.class_weights is None else (content(self.class_weights),)

    def _packed(self, annotated: Tensor, dtype: torch.dtype, *_: Any) -> Parts:  # noqa: ANN401 - there are none
        """`[N, L, 2, W]` words; with class weights also `[N, L]`, those of the labels."""
        words = super()._packed(annotated, dtype)
        if self.class_weights is None:
            return words
        return *words, self._own_weight(self.class_weights, annotated)["label_weight"].to(dtype)

    def _own_weight(self, class_weights: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        """`[N, L]`: the weight of the pixels with a label."""
        member, _ = self._label_space_on(annotated.device)
        (own,) = _of_labels(member, class_weights.to(annotated.device))
        return {"label_weight": own.where(annotated, own[0])}

    def _kept_weight(self, logits: Tensor, *parts: Tensor) -> dict[str, Tensor]:
        return {"label_weight": parts[0]} if parts else {}


@cache
def _formula(rule: rules.SetRule) -> ops.Formula | None:
    program = Program()
    return ops.Formula.of(program, rule.formula(program))


def _of_labels(member: Tensor, class_weights: Tensor) -> Parts:
    """`[L]`: the mean weight of a label's classes."""
    return ((member * class_weights).sum(dim=1) / member.sum(dim=1),)


class CrossEntropy(SetCrossEntropy):
    """Cross-entropy that takes what was not annotated for background: `F.cross_entropy`."""

    rule = "standard"


class AdaptiveCrossEntropy(SetCrossEntropy):
    """Cross-entropy over the covered classes; a missing class gets exactly zero gradient."""

    rule = "adaptive"


class MarginalCrossEntropy(SetCrossEntropy):
    """Cross-entropy in which a background pixel may be background or any missing class."""

    rule = "marginal"
