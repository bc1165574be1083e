"""Holm's correction (1979) of p values that are tested together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Step-down correction: the i-th smallest of m becomes the largest of (m - j + 1) p_j over j <= i, at most 1.

    Args:
        p_values: [..., m] in [0, 1]; NaN where there was no test, which stays NaN and does not count.

    Returns:
        [..., m] float64, each row along the last axis corrected by itself.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, axis=-1)  # NaN last
    tests = (~np.isnan(p)).sum(-1, keepdims=True)
    left = np.maximum(tests - np.arange(p.shape[-1]), 0)
    corrected = np.minimum(np.maximum.accumulate(left * np.take_along_axis(p, order, -1), axis=-1), 1.0)
    result = np.empty_like(p)
    np.put_along_axis(result, order, corrected, -1)
    return result
