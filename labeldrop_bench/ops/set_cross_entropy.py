"""Set cross-entropy: the softmax family's likelihood for any rule."""

from __future__ import annotations

from torch import Tensor

from ._pixel_operator import PixelOperator

_OPERATOR = PixelOperator("set_cross_entropy")


def set_cross_entropy(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    label_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
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
        label_weight: `[N, L]` weight of the pixels that have a label value in a sample, finite and not negative.
        pixel_weight: `[N, *spatial]` weight of each pixel; a pixel of weight 0 counts for nothing, like an ignored one.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean", the weighted mean over the pixels that count (0 with zero gradient if there are none or their
            weights add up to 0); "sum"; or "none".

    Returns:
        Scalar, or `[N, *spatial]` for "none"; float32 (float64 for float64 logits).

    Raises:
        TypeError: a dtype that is not listed.
        ValueError: shapes or devices that do not fit, unknown reduction; on the CPU, a target value that is neither
            0 to L-1 nor ignore_index (on CUDA, where looking would make the host wait, it makes the loss NaN), or a
            weight that is negative or not finite.
        RuntimeError: no kernel is built for the device; second and forward-mode derivatives; vmap and torch.func.
    """
    return _OPERATOR(
        logits,
        target,
        candidates,
        active,
        label_weight=label_weight,
        pixel_weight=pixel_weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )
