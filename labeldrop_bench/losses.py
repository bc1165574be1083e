"""The losses: a rule joined to a likelihood, and the table that names them.

Adding a loss is one class and one row of `LOSSES`. Outside packages add theirs through the entry-point group
`labeldrop_bench.losses` (name -> nn.Module class with the same constructor and methods).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from . import ops, reference, rules
from .label_space import LabelSpace

BACKENDS = {"fused": ops, "reference": reference}


class PartialLabelLoss(nn.Module):
    """What all losses share: the label space, and the table of the rule.

    Args:
        num_classes: K, when label value c means class c.
        label_space: for super-labels and labels that are not exhaustive; give this or num_classes.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean" over the pixels that count (0 with zero gradient if there are none: a batch without
            supervision must not end a training run), "sum", or "none" for `[N, *spatial]`.
        backend: "fused" (compiled kernels) or "reference" (plain PyTorch).

    Raises:
        ValueError: both or none of num_classes and label_space, unknown reduction or backend.
    """

    rule: ClassVar[str]
    operator: ClassVar[str]
    member: Tensor
    exhaustive: Tensor

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if (num_classes is None) == (label_space is None):
            raise ValueError(f"{name}: give num_classes or label_space, and only one of them")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        if backend not in BACKENDS:
            raise ValueError(f"{name}: backend must be one of {sorted(BACKENDS)}, got {backend!r}")
        self.label_space = label_space or LabelSpace.of_classes(num_classes or 0)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.backend = backend
        member, exhaustive = rules.membership(self.label_space)
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("exhaustive", exhaustive, persistent=False)

    @property
    def out_channels(self) -> int:
        """How many channels the network must give."""
        return self.label_space.num_classes

    def runs_on(self, device_type: str) -> bool:
        """Whether the backend has what this loss needs on devices of a type ("cpu", "cuda")."""
        return self.backend == "reference" or ops.built_for(device_type, self.operator)

    def table(self, annotated: Tensor | None, batch_size: int, device: torch.device) -> rules.Table:
        """`(candidates, active)`, each `[N, L, K]` bool, for `annotated` `[N, L]` bool or None (all were drawn)."""
        num_labels = self.label_space.num_labels
        if annotated is None:
            annotated = torch.ones(batch_size, num_labels, dtype=torch.bool, device=device)
        _check_annotated(type(self).__name__, annotated, batch_size, num_labels)
        return rules.RULES[self.rule](annotated, self.member.to(device), self.exhaustive.to(device))

    def extra_repr(self) -> str:
        """Shown inside `repr`."""
        return f"classes={self.label_space.classes}, reduction={self.reduction!r}, backend={self.backend!r}"


class SetCrossEntropy(PartialLabelLoss):
    """Softmax family: `logsumexp over active z - logsumexp over candidates z`.

    `forward(logits, target, annotated=None)`: logits `[N, K, *spatial]`, target `[N, *spatial]` or
    `[N, 1, *spatial]` label values, annotated `[N, L]` bool. See `labeldrop_bench.ops.set_cross_entropy`.
    """

    operator = "set_cross_entropy"

    def forward(self, logits: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:
        """The loss: a scalar, or `[N, *spatial]` with reduction="none"."""
        target = ops.squeeze_channel(logits, target)
        candidates, active = self.table(annotated, logits.shape[0], logits.device)
        loss: Tensor = BACKENDS[self.backend].set_cross_entropy(
            logits, target, candidates, active, ignore_index=self.ignore_index, reduction=self.reduction
        )
        return loss

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """`[N, K, *spatial]`: softmax over the classes."""
        return logits.softmax(dim=1)

    @staticmethod
    def predict(logits: Tensor) -> Tensor:
        """`[N, *spatial]` int64 class map: the most probable class."""
        return logits.argmax(dim=1)


class CrossEntropy(SetCrossEntropy):
    """Cross-entropy that takes what was not drawn for background: `F.cross_entropy`."""

    rule = "standard"


class AdaptiveCrossEntropy(SetCrossEntropy):
    """Cross-entropy over the covered classes; a missing class gets exactly zero gradient."""

    rule = "adaptive"


class MarginalCrossEntropy(SetCrossEntropy):
    """Cross-entropy in which a background pixel may be background or any missing class."""

    rule = "marginal"


@dataclass(frozen=True)
class LossInfo:
    """One row of the table of losses: what `labeldrop-bench losses` shows."""

    module: type[nn.Module]
    formula: str
    source: str


_SOFTMAX = "logsumexp(active) - logsumexp(candidates)"
LOSSES: dict[str, LossInfo] = {
    "ce": LossInfo(CrossEntropy, f"{_SOFTMAX}, undrawn = background", "Islam et al. 2024, standard loss"),
    "adaptive_ce": LossInfo(
        AdaptiveCrossEntropy, f"{_SOFTMAX}, missing classes left out", "Mariscal-Harana et al. 2023"
    ),
    "marginal_ce": LossInfo(
        MarginalCrossEntropy, f"{_SOFTMAX}, background = background or missing", "Shi et al. 2021, marginal loss"
    ),
}


def registered() -> dict[str, LossInfo]:
    """Every loss: ours, then those of outside packages."""
    outside = {
        point.name: LossInfo(point.load(), "see its package", point.value)
        for point in entry_points(group="labeldrop_bench.losses")
    }
    return {**outside, **LOSSES}


def names() -> tuple[str, ...]:
    """Every registered loss."""
    return tuple(registered())


def create(name: str, **options: Any) -> nn.Module:  # noqa: ANN401 - the options are the loss's own
    """Make a loss by its registered name.

    Args:
        name: one of `names()`.
        **options: the loss's keyword arguments, among them num_classes or label_space, and backend.

    Raises:
        ValueError: no such loss (names the closest one), or options that the loss refuses.
    """
    known = registered()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"losses.create: no loss is named {name!r}{hint} Known: {', '.join(known)}")
    return known[name].module(**options)


def _check_annotated(loss: str, annotated: Tensor, batch_size: int, num_labels: int) -> None:
    if annotated.dtype != torch.bool or annotated.shape != (batch_size, num_labels):
        raise ValueError(
            f"{loss}: annotated must be bool [N, L] = {[batch_size, num_labels]}, "
            f"got {annotated.dtype} with shape {list(annotated.shape)}"
        )
    # Looking at a value would make the host wait for an accelerator, and break a compiled graph: there column 0 is
    # taken at its word.
    if torch.compiler.is_compiling() or annotated.device.type != "cpu":
        return
    if not bool(annotated[:, 0].all()):
        sample = int((~annotated[:, 0]).nonzero()[0])
        raise ValueError(f"{loss}: annotated[:, 0] is background's and must be True, got False in sample {sample}")
