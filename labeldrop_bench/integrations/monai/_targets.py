"""Targets as MONAI has them, of any type and one-hot too, as the label values that the kernels read."""

from __future__ import annotations

import torch
from torch import Tensor

from labeldrop_bench import ops

_NAME = "PartialLabelLoss"
# No label and no ignore_index: where the host does not look at values, it makes the loss NaN as any such value does.
_NO_LABEL = 2**31 - 1
_AS_THEY_ARE = (torch.uint8, torch.int16, torch.int32, torch.int64)
UNANNOTATED = -1  # in a one-hot target, of the channels of labels that nobody annotated in a sample
_WIDER = {torch.bool: torch.uint8, torch.int8: torch.int16, torch.uint16: torch.int32}


def as_labels(target: Tensor, num_labels: int, dimensions: int) -> Tensor:
    """Label values of an integer type: `[N, 1, *spatial]` or `[N, *spatial]`.

    Args:
        target: so, of any real type; or one-hot `[N, L, *spatial]`.
        num_labels: L.
        dimensions: of the logits.

    Raises:
        ValueError: on the CPU, values that are no whole numbers, or pixels that have not one label.
    """
    if target.ndim == dimensions and target.shape[1] == num_labels:
        return _of_one_hot(target)
    if target.dtype in _AS_THEY_ARE:
        return target
    if not target.is_floating_point():
        return target.to(_WIDER.get(target.dtype, torch.int64))
    whole = (target == target.round()) & (target.abs() < _NO_LABEL)
    if ops.has_values(target) and not bool(whole.all()):
        wrong = dict.fromkeys(f"{value:.9g}" for value in target[~whole][:100].tolist())
        raise ValueError(
            f"{_NAME}: target must hold label values, which are whole numbers, got {', '.join([*wrong][:5])}: "
            f"transforms resample labels with mode='nearest'"
        )
    return torch.where(whole, target, 0).to(torch.int32).where(whole, _NO_LABEL)


def unmarked(target: Tensor, num_labels: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """A one-hot target without `MarkTargetd`'s marks; and `[N, L]` bool, what they say was annotated.

    Args:
        target: `[N, L, *spatial]`.
        num_labels: L.
        dimensions: of the logits.

    Raises:
        ValueError: no one-hot target, or, on the CPU, a channel that is marked in a part of its pixels.
    """
    if target.ndim != dimensions or target.shape[1] != num_labels:
        raise ValueError(
            f"{_NAME}: annotated_in='target' wants one-hot targets [N, {num_labels}, *spatial], got shape "
            f"{list(target.shape)}: MarkTargetd makes them, as the last of the transforms"
        )
    marks = target == UNANNOTATED
    some = marks.flatten(2).any(dim=2)
    if ops.has_values(target) and not torch.equal(some, marks.flatten(2).all(dim=2)):
        raise ValueError(
            f"{_NAME}: target must have {UNANNOTATED}, of a label that was not annotated, in all pixels of a channel "
            f"or in none, got both: MarkTargetd stands after what crops, pads or augments"
        )
    return target.masked_fill(marks, 0), ~some


def _of_one_hot(target: Tensor) -> Tensor:
    hot = target == 1
    valid = (hot.sum(dim=1) == 1) & (hot | (target == 0)).all(dim=1)
    if ops.has_values(target) and not bool(valid.all()):
        place = (~valid).nonzero()[0].tolist()
        values = target[(place[0], slice(None), *place[1:])].tolist()
        raise ValueError(
            f"{_NAME}: each pixel of a one-hot target [N, L, *spatial] must have one 1 and be 0 elsewhere, got "
            f"{values} at position {place}: overlapping regions and soft labels are no labels; the {UNANNOTATED} of "
            f"MarkTargetd is read with annotated_in='target'"
        )
    return torch.where(valid, hot.to(torch.uint8).argmax(dim=1), _NO_LABEL)
