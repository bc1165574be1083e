"""Sigmoid focal loss, and binary cross-entropy: the sigmoid family's likelihood for any rule."""

from __future__ import annotations

from torch import Tensor

from . import _checks
from ._pixel_operator import PixelOperator

_NAME = "sigmoid_focal"


def _parameters(gamma: float, alpha: float | None) -> tuple[float, ...]:
    _checks.check_gamma(_NAME, gamma)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"{_NAME}: alpha must be None or in [0, 1], got {alpha!r}")
    return float(gamma), -1.0 if alpha is None else float(alpha)


_OPERATOR = PixelOperator(_NAME, _parameters)


def sigmoid_focal(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    gamma: float = 0.0,
    alpha: float | None = None,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Focal loss of every active class by itself, summed over a pixel's classes; with gamma 0 binary cross-entropy.

    With p = sigmoid(z) and natural logarithms, a class's term is `-alpha (1 - p)^gamma log p` where it is a candidate
    and `-(1 - alpha) p^gamma log(1 - p)` where it is active and no candidate; both factors are 1 for alpha None. Its
    gradient is `alpha (1 - p)^gamma (gamma p log p - (1 - p))`, for the second with p and 1 - p exchanged and the sign
    turned; exactly 0 for classes that are not active.

    Arithmetic and result are float32 for half types. The loss does not depend on the number of threads. A logit of an
    active class that is NaN or infinite gives a NaN loss; logits of inactive classes and ignored pixels are never
    looked at.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equations 4 and 5; which classes are active and
    what they are, the table says.

    Args:
        logits: `[N, K, *spatial]` float32, bfloat16, float16 or float64, 1 to 3 spatial dimensions; contiguous and
            channels-last are read as they are, other layouts are copied to contiguous first. K is the number of the
            tables' columns: there is no background channel.
        target: `[N, *spatial]` uint8, int16, int32 or int64 label values.
        candidates: `[N, L, K]` bool; where `active` is false it does not matter.
        active: `[N, L, K]` bool.
        gamma: focusing exponent, not negative and finite as float32. 0 and 2 are the fastest.
        alpha: factor of candidates, in [0, 1]; that of the other classes is 1 - alpha. None: both are 1.
        class_weight: `[K]` weight of a class's terms, finite and not negative. Not part of the mean's divisor.
        pixel_weight: `[N, *spatial]` weight of each pixel; a pixel of weight 0 counts for nothing, like an ignored one.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean", the weighted mean over the pixels that count (0 with zero gradient if there are none or their
            weights add up to 0); "sum"; or "none".

    Returns:
        Scalar, or `[N, *spatial]` for "none"; float32 (float64 for float64 logits).

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit, unknown reduction, gamma or alpha out of range; on the CPU, a
            target value that is neither 0 to L-1 nor ignore_index (on CUDA, where looking would make the host wait, it
            makes the loss NaN), or a weight that is negative or not finite.
        RuntimeError: no kernel is built for the device; second and forward-mode derivatives; vmap and torch.func.
    """
    return _OPERATOR(
        logits,
        target,
        candidates,
        active,
        options={"gamma": gamma, "alpha": alpha},
        class_weight=class_weight,
        pixel_weight=pixel_weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )
