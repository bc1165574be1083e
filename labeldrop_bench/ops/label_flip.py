"""Label-flip loss: a second channel per class says how probable it is that the label is wrong."""

from __future__ import annotations

from torch import Tensor

from . import _checks
from ._pixel_operator import PixelOperator

_NAME = "label_flip"


def _parameters(gamma: float, detach_target: bool) -> tuple[float, ...]:
    _checks.check_gamma(_NAME, gamma)
    return float(gamma), float(detach_target)


_OPERATOR = PixelOperator(_NAME, _parameters, 2, "first all class logits z, then all flip logits f")


def label_flip(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    gamma: float = 0.0,
    detach_target: bool = False,
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Label-flip loss of every active class by itself, summed over a pixel's classes.

    With p = sigmoid(z), the flip probability q = sigmoid(f) / 2, x = 1 for candidates and 0 for the other active
    classes, and d = 1 where the prediction p > 1/2 (that is, z > 0) disagrees with x, which is taken as a constant, a
    class's term is

        l(p, t) + l(q, d),  t = (1 - x) q + x (1 - q)
        l(p, t) = -t (1 - p)^gamma log p - (1 - t) p^gamma log(1 - p)

    with natural logarithms. The gradient flows through the soft target t into f as well, unless it is detached; it is
    exactly 0 for classes that are not active. As f goes to -infinity, q goes to 0 and the first part to sigmoid_focal's
    term; the second to 0 where prediction and label agree, and else to -log q, without bound.

    Arithmetic and result are float32 for half types. The loss does not depend on the number of threads. A channel of an
    active class that is NaN or infinite gives a NaN loss; those of inactive classes and ignored pixels are never looked
    at.

    Source: McKinley et al. 2019, where gamma is 2; which classes are active and what they are, the table says.

    Args:
        logits: `[N, 2K, *spatial]` float32, bfloat16, float16 or float64, 1 to 3 spatial dimensions; the first K
            channels are z, the last K are f. Contiguous and channels-last are read as they are, other layouts are
            copied to contiguous first. K is the number of the tables' columns: there is no background channel.
        target: `[N, *spatial]` uint8, int16, int32 or int64 label values.
        candidates: `[N, L, K]` bool; where `active` is false it does not matter.
        active: `[N, L, K]` bool.
        gamma: focusing exponent, not negative and finite as float32. 0 and 2 are the fastest.
        detach_target: take t as a constant too.
        class_weight: `[K]` weight of a class's terms, finite and not negative. Not part of the mean's divisor.
        pixel_weight: `[N, *spatial]` weight of each pixel; a pixel of weight 0 counts for nothing, like an ignored one.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean", the weighted mean over the pixels that count (0 with zero gradient if there are none or their
            weights add up to 0); "sum"; or "none".

    Returns:
        Scalar, or `[N, *spatial]` for "none"; float32 (float64 for float64 logits).

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit, unknown reduction, gamma out of range; on the CPU, a target value
            that is neither 0 to L-1 nor ignore_index (on CUDA, where looking would make the host wait, it makes the
            loss NaN), or a weight that is negative or not finite.
        RuntimeError: no kernel is built for the device; second and forward-mode derivatives; vmap and torch.func.
    """
    return _OPERATOR(
        logits,
        target,
        candidates,
        active,
        options={"gamma": gamma, "detach_target": detach_target},
        class_weight=class_weight,
        pixel_weight=pixel_weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )
