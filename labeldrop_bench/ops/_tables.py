"""Tables as bits, the form in which the kernels read them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pack_tables(*tables: Tensor) -> Tensor:
    """Tables `[N, L, K]` bool of the same label values, side by side: `[N, L, T, W]` int32 words."""
    return pack(torch.stack(tables, dim=2))


def pack(table: Tensor) -> Tensor:
    """`[..., K]` bool to `[..., W]` int32 words, W = ceil(K / 32); class k is bit k % 32 of word k // 32."""
    classes = table.shape[-1]
    bits = F.pad(table, (0, -classes % 32)).unflatten(-1, (-1, 32))
    weights = torch.ones(32, dtype=torch.int64, device=table.device) << torch.arange(32, device=table.device)
    words: Tensor = (bits * weights).sum(dim=-1)
    return words.to(torch.int32)
