"""Tables as bits, the form in which the kernels read them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _native
from ._direct import is_direct


def pack_tables(operator: str, *tables: Tensor) -> Tensor:
    """Tables `[N, L, K]` bool of the same label values, side by side: `[N, L, T, W]` int32 words for an operator."""
    return _pack(operator, tables) if is_direct(*tables) else pack(torch.stack(tables, dim=2))


def pack(table: Tensor) -> Tensor:
    """`[..., K]` bool to `[..., W]` int32 words, W = ceil(K / 32); class k is bit k % 32 of word k // 32."""
    classes = table.shape[-1]
    bits = F.pad(table, (0, -classes % 32)).unflatten(-1, (-1, 32))
    weights = torch.ones(32, dtype=torch.int64, device=table.device) << torch.arange(32, device=table.device)
    words: Tensor = (bits * weights).sum(dim=-1)
    return words.to(torch.int32)


def _pack(operator: str, tables: tuple[Tensor, ...]) -> Tensor:
    """`[..., T, W]` by one call of the kernel."""
    tables = tuple(table.contiguous() for table in tables)
    first, classes = tables[0], tables[0].shape[-1]
    shape = (*first.shape[:-1], len(tables), -(-classes // 32))
    words = torch.empty(shape, dtype=torch.int32, device=first.device)
    arguments = {
        "tables": [table.data_ptr() for table in tables],
        "count": len(tables),
        "rows": first.shape[:-1].numel(),
        "classes": classes,
        "words": words.data_ptr(),
    }
    native = _native.module(first.device, operator)
    if _native.is_cuda(first):
        with _native.on_device(first):
            native.pack_tables(**arguments, stream=_native.stream(first))
    else:
        native.pack_tables(**arguments)
    return words
