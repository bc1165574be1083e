"""Argument checks that operators share. Each message names operator, argument, rule and the value received."""

from __future__ import annotations

from collections.abc import Sequence
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


def check_channels(operator: str, channels: int, table: Tensor, per_class: int, why: str) -> int:
    """As many channels as the table's classes ask for; returns K."""
    classes = table.shape[-1] if table.ndim == 3 else channels // per_class
    if channels != per_class * classes:
        times = "" if per_class == 1 else f"{per_class} x "
        raise ValueError(
            f"{operator}: logits must have {times}{classes} channels for tables of {classes} classes ({why}), "
            f"got {channels}"
        )
    return classes


def check_tables(operator: str, tables: dict[str, Tensor], samples: int, classes: int, logits: Tensor) -> None:
    """A rule's tables: `[N, L, K]` bool, of one shape, on the logits' device."""
    shapes = {argument: list(table.shape) for argument, table in tables.items()}
    for argument, table in tables.items():
        if table.dtype != torch.bool:
            raise TypeError(f"{operator}: {argument} must be bool, got {table.dtype}")
        if table.ndim != 3 or table.shape[0] != samples or table.shape[2] != classes:
            raise ValueError(
                f"{operator}: {argument} must be [N, L, K] = [{samples}, L, {classes}], got {list(table.shape)}"
            )
        check_device(operator, argument, table, logits)
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise ValueError(
            f"{operator}: {' and '.join(shapes)} must have one shape, got {' and '.join(map(str, shapes.values()))}"
        )


def check_weight(operator: str, argument: str, weight: Tensor, shape: Sequence[int], logits: Tensor) -> None:
    """Weights of a floating type and a given shape, finite and not negative."""
    if not weight.is_floating_point():
        raise TypeError(f"{operator}: {argument} must be of a floating type, got {weight.dtype}")
    if list(weight.shape) != list(shape):
        raise ValueError(f"{operator}: {argument} must have shape {list(shape)}, got {list(weight.shape)}")
    check_device(operator, argument, weight, logits)
    # Looking at values would make the host wait for an accelerator, and break a compiled graph.
    if weight.device.type == "cpu" and not torch.compiler.is_compiling():
        bad = weight[~(weight.isfinite() & (weight >= 0))]
        if bad.numel():
            raise ValueError(f"{operator}: {argument} must be finite and not negative, got {float(bad[0])}")


def check_reduction(operator: str, reduction: str) -> None:
    """One of the three words."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{operator}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def check_gamma(operator: str, gamma: float) -> None:
    """A focusing exponent, which the kernels take as float32."""
    if not 0 <= gamma <= torch.finfo(torch.float32).max:
        raise ValueError(f"{operator}: gamma must be finite and not negative, in float32 as well, got {gamma!r}")


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


def check_labels(operator: str, target: Tensor, num_labels: int, ignore_index: int) -> None:
    """Values 0 to L-1 or ignore_index, on any device; the host waits for it."""
    is_bad = ((target < 0) | (target >= num_labels)) & (target != ignore_index)
    flat = is_bad.flatten()
    if bool(flat.any()):
        raise_invalid_label(operator, target, int(flat.int().argmax()), num_labels, ignore_index)
