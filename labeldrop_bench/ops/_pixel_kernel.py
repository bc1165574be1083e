"""Running the compiled kernels of the losses that are sums over pixels: memory in, memory out, on either device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _checks, _native

# Of a kind that is quicker than a size of no dimensions.
SCALAR = torch.empty((), device="cpu")


class Inputs(NamedTuple):
    """What a loss is computed from, in the order of the registered operators' arguments."""

    logits: Tensor  # [N, C, *spatial]
    target: Tensor  # [N, *spatial]
    tables: Tensor  # [N, L, 2, W] words: candidates, active
    label_weight: Tensor | None  # [N, L]
    class_weight: Tensor | None  # [K]
    pixel_weight: Tensor | None  # [N, *spatial]
    key: Tensor | None  # [1] int64, of the noise
    parameters: Sequence[float]
    ignore_index: int

    def contiguous(self) -> Inputs:
        """As the kernels read them."""
        for tensor in self[:7]:
            if tensor is not None and not tensor.is_contiguous():
                break
        else:
            return self
        first = readable(self[0])
        others = (None if tensor is None else tensor.contiguous() for tensor in self[1:7])
        return Inputs._make([first, *others, *self[7:]])


class PixelKernel:
    """One loss.

    Args:
        name: of the kernels.
        channels_per_class: logits have this many channels for each class of the tables.
    """

    def __init__(self, name: str, channels_per_class: int) -> None:
        self.name, self.channels_per_class = name, channels_per_class

    def forward(
        self, inputs: Inputs, reduction: str, *, with_gradient: bool, scratch: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The reduced loss; [] float64, the divisor of a mean; the gradient for an upstream of 1, if asked for.

        On CUDA `scratch`, whose last number is 0, is for the kernels to count blocks in; None: it is made here.
        """
        inputs = inputs.contiguous()
        logits, device, mean = inputs.logits, inputs.logits.device, reduction == "mean"
        like = inputs.target if reduction == "none" else SCALAR
        loss = torch.empty_like(like, dtype=accumulation_dtype(logits), device=device)
        divisor = (torch.empty_like if mean else torch.ones_like)(SCALAR, dtype=torch.double, device=device)
        gradient = torch.empty_like(logits, requires_grad=False) if with_gradient else None
        self._launch(inputs, divisor, gradient, loss=loss, mean=mean, scratch=scratch)
        return loss, divisor, gradient

    def write_gradient(
        self, gradient: Tensor, upstream: Tensor, divisor: Tensor, inputs: Inputs, *, unless_one: bool = False
    ) -> None:
        """The gradient for an upstream [] (one factor of all pixels) or [N, *spatial]."""
        inputs = inputs.contiguous()
        upstream = upstream.to(accumulation_dtype(inputs.logits)).contiguous()
        self._launch(inputs, divisor, gradient, upstream=upstream, unless_one=unless_one)

    def scale_on_device(self, gradient: Tensor, factor: Tensor) -> None:
        """Multiply a float32 or float64 gradient on CUDA in place; the host does not wait for the factor's value."""
        factor = factor.to(gradient.dtype)
        arguments = {
            "values": gradient.data_ptr(),
            "size": gradient.numel(),
            "factor": factor.data_ptr(),
            "is_double": gradient.dtype == torch.float64,
        }
        with _native.on_device(gradient):
            _native.module(gradient.device, self.name).scale(**arguments, stream=_native.stream(gradient))

    def _launch(
        self,
        inputs: Inputs,
        divisor: Tensor,
        gradient: Tensor | None,
        *,
        loss: Tensor | None = None,
        upstream: Tensor | None = None,
        mean: bool = False,
        unless_one: bool = False,
        scratch: Tensor | None = None,
    ) -> None:
        """Run the kernel on contiguous inputs; it writes to `loss` and `gradient`, and with `mean` to `divisor`."""
        logits, target, pointer = inputs.logits, inputs.target, _native.pointer
        reduced = loss is not None and not loss.ndim
        arguments = (  # in the order of csrc/bindings.h
            *_native.loss_arguments(logits, target, inputs.tables, inputs.ignore_index, inputs.pixel_weight),
            logits.shape[1] // self.channels_per_class,  # classes
            pointer(inputs.label_weight),
            pointer(inputs.class_weight),
            inputs.parameters,
            pointer(inputs.key),
            pointer(upstream),
            upstream is not None and upstream.ndim > 0,  # upstream_per_pixel
            divisor.data_ptr(),
            mean,
            pointer(loss) if reduced else 0,  # result
            0 if reduced else pointer(loss),  # loss
            pointer(gradient),
        )
        if _native.is_cuda(logits):
            native = _native.module(logits.device, self.name)
            if scratch is None:
                make = torch.zeros if reduced else torch.empty
                scratch = make((native.scratch,), dtype=torch.double, device=logits.device)
            more = {"unless_one": unless_one, "scratch": scratch.data_ptr(), "stream": _native.stream(logits)}
            with _native.on_device(logits):
                getattr(native, self.name)(*arguments, **more)
            return
        invalid = _native.kernel(logits, self.name)(*arguments, torch.get_num_threads())
        if invalid >= 0:
            _checks.raise_invalid_label(self.name, target, invalid, inputs.tables.shape[1], inputs.ignore_index)


def readable(logits: Tensor) -> Tensor:
    """The logits in a layout that the kernels read: contiguous, or channels-last."""
    if logits.is_contiguous() or logits.movedim(1, -1).is_contiguous():
        return logits
    return logits.contiguous()


def accumulation_dtype(logits: Tensor) -> torch.dtype:
    """Of the arithmetic, the loss and the weights."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
