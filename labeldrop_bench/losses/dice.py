"""Soft Dice family: one overlap for each class, from sums over pixels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed
from torch import Tensor

from labeldrop_bench import ops, rules
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.sets import Program, Set, Sets

from ._arguments import as_weights, check_choice
from ._kept_tables import Parts, on_device
from .base import BACKENDS, PartialLabelLoss
from .softmax import SetCrossEntropy

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_FORMULAS: dict[Hashable, ops.Formula | None] = {}
# Rules by which every class is active in every pixel.
ALL_ACTIVE = frozenset({"standard", "marginal", "exclusion", "leaf"})


class SoftDice(PartialLabelLoss):
    """`1 - (2 I + eps) / (P + T + eps)`, where I, P, T are the sums of w p t, w p and w t over the pixels that count.

    p is softmax over the active classes, or sigmoid; w is the pixel's weight, 1 without any. "mean" is over the classes
    that count, of all samples; a class that no sample covers contributes nothing. "none" gives `[N, K]` (`[1, K]` with
    batch; K - 1 with sigmoid), 0 for what does not count.

    Args:
        batch: sums over the whole batch instead of each sample.
        squared: P = sum of w p^2; None is as published: True for `LeafDice`, else False.
        include_background: whether class 0 counts (with softmax; with sigmoid there is none).
        activation: "softmax" (K channels) or "sigmoid" (K - 1).
        class_weights: factors of the classes' terms, and "mean" is their weighted mean; K of them with softmax, K - 1
            with sigmoid.
        process_group: None is this process alone. Under torch.distributed, torch.distributed.group.WORLD, or a group,
            makes value and gradient (as DDP averages it) those of the batches of all its processes together, which then
            all have to call the loss. Without it each process takes the mean over its own classes, and the average of
            these is another number where the processes have different numbers of annotated classes.
    """

    operator = "dice_sums"
    rule: ClassVar[str]
    squared_as_published: ClassVar[bool] = False
    offset: ClassVar[float] = ops.EPSILON  # a term is 1 - (2 I + offset) / (P + T + eps)
    complement: ClassVar[bool] = True  # or, without the complement, that quotient

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        batch: bool = False,
        squared: bool | None = None,
        include_background: bool = True,
        activation: str = "softmax",
        class_weights: Sequence[float] | Tensor | None = None,
        process_group: ProcessGroup | None = None,
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
        check_choice(self._name, "activation", activation, ("softmax", "sigmoid"))
        self.batch, self.include_background = batch, include_background
        self.squared = self.squared_as_published if squared is None else squared
        self.activation = activation
        self.process_group = process_group
        self.class_weights = as_weights(
            self._name, class_weights, self.out_channels, "one for each of the network's channels"
        )

    @rules.per_sample
    def table(self, annotated: Tensor) -> rules.DiceTable:
        """What each label value says, for `annotated` `[N, L]` bool."""
        member, exhaustive = self._label_space_on(annotated.device)
        return self._channels(Sets, self._rule()(annotated, member, exhaustive), member[0])

    def _rule(self) -> rules.DiceRule:
        return rules.DICE_RULES[self.rule]

    def _channels(self, sets: type[Sets], table: rules.DiceTable, background: Set) -> rules.DiceTable:
        """What a table of all classes says of those that count and have channels."""
        if self.activation == "sigmoid":
            return rules.DiceTable(*(sets.foreground(part) for part in table))
        return table if self.include_background else table._replace(included=table.included & ~background)

    def _formula(self, partner: SetCrossEntropy | None = None) -> ops.Formula | None:
        own, other = self._set_rule(SoftDice), None if partner is None else partner._set_rule(SetCrossEntropy)
        if own is None or (other is None) != (partner is None):
            return None
        said = own, other, *self._table_options()
        if said not in _FORMULAS:
            _FORMULAS[said] = self._noted(own, other)
        return _FORMULAS[said]

    def _noted(self, rule: rules.SetRule, partner: rules.SetRule | None) -> ops.Formula | None:
        """`_packed` as steps."""
        program, sigmoid = Program(), self.activation == "sigmoid"
        table = self._channels(Program, rule.formula(program), program.background)
        if sigmoid:
            table = table._replace(merged=program.foreground(~program.everything))
        candidates = None if partner is None else partner.formula(program)[0]
        rows, merged, positive = ops.dice_rows(Program, *table[:4], candidates, program.background)
        return ops.Formula.of(program, rows, (positive, merged, table.included), dropped=int(sigmoid))

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
            pixel_weight: `[N, *spatial]` or `[N, 1, *spatial]` weight of each pixel in all sums; one of weight 0 counts
                for nothing, whatever its logits are.

        Returns:
            Scalar, or one value for each sample and class with reduction="none".

        Raises:
            TypeError: no tensors, or tensors of the wrong type.
            ValueError: shapes, devices or values that do not fit; each message says what to do.
        """
        return self.with_cross_entropy(logits, target, annotated, partner=None, pixel_weight=pixel_weight)

    def can_share(self, partner: SetCrossEntropy) -> bool:
        """Whether both losses need the same softmax of the same pixels, and nothing that `dice_sums` does not do."""
        same_classes = partner.rule == self.rule or {partner.rule, self.rule} <= ALL_ACTIVE
        alike = partner.backend == self.backend and partner.ignore_index == self.ignore_index
        plain = partner.class_weights is None and partner.reduction == "mean" and self.activation == "softmax"
        return same_classes and alike and plain

    def with_cross_entropy(
        self,
        logits: Tensor,
        target: Tensor,
        annotated: Tensor | None,
        *,
        partner: SetCrossEntropy | None,
        weights: tuple[float, float] = (1.0, 1.0),
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, plus a cross-entropy of the same logits, in the same passes over memory.

        Args:
            logits: `[N, K, *spatial]`.
            target: `[N, *spatial]` or `[N, 1, *spatial]` label values.
            annotated: `[N, L]` bool, or None.
            partner: a loss that this one `can_share` with; None leaves it out.
            weights: factors of this loss and of the partner's.
            pixel_weight: of both losses, as for `forward`.
        """
        one_by_one = self.process_group is not None or self.reduction == "none"
        partners = () if partner is None else (partner,)
        direct = self._is_direct(logits, target, annotated, pixel_weight)
        if direct:
            target, annotated, pixel_weight = self._checked(logits, target, annotated, pixel_weight)
            (*packed, included), _ = self._tables(annotated, logits, *partners)
        else:
            target, annotated, pixel_weight = self._check(logits, target, annotated, pixel_weight)
            if one_by_one or self.backend == "reference":
                return self._from_sums(logits, target, annotated, partner, weights, pixel_weight)
            ops.refuse_transforms(self.operator, {"logits": logits, "target": target, "annotated": annotated})
            *packed, included = self._packed(annotated, ops.accumulation_dtype(logits), *partners)
        words = ops.DiceWords(*packed)
        inputs = ops.dice_inputs(logits, target, words, pixel_weight=pixel_weight, **self._options())
        if one_by_one:
            return self._weighted(ops.sums_of(inputs, words.positive, direct=True), included, partner, weights)
        terms = self._terms(included)
        if direct and terms.class_weights is not None:
            parts = on_device("weights", (terms.class_weights,), logits.device, lambda *weights: weights)
            terms = terms._replace(class_weights=parts[0])
        mean = ops.DiceMean(
            terms,
            words.positive,
            mean=self.reduction == "mean",
            batch=self.batch,
            factor=weights[0],
            cross_entropy_factor=None if partner is None else weights[1],
        )
        return ops.dice_mean(inputs, mean, direct=direct)

    def _from_sums(
        self,
        logits: Tensor,
        target: Tensor,
        annotated: Tensor,
        partner: SetCrossEntropy | None,
        weights: tuple[float, float],
        pixel_weight: Tensor | None,
    ) -> Tensor:
        """The same from the sums as results of their own, for autograd to go through."""
        table, candidates = self._asked(annotated, partner)
        sums = BACKENDS[self.backend].dice_sums(
            logits, target, *table[:4], candidates=candidates, pixel_weight=pixel_weight, **self._options()
        )
        return self._weighted(sums, table.included, partner, weights)

    def _options(self) -> dict[str, Any]:
        """Of `dice_sums`."""
        return {"squared": self.squared, "activation": self.activation, "ignore_index": self.ignore_index}

    def _weighted(
        self, sums: ops.DiceSums, included: Tensor, partner: SetCrossEntropy | None, weights: tuple[float, float]
    ) -> Tensor:
        """The loss from its sums, plus the partner's."""
        parts = sums.intersection, sums.prediction, sums.truth.to(sums.prediction.dtype)  # [N, K] each
        own = weights[0] * self._reduce(torch.stack(parts), included)
        return own if partner is None else weights[1] * sums.cross_entropy + own

    def _asked(
        self, annotated: Tensor, partner: SetCrossEntropy | None = None
    ) -> tuple[rules.DiceTable, Tensor | None]:
        """The table, and the partner's candidates."""
        table = self.table(annotated)
        if self.activation == "sigmoid":
            table = table._replace(merged=torch.zeros_like(table.merged))
        return table, None if partner is None else partner.table(annotated)[0]

    def _table_options(self) -> tuple[Hashable, ...]:
        return self.activation, self.include_background

    def _packed(self, annotated: Tensor, dtype: torch.dtype, partner: SetCrossEntropy | None = None) -> Parts:
        """Words `[N, L, T, W]` and `[N, W]`, and bool: positive `[N, L, K]`, included `[N, K]`."""
        table, candidates = self._asked(annotated, partner)
        return *ops.pack_dice_tables(*table[:4], candidates), table.included

    def __deepcopy__(self, memo: dict[int, Any]) -> SoftDice:
        """With the same group of processes, which cannot be copied: averages of weights start from a copy."""
        memo[id(self.process_group)] = self.process_group
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    def _reduce(self, parts: Tensor, included: Tensor) -> Tensor:
        """The loss from the sums `[3, N, K]` and the classes `[N, K]` that count."""
        if self.batch:
            counts = included.sum(dim=0, keepdim=True).to(parts.dtype).unsqueeze(0)
            parts = torch.where(included, parts, 0).sum(dim=1, keepdim=True)
            parts, counts = self._over_processes(torch.cat([parts, counts])).split([3, 1])
            included = counts[0] > 0
        intersection, prediction, truth = parts
        terms = self._terms(included)
        values = terms.of(intersection, prediction + truth)
        if self.reduction == "none":
            return values
        total, weight = values.sum(), terms.weights(values).sum()
        if self.process_group is not None and not self.batch:
            total, weight = self._over_processes(torch.stack([total, weight])).unbind()
        return total / torch.where(weight == 0, 1, weight) if self.reduction == "mean" else total

    def _terms(self, included: Tensor) -> ops.DiceTerms:
        return ops.DiceTerms(included, self.class_weights, self.offset, self.complement)

    def _over_processes(self, sums: Tensor) -> Tensor:
        """Added up over the group."""
        if self.process_group is None:
            return sums
        total: Tensor = _AddUp.apply(sums, self.process_group)  # type: ignore[no-untyped-call]
        return total


class Dice(SoftDice):
    """Soft Dice of all classes; what was not annotated is background."""

    rule = "standard"


class AdaptiveDice(SoftDice):
    """Soft Dice of the covered classes, with the probability shared out among these."""

    rule = "adaptive"


class MarginalDice(SoftDice):
    """Soft Dice of the covered classes; the probability of missing ones is added to background's (Shi et al. 2021)."""

    rule = "marginal"


class ExclusionDice(SoftDice):
    """Overlap of each class with where it certainly is not, `2 I / (P + T + eps)`, to be minimised (Shi et al. 2021).

    For a covered class that is wherever it was not, for a missing one the annotated foreground. The paper adds twice
    this to marginal cross-entropy and marginal Dice: `marginal_ce+marginal_dice+exclusion_dice`, weights 1, 1, 2.
    """

    rule = "exclusion"
    offset, complement = 0.0, False


class LeafDice(SoftDice):
    """Soft Dice in which only pixels that can be one class alone are positive (Fidon et al. 2021).

    Squared as in the paper, unless squared=False. A class that no label of a sample names alone is left out there.
    """

    rule = "leaf"
    squared_as_published = True


class _AddUp(torch.autograd.Function):
    """The sum over the processes of a group; the mean of gradients that DDP takes is then the gradient of the whole."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: ProcessGroup) -> Tensor:  # noqa: ANN401 - torch's
        ctx.group = group
        total = own.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        total = upstream.clone()
        torch.distributed.all_reduce(total, group=ctx.group)
        return total, None
