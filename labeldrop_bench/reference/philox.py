"""Philox4x32 and normal numbers from it, in plain PyTorch: the noise that the kernels compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


# Seven rounds pass every test of TestU01's BigCrush, and are the fewest that do (Salmon et al.); the default, ten,
# leaves a margin, and costs the kernel a tenth of its time.
NOISE_ROUNDS = 7


def philox4x32(counter: Tensor, key: Tensor, rounds: int = 10) -> Tensor:
    """Random words by Philox4x32 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Args:
        counter: `[..., 4]` int64 words, 0 to 2^32 - 1.
        key: `[..., 2]` int64 words, broadcast against the counters.
        rounds: how many.

    Returns:
        `[..., 4]` int64 words, 0 to 2^32 - 1.
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(rounds):
        # 64-bit products wrap around, and so keep all their bits
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (second >> 32 & _LOW) ^ c1 ^ k0, second & _LOW
        c2, c3 = (first >> 32 & _LOW) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def key_words(key: Tensor) -> Tensor:
    """A 64-bit key, `[1]` int64, as words `[2]`, the low one first."""
    return torch.cat([key & _LOW, key >> 32 & _LOW])


def box_muller(words: Tensor) -> Tensor:
    """Standard normal numbers from random words, by the method of Box and Muller.

    With u = (w + 1/2) 2^-32 and v = w 2^-32: `sqrt(-2 log u_0) (cos, sin)(2 pi v_1)`,
    `sqrt(-2 log u_2) (cos, sin)(2 pi v_3)`.

    Args:
        words: `[..., 4]` int64, 0 to 2^32 - 1.

    Returns:
        `[..., 4]` float64.
    """
    words = words.double()
    radius = ((words[..., ::2] + 0.5) * 2.0**-32).log().mul(-2).sqrt()  # [..., 2]
    angle = words[..., 1::2] * (math.tau * 2.0**-32)  # [..., 2]
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(-2)


def normals(key: Tensor, samples: int, shape: Sequence[int]) -> Tensor:
    """The noise of a tensor: T standard normal numbers for each of its elements.

    Those of samples 4j to 4j + 3 come from counter (e, e >> 32, j, 0) after seven rounds, e the element's index in
    contiguous order.

    Args:
        key: `[1]` int64.
        samples: T.
        shape: `[N, K, *spatial]`.

    Returns:
        `[T, N, K, *spatial]` float64.
    """
    element = torch.arange(math.prod(shape), device=key.device)
    group = torch.arange(-(-samples // 4), device=key.device).unsqueeze(1)
    counter = torch.broadcast_tensors(element & _LOW, element >> 32, group, torch.zeros_like(element))
    numbers = box_muller(philox4x32(torch.stack(counter, dim=-1), key_words(key), NOISE_ROUNDS))  # [T / 4, elements, 4]
    return numbers.movedim(-1, 1).reshape(-1, *shape)[:samples]
