"""What all losses share: the label space, the rule's table, and how a network's channels are read."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from labeldrop_bench import ops, reference, rules
from labeldrop_bench.constants import HasConstants
from labeldrop_bench.label_space import LabelSpace

from ._arguments import Explained, check_choice, check_count
from ._inputs import check_annotated, check_background, check_logits, check_pixel_weight, check_target, fits
from ._kept_tables import Parts, content, kept, on_device

BACKENDS: dict[str, ModuleType] = {"fused": ops, "reference": reference}


class PartialLabelLoss(Explained, HasConstants):
    """The base of all losses.

    Args:
        num_classes: K, background counted, when label value c means class c.
        label_space: for names, super-labels and labels that are not exhaustive; give this or num_classes.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean" over what counts (0 with zero gradient if nothing does: a batch without supervision must not
            end a training run), "sum", or "none".
        backend: "fused" (compiled kernels) or "reference" (plain PyTorch).
        check_target: also on CUDA, look for target values that are neither a label nor ignore_index and name the first
            one. The host then waits for the device; without it such a value makes the loss NaN there. On the CPU it is
            always named.

    Raises:
        ValueError: both or none of num_classes and label_space, fewer than 2 classes, unknown reduction or backend.
        TypeError: an argument of the wrong type, or that there is not (says which one may be meant).
    """

    operator: ClassVar[str]
    channels_per_class: ClassVar[int] = 1
    constants = ("member", "exhaustive", "class_weights")
    activation: str = "softmax"

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
        check_target: bool = False,
    ) -> None:
        super().__init__()
        if (num_classes is None) == (label_space is None):
            raise ValueError(f"{self._name}: give num_classes or label_space, and only one of them")
        check_choice(self._name, "reduction", reduction, ("mean", "sum", "none"))
        check_choice(self._name, "backend", backend, BACKENDS)
        self.label_space = self._described(num_classes, label_space)
        self.ignore_index = ops.integer(self._name, "ignore_index", ignore_index)
        self.reduction = reduction
        self.backend = backend
        self.check_target = check_target
        self.member, self.exhaustive = rules.membership(self.label_space)
        self.class_weights: Tensor | None = None

    @property
    def out_channels(self) -> int:
        """How many channels the network must give: K, or one or two for each foreground class (sigmoid family)."""
        classes = self.label_space.num_classes
        return classes if self.activation == "softmax" else self.channels_per_class * (classes - 1)

    def runs_on(self, device_type: str) -> bool:
        """Whether the backend has what this loss needs on devices of a type ("cpu", "cuda")."""
        return self.backend == "reference" or ops.built_for(device_type, self.operator)

    def probabilities(self, logits: Tensor) -> Tensor:
        """`[N, K, *spatial]`: softmax over classes; in the sigmoid family `[N, K-1, *spatial]`, without background.

        Logits are `[N, out_channels, *spatial]`.
        """
        self._check_logits(logits)
        return logits.softmax(dim=1) if self.activation == "softmax" else self._class_logits(logits).sigmoid()

    def predict(self, logits: Tensor) -> Tensor:
        """`[N, *spatial]` int64: the most probable class; in the sigmoid family background where no p > 0.5."""
        self._check_logits(logits)
        if self.activation == "softmax":
            return logits.argmax(dim=1)
        best, channel = self._class_logits(logits).max(dim=1)
        return torch.where(best > 0, channel + 1, 0)

    def extra_repr(self) -> str:
        """Shown inside `repr`."""
        return f"classes={self.label_space.classes}, reduction={self.reduction!r}, backend={self.backend!r}"

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_logits(self, logits: Tensor) -> None:
        """The network's channels: others, of another family too, would be taken for other classes in silence."""
        check_logits(self._name, logits, self.out_channels, self.label_space.num_classes)

    def _class_logits(self, logits: Tensor) -> Tensor:
        """`[N, K-1, *spatial]`: the first channels; where there are two a class, the others come after these."""
        return logits[:, : self.label_space.num_classes - 1]

    def _described(self, num_classes: int | None, label_space: LabelSpace | None) -> LabelSpace:
        """The label space, from the one of the two arguments that was given."""
        if label_space is None:
            return LabelSpace.of_classes(check_count(self._name, "num_classes", num_classes, least=2))
        if not isinstance(label_space, LabelSpace):
            raise TypeError(
                f"{self._name}: label_space must be a LabelSpace, got {label_space!r}: for one label for each class "
                f"use LabelSpace.of_classes(names)"
            )
        return label_space

    def table(self, annotated: Tensor) -> tuple[Tensor, ...]:
        """What each label value says, for `annotated` `[N, L]` bool."""
        raise NotImplementedError

    def _rule(self) -> Callable[..., Any]:
        """The function that `table` asks."""
        raise NotImplementedError

    def _packed(self, annotated: Tensor, dtype: torch.dtype, *partners: Any) -> Parts:  # noqa: ANN401 - its own ones
        """`table`, as the kernels read it: some tensors `[N, ...]`; numbers are of the type of the arithmetic."""
        raise NotImplementedError

    def _table_options(self) -> tuple[Hashable, ...]:
        """What `_packed` depends on besides the rule, the label space, `annotated` and the type."""
        return ()

    def _is_direct(self, logits: Tensor, target: Tensor, annotated: Tensor | None, pixel_weight: Tensor | None) -> bool:
        """Whether this call goes straight to the kernels, with packed tables."""
        given = logits is not None and target is not None
        return given and self.backend == "fused" and ops.is_direct(logits, target, annotated, pixel_weight)

    def _checked(
        self, logits: Tensor, target: Tensor, annotated: Tensor | None, pixel_weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The same as `_check` for a direct call, where None may stand for all labels."""
        if target.is_cpu or not self.check_target:
            if target.ndim == logits.ndim:
                target = ops.squeeze_channel(logits, target)
            labels = self.label_space.num_labels
            if fits(logits, target, annotated, pixel_weight, channels=self.out_channels, labels=labels):
                return target, annotated, pixel_weight
        return self._check(logits, target, annotated, pixel_weight)

    def _check(
        self, logits: Tensor, target: Tensor, annotated: Tensor | None, pixel_weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Target `[N, *spatial]`, annotated `[N, L]` and pixel_weight `[N, *spatial]` or None.

        One argument is looked at after the other, with a message about what is wrong.
        """
        ops.check_tensors(
            self._name, {"logits": logits, "target": target}, {"annotated": annotated, "pixel_weight": pixel_weight}
        )
        num_labels = self.label_space.num_labels
        self._check_logits(logits)
        target = check_target(self._name, target, logits)
        if annotated is None:
            annotated = self._all_annotated(logits)
        check_annotated(self._name, annotated, logits, num_labels)
        if pixel_weight is not None:
            pixel_weight = check_pixel_weight(self._name, pixel_weight, logits)
        # on the CPU the kernels do so
        if self.check_target if target.device.type != "cpu" else self.backend == "reference" and ops.has_values(target):
            ops.check_labels(self._name, target, num_labels, self.ignore_index)
        return target, annotated, pixel_weight

    def _all_annotated(self, logits: Tensor) -> Tensor:
        """`[N, L]`: what None means."""
        return torch.ones(logits.shape[0], self.label_space.num_labels, dtype=torch.bool, device=logits.device)

    def _tables(
        self, annotated: Tensor | None, logits: Tensor, *partners: PartialLabelLoss
    ) -> tuple[Parts, Tensor | None]:
        """`_packed` for a direct call; on the CPU kept where it follows from `annotated` and the label spaces alone.

        Where one kernel makes it, also scratch for the loss's kernels.
        """
        dtype = ops.accumulation_dtype(logits)
        if ops.is_on_gpu(logits) and (formula := self._formula(*partners)):
            return ops.rule_tables(self.operator, formula, self._sets_on(logits.device), annotated, len(logits), dtype)
        labels = self.label_space.num_labels
        if annotated is None:
            pattern = b"\1" * (logits.shape[0] * labels) if logits.is_cpu else b""
        else:
            pattern = content(annotated) if annotated.is_cpu else b""
        said = (dtype, self._said(), *(partner._said() for partner in partners))

        def build(new: Tensor) -> Parts:
            if annotated is not None:  # what is kept was found to be right
                check_background(self._name, annotated)
            return self._packed(new, dtype, *partners)

        if not pattern or None in said:
            return build(self._all_annotated(logits) if annotated is None else annotated), None
        return kept(said, pattern, labels, build), None

    def _said(self) -> tuple[Hashable, ...] | None:
        """What `table` depends on besides `annotated`; None where that is not known, as of somebody else's rule."""
        table = getattr(self.table, "__func__", None)
        if table not in rules.PER_SAMPLE or not self.member.is_cpu:
            return None
        rule = self._rule()
        if not rules.is_per_sample(rule):
            return None
        return table, rule, content(self.member), content(self.exhaustive), *self._table_options()

    def _set_rule(self, family: type[PartialLabelLoss]) -> rules.SetRule | None:
        """The rule, if it is a formula, and the table is made of it as the losses of this package do."""
        rule = self._rule()
        own = getattr(self.table, "__func__", None) is family.table
        return rule if own and isinstance(rule, rules.SetRule) else None

    def _formula(self, *partners: Any) -> ops.Formula | None:  # noqa: ANN401 - its own ones
        """`_packed` as steps for the device; None where the rule is no formula."""
        raise NotImplementedError

    def _sets_on(self, device: torch.device) -> ops.LabelSets:
        """The label space as the device reads it."""
        parts = on_device("sets", (self.member, self.exhaustive), device, ops.LabelSets.parts)
        return ops.LabelSets(self.label_space.num_classes, *parts)

    def _label_space_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What rules read besides `annotated`."""
        return self.member.to(device), self.exhaustive.to(device)
