"""Set cross-entropy: the softmax family's likelihood for any rule."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _checks, _native

_NAME = "set_cross_entropy"


def set_cross_entropy(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-probability that a pixel's class is one of its candidates, among the active classes.

    `loss = logsumexp over active z - logsumexp over candidates z`, with the pixel's row of the tables; its gradient is
    `softmax over active - softmax over candidates`, exactly 0 for classes that are not active. With every label
    annotated this is `torch.nn.functional.cross_entropy`; with the marginal rule Shi et al. 2021's marginal loss.

    Arithmetic and result are float32 for half types. The loss does not depend on the number of threads. A NaN or +inf
    logit of an active class gives a NaN loss; logits of inactive classes and ignored pixels are never looked at.

    Args:
        logits: `[N, K, *spatial]` float32, bfloat16, float16 or float64, 1 to 3 spatial dimensions; contiguous and
            channels-last are read as they are, other layouts are copied to contiguous first.
        target: `[N, *spatial]` uint8, int16, int32 or int64 label values.
        candidates: `[N, L, K]` bool, at least one true in each row, only where `active` is.
        active: `[N, L, K]` bool.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean" over the pixels that count (0 with zero gradient if there are none), "sum", or "none".

    Returns:
        Scalar, or `[N, *spatial]` for "none"; float32 (float64 for float64 logits).

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit, unknown reduction; on the CPU, a target value that is neither
            0 to L-1 nor ignore_index.
        RuntimeError: no kernel is built for the device; second derivatives; vmap.
    """
    _checks.check_images(_NAME, logits, target)
    _checks.check_reduction(_NAME, reduction)
    samples, classes = logits.shape[:2]
    for argument, table in (("candidates", candidates), ("active", active)):
        _checks.check_table(_NAME, argument, table, samples, classes)
        _checks.check_device(_NAME, argument, table, logits)
    if candidates.shape != active.shape:
        raise ValueError(
            f"{_NAME}: candidates and active must have one shape, got {list(candidates.shape)} and {list(active.shape)}"
        )
    loss: Tensor = _forward(
        logits, target, _pack(candidates), _pack(active), ignore_index, reduction, _wants_gradient(logits)
    )[0]
    return loss


def _wants_gradient(logits: Tensor) -> bool:
    """Whether the forward pass should form the gradient as well, for an upstream gradient of 1.

    It then reads the logits once instead of twice. Not in float16, where the gradient of a mean would underflow before
    the upstream scale enters, and not in a compiled graph, which cannot ask for the upstream's value.
    """
    needed = logits.requires_grad and torch.is_grad_enabled()
    return needed and logits.dtype != torch.float16 and not torch.compiler.is_compiling()


def _pack(table: Tensor) -> Tensor:
    """`[N, L, K]` bool to `[N, L, W]` int32 words, W = ceil(K / 32); class k is bit k % 32 of word k // 32."""
    classes = table.shape[-1]
    bits = F.pad(table, (0, -classes % 32)).unflatten(-1, (-1, 32))
    weights = torch.ones(32, dtype=torch.int64, device=table.device) << torch.arange(32, device=table.device)
    words: Tensor = (bits * weights).sum(dim=-1)
    return words.to(torch.int32)


def _readable(logits: Tensor) -> tuple[Tensor, bool]:
    """The logits in a layout that the kernel reads, and whether that is channels-last."""
    if logits.is_contiguous():
        return logits, False
    if logits.movedim(1, -1).is_contiguous():
        return logits, True
    return logits.contiguous(), False


def _accumulation_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _launch(
    logits: Tensor,
    target: Tensor,
    tables: tuple[Tensor, Tensor],
    ignore_index: int,
    *,
    loss: Tensor | None = None,
    gradient: Tensor | None = None,
    upstream: Tensor | None = None,
    scale: float = 1.0,
) -> tuple[float, int]:
    """Run the CPU kernel on logits in a layout that it reads; returns the sum of the loss and the pixels that count."""
    target = target.contiguous()
    num_labels = tables[0].shape[1]
    total, count, invalid = _native.module(logits.device, _NAME).set_cross_entropy(
        logits=logits.data_ptr(),
        logits_type=_native.FLOATS[logits.dtype],
        target=target.data_ptr(),
        target_type=_native.INTEGERS[target.dtype],
        candidates=tables[0].data_ptr(),
        active=tables[1].data_ptr(),
        samples=logits.shape[0],
        classes=logits.shape[1],
        pixels=logits.shape[2:].numel(),
        labels=num_labels,
        channels_last=_readable(logits)[1],
        ignore_index=ignore_index,
        loss=loss.data_ptr() if loss is not None else 0,
        gradient=gradient.data_ptr() if gradient is not None else 0,
        upstream=upstream.data_ptr() if upstream is not None else 0,
        scale=scale,
        threads=torch.get_num_threads(),
    )
    if invalid >= 0:
        _checks.raise_invalid_label(_NAME, target, invalid, num_labels, ignore_index)
    return total, count


