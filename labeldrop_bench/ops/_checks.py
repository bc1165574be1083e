"""Argument checks that operators share. Each message names operator, argument, rule and the value received."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ._native import FLOATS, INTEGERS


def squeeze_channel(logits: Tensor, target: Tensor) -> Tensor:
    """`[N, 1, *spatial]` targets, MONAI's habit, as `[N, *spatial]`."""
    return target.squeeze(1) if target.ndim == logits.ndim and target.shape[1] == 1 else target


def check_images(operator: str, logits: Tensor, target: Tensor) -> None:
    """Logits `[N, K, *spatial]` of a float type and target `[N, *spatial]` of an integer type, on one device."""
    if logits.dtype not in FLOATS:
        raise TypeError(f"{operator}: logits must be one of {_names(FLOATS)}, got {logits.dtype}")
    if not 3 <= logits.ndim <= 5:
        raise ValueError(
            f"{operator}: logits must be [N, K, *spatial] with 1 to 3 spatial dimensions, "
            f"got shape {list(logits.shape)}"
        )
    check_target(operator, target)
    expected = [logits.shape[0], *logits.shape[2:]]
    if list(target.shape) != expected:
        raise ValueError(
            f"{operator}: target must be [N, *spatial] = {expected} to fit logits {list(logits.shape)}, "
            f"got {list(target.shape)}"
        )
    check_device(operator, "target", target, logits)


def check_target(operator: str, target: Tensor) -> None:
    """An integer type that the kernels read."""
    if target.dtype not in INTEGERS:
        raise TypeError(f"{operator}: target must be one of {_names(INTEGERS)}, got {target.dtype}")


def check_device(operator: str, argument: str, tensor: Tensor, logits: Tensor) -> None:
    """On the device of the first argument."""
    if tensor.device != logits.device:
        raise ValueError(
            f"{operator}: {argument} must be on the same device as the first argument, {logits.device}, "
            f"got {tensor.device}"
        )


def check_table(operator: str, argument: str, table: Tensor, samples: int, classes: int) -> None:
    """A rule's table: `[N, L, K]` bool."""
    if table.dtype != torch.bool:
        raise TypeError(f"{operator}: {argument} must be bool, got {table.dtype}")
    if table.ndim != 3 or table.shape[0] != samples or table.shape[2] != classes:
        raise ValueError(
            f"{operator}: {argument} must be [N, L, K] = [{samples}, L, {classes}], got {list(table.shape)}"
        )


def check_reduction(operator: str, reduction: str) -> None:
    """One of the three words."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{operator}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def raise_invalid_label(operator: str, target: Tensor, flat_index: int, num_labels: int, ignore_index: int) -> NoReturn:
    """A pixel of a CPU target that is neither a label value nor ignore_index, named with its position."""
    position: list[int] = []
    rest = flat_index
    for size in reversed(target.shape):
        rest, index = divmod(rest, size)
        position.insert(0, index)
    raise ValueError(
        f"{operator}: target values must be label values 0 to {num_labels - 1} or ignore_index = {ignore_index}, "
        f"got {int(target.flatten()[flat_index])} at position {position}"
    )


def _names(dtypes: dict[torch.dtype, int]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
