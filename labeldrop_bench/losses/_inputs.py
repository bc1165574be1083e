"""What a loss is called with, checked before anything is computed: each message says what to do.

That these are tensors on one device, `ops.check_tensors` has seen. Shapes are compared size by size and never made
ints: under a compiler or tracer they are symbols.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labeldrop_bench import ops


def fits(
    logits: Tensor,
    target: Tensor,
    annotated: Tensor | None,
    pixel_weight: Tensor | None,
    *,
    channels: int,
    labels: int,
) -> bool:
    """Whether types and shapes are in order, for tensors that `ops.is_direct` has seen."""
    shape, device = logits.shape, logits.get_device()  # -1 is the CPU
    if logits.dtype not in ops.FLOATS or target.dtype not in ops.INTEGERS or target.get_device() != device:
        return False
    if not 3 <= len(shape) <= 5 or shape[1] != channels or target.shape != (shape[0], *shape[2:]):
        return False
    if pixel_weight is not None and not (
        pixel_weight.is_floating_point() and pixel_weight.shape == target.shape and pixel_weight.get_device() == device
    ):
        return False
    return annotated is None or (
        annotated.dtype == torch.bool and annotated.shape == (shape[0], labels) and annotated.get_device() == device
    )


def check_logits(loss: str, logits: Tensor, channels: int, classes: int) -> None:
    """A float tensor `[N, channels, *spatial]`."""
    if not logits.is_floating_point():
        raise TypeError(f"{loss}: logits must be of a floating type, got {logits.dtype}")
    if not 3 <= logits.ndim <= 5:
        raise ValueError(
            f"{loss}: logits must be [N, {channels}, *spatial] with 1 to 3 spatial dimensions, got shape "
            f"{list(logits.shape)}: add the dimension that is missing, for a single image with logits.unsqueeze(0)"
        )
    if logits.shape[1] != channels:
        raise ValueError(
            f"{loss}: logits must have {channels} channels for {classes} classes, background counted, got "
            f"{logits.shape[1]}: the network's last layer needs out_channels=loss.out_channels"
        )


def check_target(loss: str, target: Tensor, logits: Tensor) -> Tensor:
    """An integer tensor `[N, *spatial]` or `[N, 1, *spatial]`; returns `[N, *spatial]`."""
    target = ops.squeeze_channel(logits, target)
    size = (logits.shape[0], *logits.shape[2:])
    if not _same(target.shape, size):
        raise ValueError(
            f"{loss}: target must be [N, *spatial] = {list(size)} to fit logits {list(logits.shape)}, got "
            f"{list(target.shape)}{_about_shape(target, logits, size)}"
        )
    if target.is_floating_point() or target.is_complex():
        raise TypeError(
            f"{loss}: target must hold label values in an integer type, got {target.dtype}: images that were read as "
            f"floats, as MONAI does, become label values with target.long()"
        )
    if target.dtype == torch.bool:
        raise TypeError(f"{loss}: target must hold label values, got torch.bool: use target.to(torch.uint8)")
    return target


def check_annotated(loss: str, annotated: Tensor, logits: Tensor, labels: int) -> None:
    """A bool tensor `[N, L]` whose column 0 is true."""
    size = (logits.shape[0], labels)
    if annotated.dtype != torch.bool or not _same(annotated.shape, size):
        raise ValueError(
            f"{loss}: annotated must be bool [N, L] = {list(size)}, got {annotated.dtype} with shape "
            f"{list(annotated.shape)}{_about_annotated(annotated, size)}"
        )
    check_background(loss, annotated)


def check_background(loss: str, annotated: Tensor) -> None:
    """Column 0 true; on other devices than the CPU it is taken at its word."""
    if ops.has_values(annotated) and not bool(annotated[:, 0].all()):
        sample = int((~annotated[:, 0]).nonzero()[0])
        raise ValueError(f"{loss}: annotated[:, 0] is background's and must be True, got False in sample {sample}")


def check_pixel_weight(loss: str, weight: Tensor, logits: Tensor) -> Tensor:
    """A float tensor `[N, *spatial]` or `[N, 1, *spatial]`; returns `[N, *spatial]`. Operators look at its values."""
    weight = ops.squeeze_channel(logits, weight)
    size = (logits.shape[0], *logits.shape[2:])
    if not _same(weight.shape, size):
        raise ValueError(
            f"{loss}: pixel_weight must be [N, *spatial] = {list(size)}, got {list(weight.shape)}: a weight for each "
            f"pixel; for one for each class there is class_weights"
        )
    if not weight.is_floating_point():
        raise TypeError(f"{loss}: pixel_weight must be of a floating type, got {weight.dtype}: use weight.float()")
    return weight


def _about_shape(target: Tensor, logits: Tensor, size: Sequence[int]) -> str:
    """What may have gone wrong with a target's shape."""
    if target.ndim == logits.ndim and _same(target.shape[2:], size[1:]):
        return f": if these are {target.shape[1]} one-hot channels, use target.argmax(dim=1)"
    if target.ndim == logits.ndim and _same(target.shape[:-1], size):
        return ": if the last dimension is one-hot, use target.argmax(dim=-1)"
    if target.ndim == len(size) and target.shape[0] == size[0]:
        return ": bring both to one size; targets are resized with mode='nearest'"
    if _same(target.shape, size[1:]):
        return ": add the batch's dimension with target.unsqueeze(0)"
    return ""


def _about_annotated(annotated: Tensor, size: Sequence[int]) -> str:
    if _same(annotated.shape, size):
        return ": use annotated.bool()"
    if _same(annotated.shape, size[1:]):
        return ": a row for each sample, for example annotated.expand(len(target), -1)"
    if annotated.ndim == 3 and annotated.shape[1] == 1 and _same(annotated.shape[::2], size):
        return ": use annotated.squeeze(1)"
    return ""


def _same(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(a == b for a, b in zip(shape, expected, strict=True))