def _count_pixels(target: Tensor, ignore_index: int) -> int:
    target = target.contiguous()
    count: int = _native.module(target.device, _NAME).count_pixels(
        target=target.data_ptr(),
        type=_native.INTEGERS[target.dtype],
        size=target.numel(),
        ignore_index=ignore_index,
        threads=torch.get_num_threads(),
    )
    return count


# Outputs: the reduced loss; [] int64, the pixels that count; the gradient for an upstream of 1, or an empty tensor.
@torch.library.custom_op("labeldrop::set_cross_entropy", mutates_args=())
def _forward(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    ignore_index: int,
    reduction: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    logits = _readable(logits)[0]
    accumulation = _accumulation_dtype(logits)
    loss = torch.empty(target.shape, dtype=accumulation) if reduction == "none" else None
    gradient = torch.empty_like(logits) if with_gradient and reduction != "none" else logits.new_empty(0)
    divisor = max(_count_pixels(target, ignore_index), 1) if reduction == "mean" and gradient.numel() else 1
    total, count = _launch(
        logits,
        target,
        (candidates.contiguous(), active.contiguous()),
        ignore_index,
        loss=loss,
        gradient=gradient if gradient.numel() else None,
        scale=1 / divisor,
    )
    if loss is None:
        loss = torch.tensor(total / max(count, 1) if reduction == "mean" else total, dtype=accumulation)
    return loss, torch.tensor(count), gradient


@_forward.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    ignore_index: int,
    reduction: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    logits = _readable(logits)[0]
    loss = logits.new_empty(target.shape if reduction == "none" else (), dtype=_accumulation_dtype(logits))
    gradient = torch.empty_like(logits) if with_gradient and reduction != "none" else logits.new_empty(0)
    return loss, logits.new_empty((), dtype=torch.int64), gradient


# upstream: [] (any reduction's factor of all pixels) or [N, *spatial]
@torch.library.custom_op("labeldrop::set_cross_entropy_backward", mutates_args=())
def _backward(
    upstream: Tensor, logits: Tensor, target: Tensor, candidates: Tensor, active: Tensor, ignore_index: int
) -> Tensor:
    logits = _readable(logits)[0]
    gradient = torch.empty_like(logits)
    per_pixel = upstream.ndim > 0
    _launch(
        logits,
        target,
        (candidates.contiguous(), active.contiguous()),
        ignore_index,
        gradient=gradient,
        upstream=upstream.to(_accumulation_dtype(logits)).contiguous() if per_pixel else None,
        scale=1.0 if per_pixel else float(upstream),
    )
    return gradient


@_backward.register_fake
def _(
    upstream: Tensor, logits: Tensor, target: Tensor, candidates: Tensor, active: Tensor, ignore_index: int
) -> Tensor:
    return torch.empty_like(_readable(logits)[0])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's
    *tensors, ctx.ignore_index, ctx.reduction, _ = inputs
    _, count, gradient = output
    ctx.mark_non_differentiable(count, gradient)
    ctx.set_materialize_grads(False)  # no logits-sized zeros for the outputs that nobody differentiates
    ctx.save_for_backward(*tensors, count, gradient)


def _apply_backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
    *tensors, count, gradient = ctx.saved_tensors
    nothing = (None,) * 6
    if upstream is None:
        return None, *nothing
    # With create_graph the gradient has to have a history, if only for a second derivative to be refused; while a graph
    # is traced (a subclass of Tensor) there is no value to look at.
    if gradient.numel() and not torch.is_grad_enabled() and type(upstream) is Tensor and upstream == 1:
        return gradient, *nothing
    scale = upstream / count.clamp(min=1) if ctx.reduction == "mean" else upstream
    return _backward(scale, *tensors, ctx.ignore_index), *nothing


def _refuse_second_derivative(ctx: Any, *_: Tensor) -> NoReturn:  # noqa: ANN401 - torch's
    raise RuntimeError(f"{_NAME}: second derivatives are not implemented; use backend='reference' for them")


def _refuse_vmap(*_: Any) -> NoReturn:  # noqa: ANN401 - torch's
    raise RuntimeError(
        f"{_NAME}: vmap is not implemented; make the mapped dimension part of N, or use backend='reference'"
    )


_forward.register_autograd(_apply_backward, setup_context=_setup_context)
_backward.register_autograd(_refuse_second_derivative)
_forward.register_vmap(_refuse_vmap)
_backward.register_vmap(_refuse_vmap)
