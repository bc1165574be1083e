"""The sums of soft Dice losses, and set cross-entropy in the same passes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..results import DiceSums
from ..sets import Set, Sets
from . import _checks
from ._dice_operator import NAME as _NAME
from ._dice_operator import DiceInputs, compute
from ._direct import is_direct
from ._pixel_kernel import accumulation_dtype
from ._tables import pack_tables


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
    words = pack_dice_tables(positive, counted, active, merged, candidates)
    inputs = dice_inputs(
        logits,
        target,
        words,
        pixel_weight=pixel_weight,
        squared=squared,
        activation=activation,
        ignore_index=ignore_index,
    )
    return sums_of(inputs, words.positive, direct=is_direct(*inputs[:5]))


class DiceWords(NamedTuple):
    """Packed tables."""

    tables: Tensor  # [N, L, T, W] words: active, counted, positive and, if T = 4, candidates
    merged: Tensor  # [N, W] words
    positive: Tensor  # [N, L, K] bool


def pack_dice_tables(
    positive: Tensor, counted: Tensor, active: Tensor, merged: Tensor, candidates: Tensor | None
) -> DiceWords:
    """The tables of `dice_sums` as the kernels read them."""
    first = torch.arange(active.shape[2], device=active.device) == 0
    rows, merged, positive = dice_rows(Sets, positive, counted, active, merged.unsqueeze(1), candidates, first)
    return DiceWords(pack_tables(_NAME, *rows), pack_tables(_NAME, merged).flatten(1), positive)


def dice_rows(
    sets: type[Sets],
    positive: Set,
    counted: Set,
    active: Set,
    merged: Set,
    candidates: Set | None,
    first: Set,
) -> tuple[list[Set], Set, Set]:
    """The kernel's tables; merged classes, never the first one; what is positive and counted."""
    merged = merged & ~first
    counted = counted & ~merged
    positive = positive & counted
    # The kernel reads probabilities only where they can be other than 0, so that nothing else there matters.
    reached = active | (first & sets.occupied(active & merged))
    rows = [active, counted & reached, positive & reached] + ([] if candidates is None else [candidates & active])
    return rows, merged, positive


def dice_inputs(
    logits: Tensor,
    target: Tensor,
    words: DiceWords,
    *,
    pixel_weight: Tensor | None,
    squared: bool,
    activation: str,
    ignore_index: int,
) -> DiceInputs:
    """What the kernels read, from arguments of which all but the pixels' weights is known to be right."""
    if pixel_weight is not None:
        _checks.check_images(_NAME, logits, target)
        _checks.check_weight(_NAME, "pixel_weight", pixel_weight, target.shape)
        pixel_weight = pixel_weight.detach().to(accumulation_dtype(logits))
    index = _checks.integer(_NAME, "ignore_index", ignore_index)
    return DiceInputs(logits, target, words.tables, words.merged, pixel_weight, activation == "sigmoid", squared, index)


def sums_of(inputs: DiceInputs, positive: Tensor, *, direct: bool) -> DiceSums:
    """The sums from packed tables."""
    intersection, prediction, label_weight, cross_entropy = compute(inputs, direct=direct)
    truth = (positive * label_weight.unsqueeze(-1)).sum(dim=1)  # [N, K]
    return DiceSums(intersection, prediction, truth.to(intersection.dtype), cross_entropy)


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
    if merged.dtype != torch.bool:
        raise TypeError(f"{_NAME}: merged must be bool, got {merged.dtype}")
    if list(merged.shape) != [samples, classes]:
        raise ValueError(f"{_NAME}: merged must be [N, K] = {[samples, classes]}, got {list(merged.shape)}")
