"""The tables of a rule that is a formula, by one kernel on a GPU, for which dozens of torch's are needed otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..sets import Program, Set
from . import _native
from ._tables import pack

MOST_STEPS = 64  # of csrc/arguments.h


class Formula(NamedTuple):
    """A rule's formula as the kernel takes it; numbers are places of steps.

    Attributes:
        code: all steps.
        tables: those that are a label's rows.
        dropped: how many classes the results have less than the label space.
        dice: of a Dice the steps that are positive, merged and included.
    """

    code: bytes
    tables: tuple[int, ...]
    dropped: int
    dice: tuple[int, int, int] | None

    @classmethod
    def of(
        cls, program: Program, tables: Sequence[Set], dice: Sequence[Set] = (), *, dropped: int = 0
    ) -> Formula | None:
        """From the results of a formula; None if it has more steps than the kernel takes."""
        code = program.code()
        if len(code) > 3 * MOST_STEPS:
            return None
        places = [each.number for each in dice]
        of_dice = (places[0], places[1], places[2]) if dice else None
        return cls(code, tuple(each.number for each in tables), dropped, of_dice)


class LabelSets(NamedTuple):
    """A label space on a device."""

    classes: int
    member: Tensor  # [L, W] int32 words
    exhaustive: Tensor  # [L] bool
    weights: Tensor | None = None  # [L] float64, of the pixels with a label

    @classmethod
    def parts(cls, member: Tensor, exhaustive: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """All but the number of classes, from bool `[L, K]` and `[L]`."""
        return pack(member), exhaustive.contiguous(), *weights


def is_on_gpu(tensor: Tensor) -> bool:
    """Whether the kernel takes it."""
    return _native.is_cuda(tensor)


def rule_tables(
    operator: str, formula: Formula, sets: LabelSets, annotated: Tensor | None, samples: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The tables of N samples, on the device of `sets`; and, but of a Dice, scratch for the loss's kernels.

    Args:
        operator: that they are for.
        formula: of the rule.
        sets: the labels.
        annotated: `[N, L]` bool, None: all.
        samples: N.
        dtype: of the weights.

    Returns:
        `[N, L, T, W]` words; then weights `[N, L]` if the labels have any. Of a Dice then words `[N, W]`, merged
        classes; bool `[N, L, K]`, positive ones; bool `[N, K]`, those that are included. The last number of scratch is
        made 0, so that no kernel has to be launched for that alone.
    """
    device, labels, classes = sets.member.device, sets.member.shape[0], sets.classes - formula.dropped
    annotated = None if annotated is None else annotated.contiguous()

    def empty(kind: torch.dtype, *size: int) -> Tensor:
        return torch.empty(size, dtype=kind, device=device)

    native = _native.module(device, operator)
    words = -(-classes // 32)
    results = [empty(torch.int32, samples, labels, len(formula.tables), words)]
    label_weight = None if sets.weights is None else empty(dtype, samples, labels)
    merged = positive = included = scratch = None
    if label_weight is not None:
        results.append(label_weight)
    if formula.dice:
        merged = empty(torch.int32, samples, words)
        positive = empty(torch.bool, samples, labels, classes)
        included = empty(torch.bool, samples, classes)
        results += [merged, positive, included]
    else:
        scratch = empty(torch.double, native.scratch)
    pointer = _native.pointer
    steps = formula.dice or (0, 0, 0)
    with _native.on_device(results[0]):
        native.rule_tables(
            annotated=pointer(annotated),
            member=sets.member.data_ptr(),
            exhaustive=sets.exhaustive.data_ptr(),
            samples=samples,
            labels=labels,
            classes=sets.classes,
            steps=formula.code,
            count=len(formula.code) // 3,
            dropped=formula.dropped,
            tables=formula.tables,
            table_count=len(formula.tables),
            words=results[0].data_ptr(),
            positive_step=steps[0],
            merged_step=steps[1],
            included_step=steps[2],
            positive=pointer(positive),
            merged=pointer(merged),
            included=pointer(included),
            weight=pointer(sets.weights),
            label_weight=pointer(label_weight),
            weights_are_double=dtype == torch.float64,
            zero=0 if scratch is None else scratch[-1:].data_ptr(),
            stream=_native.stream(results[0]),
        )
    return tuple(results), scratch
