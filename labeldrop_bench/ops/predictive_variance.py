"""Predictive variance: class logits with normal noise, whose variance the network says."""

from __future__ import annotations

from torch import Tensor

from . import _checks
from ._pixel_operator import PixelOperator

_NAME = "predictive_variance"
# Sums of more samples in float32 would lose more digits than the samples add.
_MOST_SAMPLES = 4096


def _parameters(samples: int, gamma: float, average: str) -> tuple[float, ...]:
    samples = _checks.integer(_NAME, "samples", samples)
    if not 1 <= samples <= _MOST_SAMPLES:
        raise ValueError(f"{_NAME}: samples must be 1 to {_MOST_SAMPLES}, got {samples}")
    _checks.check_gamma(_NAME, gamma)
    if average not in ("loss", "probability"):
        raise ValueError(f"{_NAME}: average must be 'loss' or 'probability', got {average!r}")
    if average == "probability" and gamma != 0:
        raise ValueError(
            f"{_NAME}: gamma must be 0 with average='probability', which has no focal form, got {gamma}; "
            "use average='loss'"
        )
    return float(gamma), float(samples), float(average == "probability")


_OPERATOR = PixelOperator(_NAME, _parameters, 2, "first the classes' logits, then as many log-variances", noisy=True)


def predictive_variance(
    logits: Tensor,
    target: Tensor,
    candidates: Tensor,
    active: Tensor,
    *,
    key: Tensor | None = None,
    samples: int = 10,
    gamma: float = 0.0,
    average: str = "loss",
    class_weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Loss of logits with normal noise, `x_t = z + e^(s/2) eps_t`, averaged over T samples eps_t of N(0, 1).

    A pixel's loss is the sum over its active classes of `class_weight * L`, times its weight. With `p = sigmoid(x)`,
    `l = -(1 - p)^gamma log p` for candidates and `-p^gamma log(1 - p)` for the other active classes (gamma = 0: binary
    cross-entropy),

    - average="loss": `L = 1/T sum_t l(x_t)`,
    - average="probability": `L = -log(1/T sum_t exp(-l(x_t)))`, for gamma = 0.

    The noise is computed from the key where it is needed, the same in forward and backward, and never stored: memory
    does not depend on T. It is made, by the method of Box and Muller, of the words of Philox4x32-7 (Salmon et al.
    2011), which pass every test of TestU01's BigCrush. With the same key the loss is the same, whatever the number of
    threads, layout or element type of the logits. A logit or log-variance of an active class that is NaN or infinite
    gives a NaN loss; those of other classes and of ignored pixels are never looked at. In float32, `e^(s/2)` is
    infinite from s = 177 on.

    Source: Kendall and Gal, "What uncertainties do we need in Bayesian deep learning for computer vision?", 2017; as a
    loss of segmentation McKinley et al. 2019.

    Args:
        logits: `[N, 2 K, *spatial]` float32, bfloat16, float16 or float64, 1 to 3 spatial dimensions: K logits z, then
            K log-variances s = log sigma^2. Contiguous and channels-last are read as they are, other layouts are copied
            to contiguous first.
        target: `[N, *spatial]` uint8, int16, int32 or int64 label values.
        candidates: `[N, L, K]` bool: classes that a label value says are there.
        active: `[N, L, K]` bool: classes that it says anything about.
        key: `[1]` int64 on the logits' device, which stands for the noise; None draws one from torch's generator.
        samples: T, 1 to 4096.
        gamma: exponent of the focal loss, from 0, finite as float32; 0 is binary cross-entropy.
        average: of the samples, "loss" or "probability".
        class_weight: `[K]`, finite and not negative; does not enter the divisor of a mean.
        pixel_weight: `[N, *spatial]`; a pixel of weight 0 counts for nothing, like an ignored one.
        ignore_index: target value of pixels that count for nothing.
        reduction: "mean", the weighted mean over the pixels that count (0 with zero gradient if there are none or their
            weights add up to 0); "sum"; or "none".

    Returns:
        Scalar, or `[N, *spatial]` for "none"; float32 (float64 for float64 logits).

    Raises:
        TypeError: a dtype that is not listed; samples that are no int.
        ValueError: shapes, devices or options that do not fit; on the CPU, a target value that is neither 0 to L-1 nor
            ignore_index (on CUDA, where looking would make the host wait, it makes the loss NaN), or a weight that is
            negative or not finite.
        RuntimeError: no kernel is built for the device; second and forward-mode derivatives; vmap and torch.func.
    """
    return _OPERATOR(
        logits,
        target,
        candidates,
        active,
        options={"samples": samples, "gamma": gamma, "average": average},
        key=key,
        class_weight=class_weight,
        pixel_weight=pixel_weight,
        ignore_index=ignore_index,
        reduction=reduction,
    )
