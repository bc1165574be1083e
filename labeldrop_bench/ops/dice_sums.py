"""The sums of soft Dice losses, and set cross-entropy in the same passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..results import DiceSums
from . import _checks, _native
from ._operator import register, register_backward
from ._pixel_loss import accumulation_dtype, readable
from ._tables import pack, pack_tables

_NAME = "dice_sums"


def dice_sums(
    logits: Tensor,
    target: Tensor,
    positive: Tensor,
    counted: Tensor,
    active: Tensor,
    merged: Tensor,
    *,
    candidates: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    squared: bool = False,
    activation: str = "softmax",
    ignore_index: int = -100,
) -> DiceSums:
    """What soft Dice losses are made of, with one read of the logits forward, one read and one write backward.

    p is the softmax over a pixel's active classes, or the sigmoid of an active class, and 0 for the others. The
    probability of merged classes goes to class 0: `q_0 = p_0 + sum of p_m`, `q_k = p_k` for the others. Over the pixels
    that are not ignored, with a pixel's row of the tables and its weight w, 1 without any::

        intersection[n, k] = sum of w q_k where positive and counted
        prediction[n, k]   = sum of w q_k (squared: w q_k^2) where counted
        truth[n, k]        = sum of w where positive and counted

    so that a class's soft Dice loss is `1 - (2 intersection + e) / (prediction + truth + e)` (Milletari et al. 2016,
    with the squares; merged classes are the marginal Dice loss of Shi et al. 2021).

    Arithmetic is in float32 for half types, sums over pixels in float64. They do not depend on the number of threads.
    Logits of inactive classes, and of pixels that are ignored or of weight 0, are never looked at: their gradient is
    exactly 0. A NaN logit of an
    active class gives NaN sums for all classes of that pixel that count.

    Args:
        logits: `[N, K, *spatial]` float32, bfloat16, float16 or float64, 1 to 3 spatial dimensions; contiguous and
            channels-last are read as they are, other layouts are copied to contiguous first.
        target: `[N, *spatial]` uint8, int16, int32 or int64 label values.
        positive: `[N, L, K]` bool, a pixel with the label is of the class.
        counted: `[N, L, K]` bool, a pixel with the label takes part in the sums of the class.
        active: `[N, L, K]` bool, the class takes part in the label's probabilities.
        merged: `[N, K]` bool, classes that are taken for class 0. They are not counted themselves; class 0's own entry
            means nothing.
        candidates: `[N, L, K]` bool as for `set_cross_entropy`, to have that loss of the same logits for little more
            than the sums alone; only with softmax.
        pixel_weight: `[N, *spatial]` weights, of a floating type, finite and not negative; a pixel of weight 0 counts
            for nothing. They get no gradient.
        squared: predictions add up q^2.
        activation: "softmax" or "sigmoid".
        ignore_index: target value of pixels that count for nothing.

    Returns:
        intersection, prediction and truth `[N, K]`, and cross_entropy `[]`: the weighted mean of `set_cross_entropy`
        over the pixels that are not ignored (0 if there are none), or 0 without candidates; float32 (float64 for
        float64 logits).

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit, unknown activation, candidates with sigmoid; on the CPU, a target
            value that is neither 0 to L-1 nor ignore_index (on CUDA it makes the sums of its sample NaN).
        RuntimeError: no kernel is built for the device; second and forward-mode derivatives; vmap and torch.func.
    """
    tables = {"active": active, "counted": counted, "positive": positive}
    if candidates is not None:
        tables["candidates"] = candidates
    _check(logits, target, tables, merged, pixel_weight, activation)
    merged = torch.cat([torch.zeros_like(merged[:, :1]), merged[:, 1:]], dim=1)
    counted = counted & ~merged.unsqueeze(1)
    positive = positive & counted
    # The kernel reads probabilities only where they can be other than 0, so that nothing else there matters.
    background = active[..., :1] | (active & merged.unsqueeze(1)).any(dim=-1, keepdim=True)
    reached = torch.cat([background, active[..., 1:]], dim=-1)  # [N, L, K]
    rows = [active, counted & reached, positive & reached] + ([] if candidates is None else [candidates & active])
    intersection, prediction, label_weight, cross_entropy = _forward(
        logits,
        target,
        pack_tables(*rows),
        pack(merged),
        None if pixel_weight is None else pixel_weight.detach().to(accumulation_dtype(logits)),
        activation == "sigmoid",
        squared,
        _checks.integer(_NAME, "ignore_index", ignore_index),
    )
    truth = torch.where(positive, label_weight.unsqueeze(-1), 0).sum(dim=1).to(intersection.dtype)
    return DiceSums(intersection, prediction, truth, cross_entropy)


def _check(
    logits: Tensor,
    target: Tensor,
    tables: dict[str, Tensor],
    merged: Tensor,
    pixel_weight: Tensor | None,
    activation: str,
) -> None:
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f"{_NAME}: activation must be 'softmax' or 'sigmoid', got {activation!r}")
    tensors = {"logits": logits, "target": target, **tables, "merged": merged}
    _checks.check_tensors(_NAME, tensors, {"pixel_weight": pixel_weight})
    _checks.refuse_transforms(_NAME, {**tensors, "pixel_weight": pixel_weight})
    if "candidates" in tables and activation != "softmax":
        raise ValueError(
            f"{_NAME}: candidates, for the softmax's cross-entropy, need activation='softmax', got {activation!r}; "
            f"use a sigmoid loss in its place"
        )
    _checks.check_images(_NAME, logits, target)
    samples, channels = logits.shape[:2]
    classes = _checks.check_channels(_NAME, channels, tables["positive"], 1, "one logit for each class")
    _checks.check_tables(_NAME, tables, samples, classes)
    if pixel_weight is not None:
        _checks.check_weight(_NAME, "pixel_weight", pixel_weight, target.shape)
    if merged.dtype != torch.bool:
        raise TypeError(f"{_NAME}: merged must be bool, got {merged.dtype}")
    if list(merged.shape) != [samples, classes]:
        raise ValueError(f"{_NAME}: merged must be [N, K] = {[samples, classes]}, got {list(merged.shape)}")


class _Inputs(NamedTuple):
    """The arguments of the registered operators."""

    logits: Tensor  # [N, K, *spatial]
    target: Tensor  # [N, *spatial]
    tables: Tensor  # [N, L, T, W] words: active, counted, positive and, if T = 4, candidates
    merged: Tensor  # [N, W] words
    pixel_weight: Tensor | None  # [N, *spatial] of accumulation_dtype
    sigmoid: bool
    squared: bool
    ignore_index: int

    def contiguous(self) -> _Inputs:
        """As the kernels read them."""
        return self._replace(
            logits=readable(self.logits),
            target=self.target.contiguous(),
            tables=self.tables.contiguous(),
            merged=self.merged.contiguous(),
            pixel_weight=None if self.pixel_weight is None else self.pixel_weight.contiguous(),
        )

    def launch(self, kernel: str, **pointers: int) -> None:
        """Run a kernel on contiguous inputs."""
        logits, target = self.logits, self.target
        native = _native.module(logits.device, _NAME)
        arguments = dict(
            logits=logits.data_ptr(),
            logits_type=_native.FLOATS[logits.dtype],
            channels_last=not logits.is_contiguous(),
            target=target.data_ptr(),
            target_type=_native.INTEGERS[target.dtype],
            tables=self.tables.data_ptr(),
            merged=self.merged.data_ptr(),
            pixel_weight=_native.pointer(self.pixel_weight),
            samples=logits.shape[0],
            channels=logits.shape[1],
            pixels=logits.shape[2:].numel(),
            labels=self.tables.shape[1],
            ignore_index=self.ignore_index,
            sigmoid=self.sigmoid,
            squared=self.squared,
            with_cross_entropy=self.tables.shape[2] == 4,
        )
        if _native.is_cuda(logits):
            with _native.on_device(logits):
                getattr(native, kernel)(**arguments, **pointers, stream=_native.stream(logits))
            return
        invalid = getattr(native, kernel)(**arguments, **pointers, threads=torch.get_num_threads())
        if invalid >= 0:
            _checks.raise_invalid_label(_NAME, target, invalid, self.tables.shape[1], self.ignore_index)


def _kernel(
    logits: Tensor,
    target: Tensor,
    tables: Tensor,
    merged: Tensor,
    pixel_weight: Tensor | None,
    sigmoid: bool,
    squared: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = _Inputs(logits, target, tables, merged, pixel_weight, sigmoid, squared, ignore_index).contiguous()
    samples, classes = logits.shape[:2]
    sums = torch.empty(2, samples, classes, dtype=torch.double, device=logits.device)
    label_weight = torch.empty(samples, tables.shape[1], dtype=torch.double, device=logits.device)
    cross_entropy = torch.empty(samples, dtype=torch.double, device=logits.device)
    pointers = dict(
        intersection=sums[0].data_ptr(),
        prediction=sums[1].data_ptr(),
        label_weight=label_weight.data_ptr(),
        cross_entropy=cross_entropy.data_ptr(),
    )
    if _native.is_cuda(logits):
        native = _native.module(logits.device, _NAME)
        size = native.dice_sums_partials(samples, classes, tables.shape[1], logits.shape[2:].numel())
        partials = torch.empty(size, dtype=torch.double, device=logits.device)
        pointers["partials"] = partials.data_ptr()
    inputs.launch(_NAME, **pointers)
    sums = sums.to(accumulation_dtype(logits))
    mean = cross_entropy.sum() / _divisor(label_weight)
    return sums[0].clone(), sums[1].clone(), label_weight, mean.to(sums.dtype)


def _divisor(label_weight: Tensor) -> Tensor:
    """Of the mean cross-entropy: the weights of all pixels that count; 1 if they add up to 0."""
    total = label_weight.sum()
    return total.where(total != 0, 1)


def _fake(
    logits: Tensor,
    target: Tensor,
    tables: Tensor,
    merged: Tensor,
    pixel_weight: Tensor | None,
    sigmoid: bool,
    squared: bool,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    accumulation = accumulation_dtype(logits)
    sums = [logits.new_empty(logits.shape[:2], dtype=accumulation) for _ in range(2)]
    label_weight = logits.new_empty(tables.shape[:2], dtype=torch.double)
    return sums[0], sums[1], label_weight, logits.new_empty((), dtype=accumulation)


def _backward_kernel(
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    upstream_cross_entropy: Tensor,
    logits: Tensor,
    target: Tensor,
    tables: Tensor,
    merged: Tensor,
    pixel_weight: Tensor | None,
    sigmoid: bool,
    squared: bool,
    ignore_index: int,
) -> Tensor:
    inputs = _Inputs(logits, target, tables, merged, pixel_weight, sigmoid, squared, ignore_index).contiguous()
    gradient = torch.empty_like(inputs.logits)
    accumulation = accumulation_dtype(logits)
    upstream = [each.to(accumulation).contiguous() for each in (upstream_intersection, upstream_prediction)]
    of_cross_entropy = upstream_cross_entropy.double()
    inputs.launch(
        f"{_NAME}_backward",
        upstream_intersection=upstream[0].data_ptr(),
        upstream_prediction=upstream[1].data_ptr(),
        upstream_cross_entropy=of_cross_entropy.data_ptr(),
        gradient=gradient.data_ptr(),
    )
    return gradient


def _backward_fake(
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    upstream_cross_entropy: Tensor,
    logits: Tensor,
    *_: object,
) -> Tensor:
    return torch.empty_like(readable(logits))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's
    *tensors, ctx.sigmoid, ctx.squared, ctx.ignore_index = inputs
    label_weight = output[2]
    ctx.mark_non_differentiable(label_weight)
    ctx.save_for_backward(*tensors, label_weight)


def _apply_backward(
    ctx: Any,  # noqa: ANN401 - torch's
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    _: Tensor,
    upstream_cross_entropy: Tensor,
) -> tuple[Tensor | None, ...]:
    *tensors, label_weight = ctx.saved_tensors
    upstream = (upstream_intersection, upstream_prediction, upstream_cross_entropy / _divisor(label_weight))
    return _backward(*upstream, *tensors, ctx.sigmoid, ctx.squared, ctx.ignore_index), *(None,) * 7


_INPUTS = (
    "Tensor logits, Tensor target, Tensor tables, Tensor merged, Tensor? pixel_weight, bool sigmoid, bool squared, "
    "int ignore_index"
)
# Outputs: intersection, prediction [N, K]; float64 weight of the pixels with a label [N, L]; mean cross-entropy [].
_forward = register(
    _NAME,
    f"({_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
    setup_context=_setup_context,
    backward=_apply_backward,
)
# The upstream gradients are those of the first two outputs, and of the sum of the cross-entropy.
_backward = register_backward(
    _NAME,
    f"(Tensor upstream_intersection, Tensor upstream_prediction, Tensor upstream_cross_entropy, {_INPUTS}) -> Tensor",
    _backward_kernel,
    _backward_fake,
)
