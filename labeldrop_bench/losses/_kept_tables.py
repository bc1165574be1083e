"""Tables of patterns of annotated labels that have been seen: a training has few, and asks for them at each step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from ctypes import c_char
from typing import Any

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]
MOST_BATCHES, MOST_SAMPLES, MOST_CONSTANTS = 1024, 16384, 64
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


class _Constant:
    """What lies on a device, `made` of what was `given`."""

    def __init__(self, given: Parts, made: Parts) -> None:
        self.given, self.made, self.device = given, made, made[0].device
        self.ready = torch.cuda.current_stream(self.device).record_event() if made[0].is_cuda else None

    def use(self) -> Parts:
        """It, for the current stream. While a graph is captured it is ready: torch waits for the device before."""
        if self.ready is not None and not torch.cuda.is_current_stream_capturing():
            torch.cuda.current_stream(self.device).wait_event(self.ready)
            if self.ready.query():
                self.ready = None
        return self.made


_CONSTANTS: dict[Hashable, _Constant] = {}


def on_device(what: Hashable, given: Parts, device: torch.device, build: Callable[..., Parts]) -> Parts:
    """What is made of some constants, on a device; kept, since bringing it there takes as long as a small step.

    Constants on the CPU are known by their values, those on a GPU, where the host would wait for these, by themselves
    and by torch's count of changes.

    Args:
        what: it is, besides the constants and the device.
        given: the constants, on one device.
        device: where it is wanted.
        build: makes it of them, where they are.
    """
    here = given[0].is_cpu
    said = what, device, *(_identity(each, here) for each in given)
    found = _CONSTANTS.get(said)
    if found is not None:
        return found.use()
    with torch.inference_mode(False), torch.no_grad():  # what is kept serves calls outside of it as well
        made = tuple(each.to(device, non_blocking=True) for each in build(*(each.clone() for each in given)))
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():  # no values yet
        return made
    _make_room(_CONSTANTS, MOST_CONSTANTS)
    _CONSTANTS[said] = _Constant(given, made)
    return made


def _identity(tensor: Tensor, by_values: bool) -> Hashable:
    """Its values, or which one it is: it is kept itself, so that its number stays its own."""
    if by_values:
        return tensor.shape, content(tensor)
    return id(tensor), None if tensor.is_inference() else tensor._version


def _make_room(kept: dict[Any, Any], most: int) -> None:
    """Forget everything when there is much: who draws patterns at random must not fill the memory."""
    if len(kept) >= most:
        kept.clear()
