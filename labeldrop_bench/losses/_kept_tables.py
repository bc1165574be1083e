"""Tables of patterns of annotated labels that have been seen: a training has few, and asks for them at each step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from ctypes import c_char
from typing import Any

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]
MOST_BATCHES, MOST_SAMPLES, MOST_WEIGHTS = 1024, 16384, 64
_BATCHES: dict[tuple[Hashable, bytes], Parts] = {}
_SAMPLES: dict[tuple[Hashable, bytes], Parts] = {}


def kept(said: Hashable, pattern: bytes, labels: int, build: Callable[[Tensor], Parts]) -> Parts:
    """What a rule that looks at each sample by itself says of a batch: some tensors `[N, ...]`.

    Patterns are compared by their values, so that what is found is what the rule would say. The tensors are handed out
    to many calls: nobody may write to them.

    Args:
        said: everything that the tables depend on besides `annotated`.
        pattern: `annotated` `[N, L]` as bytes, N > 0.
        labels: L.
        build: is asked for the samples that are new.
    """
    found = _BATCHES.get((said, pattern))
    if found is None:
        with torch.inference_mode(False), torch.no_grad():  # what is kept serves calls outside of it as well
            found = _assemble(said, pattern, labels, build)
        _make_room(_BATCHES, MOST_BATCHES)
        _BATCHES[said, pattern] = found
    return found


def _assemble(said: Hashable, pattern: bytes, labels: int, build: Callable[[Tensor], Parts]) -> Parts:
    rows = [pattern[start : start + labels] for start in range(0, len(pattern), labels)]
    # of its own: another thread may make room meanwhile
    found = {row: _SAMPLES.get((said, row)) for row in rows}
    parts = {row: each for row, each in found.items() if each is not None}
    if new := [row for row, each in found.items() if each is None]:
        built = build(torch.frombuffer(bytearray(b"".join(new)), dtype=torch.bool).view(-1, labels))
        parts.update(zip(new, zip(*(part.unbind() for part in built), strict=True), strict=True))
        _make_room(_SAMPLES, MOST_SAMPLES)
        _SAMPLES.update(((said, row), parts[row]) for row in new)
    return tuple(torch.stack(each) for each in zip(*(parts[row] for row in rows), strict=True))


def content(tensor: Tensor) -> bytes:
    """The values of a tensor on the CPU."""
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    return (c_char * tensor.nbytes).from_address(tensor.data_ptr()).raw


_WEIGHTS: dict[tuple[bytes, torch.dtype], Tensor] = {}


def kept_weights(weights: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Float64 weights in the arithmetic's type, on a device; kept on the CPU, by their values."""
    if not weights.is_cpu or device.type != "cpu" or torch.compiler.is_compiling():
        return weights.to(device, dtype)
    said = content(weights), dtype
    found = _WEIGHTS.get(said)
    if found is None:
        _make_room(_WEIGHTS, MOST_WEIGHTS)
        with torch.inference_mode(False):  # what is kept serves calls outside of it as well
            found = _WEIGHTS[said] = torch.frombuffer(bytearray(said[0]), dtype=torch.float64).to(dtype)
    return found


def _make_room(kept: dict[Any, Any], most: int) -> None:
    """Forget everything when there is much: who draws patterns at random must not fill the memory."""
    if len(kept) >= most:
        kept.clear()
