"""What the losses that are sums over pixels share: checks, launch on either device, registration with torch, autograd.

Forward and backward read the logits once where that is possible: with an upstream gradient of 1, which is what
`loss.backward()` gives, the forward pass has formed the gradient already. For any other upstream gradient it is
computed anew, with the upstream entering before anything is rounded to a half type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks, _native
from ._operator import register, register_backward
from ._tables import pack_tables


class _Inputs(NamedTuple):
    """The tensors of a loss, in the order of the registered operators' arguments."""

    logits: Tensor  # [N, C, *spatial]
    target: Tensor  # [N, *spatial]
    tables: Tensor  # [N, L, 2, W] words: candidates, active
    label_weight: Tensor | None  # [N, L]
    class_weight: Tensor | None  # [K]
    pixel_weight: Tensor | None  # [N, *spatial]
    key: Tensor | None  # [1] int64, of the noise


_INPUTS = (
    "Tensor logits, Tensor target, Tensor tables, Tensor? label_weight, Tensor? class_weight, "
    "Tensor? pixel_weight, Tensor? key, float[] parameters, int ignore_index"
)


class PixelLoss:
    """One operator: `labeldrop::<name>`, its derivative, and how to call them.

    Args:
        name: of the operator and of its kernels.
        channels_per_class: logits have this many channels for each class of the tables.
        why: what these channels are, for the message about a wrong number of them.
        noisy: whether the kernel draws noise, and so needs a key.
    """

    def __init__(
        self, name: str, channels_per_class: int = 1, why: str = "one logit for each class", *, noisy: bool = False
    ) -> None:
        self.name, self.channels_per_class, self.why, self.noisy = name, channels_per_class, why, noisy
        # Outputs: the reduced loss; [] float64, the divisor of a mean; the gradient for an upstream of 1, or nothing.
        self.forward = register(
            name,
            f"({_INPUTS}, str reduction, bool with_gradient) -> (Tensor, Tensor, Tensor)",
            self._forward,
            self._forward_fake,
            setup_context=_setup_context,
            backward=self._apply_backward,
        )
        # upstream: [] (one factor of all pixels) or [N, *spatial]
        self.backward = register_backward(
            name,
            f"(Tensor upstream, Tensor divisor, {_INPUTS}) -> Tensor",
            self._backward,
            lambda upstream, divisor, logits, *_: torch.empty_like(readable(logits)),
        )
        # On CUDA: what backward would return, written to a gradient for an upstream of 1, unless upstream is 1. The
        # device looks at the value, so that the host need not wait for it.
        self.rescale = register(
            f"{name}_rescale",
            f"(Tensor(a!) gradient, Tensor upstream, Tensor divisor, {_INPUTS}) -> ()",
            self._rescale,
            lambda *_: None,
        )

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        candidates: Tensor,
        active: Tensor,
        *,
        parameters: Sequence[float] = (),
        key: Tensor | None = None,
        label_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        pixel_weight: Tensor | None = None,
        ignore_index: int,
        reduction: str,
    ) -> Tensor:
        """Check the arguments that all these losses have, and compute."""
        tables = {"candidates": candidates, "active": active}
        weights = {"label_weight": label_weight, "class_weight": class_weight, "pixel_weight": pixel_weight}
        required, optional = {"logits": logits, "target": target, **tables}, {**weights, "key": key}
        _checks.check_tensors(self.name, required, optional)
        _checks.refuse_transforms(self.name, {**required, **optional})
        _checks.check_images(self.name, logits, target)
        _checks.check_reduction(self.name, reduction)
        samples, channels = logits.shape[:2]
        classes = _checks.check_channels(self.name, channels, candidates, self.channels_per_class, self.why)
        _checks.check_tables(self.name, tables, samples, classes)
        shapes = {"label_weight": active.shape[:2], "class_weight": active.shape[2:], "pixel_weight": target.shape}
        for argument, weight in weights.items():
            if weight is not None:
                _checks.check_weight(self.name, argument, weight, shapes[argument])
        if self.noisy:
            key = self._key(key, logits)
        accumulation = accumulation_dtype(logits)
        loss: Tensor = self.forward(
            logits,
            target,
            pack_tables(candidates, active),
            *(None if weight is None else weight.detach().to(accumulation) for weight in weights.values()),
            key,
            list(parameters),
            _checks.integer(self.name, "ignore_index", ignore_index),
            reduction,
            wants_gradient(logits) and reduction != "none",
        )[0]
        return loss

    def _key(self, key: Tensor | None, logits: Tensor) -> Tensor:
        """[1] int64: what is given, or from torch's generator."""
        if key is None:
            return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=logits.device)
        if key.dtype != torch.int64:
            raise TypeError(f"{self.name}: key must be int64, got {key.dtype}")
        if list(key.shape) != [1]:
            raise ValueError(f"{self.name}: key must have shape [1], got {list(key.shape)}")
        return key

    def _forward(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401 - the schema has their types
        *tensors, parameters, ignore_index, reduction, with_gradient = arguments
        inputs = _contiguous(_Inputs(*tensors))
        logits = inputs.logits
        accumulation = accumulation_dtype(logits)
        divisor = (
            self._divisor(inputs, ignore_index) if reduction == "mean" else logits.new_ones((), dtype=torch.double)
        )
        gradient = torch.empty_like(logits) if with_gradient else logits.new_empty(0)
        loss = torch.empty(inputs.target.shape if reduction == "none" else (), dtype=accumulation, device=logits.device)
        self._launch(
            inputs,
            parameters,
            ignore_index,
            divisor=divisor,
            result=loss if reduction != "none" else None,
            loss=loss if reduction == "none" else None,
            gradient=gradient if with_gradient else None,
        )
        return loss, divisor, gradient

    def _forward_fake(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        logits, target = readable(arguments[0]), arguments[1]
        reduction, with_gradient = arguments[-2:]
        loss = logits.new_empty(target.shape if reduction == "none" else (), dtype=accumulation_dtype(logits))
        gradient = torch.empty_like(logits) if with_gradient else logits.new_empty(0)
        return loss, logits.new_empty((), dtype=torch.double), gradient

    def _backward(self, upstream: Tensor, divisor: Tensor, *arguments: Any) -> Tensor:  # noqa: ANN401
        gradient = torch.empty_like(readable(arguments[0]))
        self._write_gradient(gradient, upstream, divisor, *arguments)
        return gradient

    def _rescale(self, gradient: Tensor, upstream: Tensor, divisor: Tensor, *arguments: Any) -> None:  # noqa: ANN401
        self._write_gradient(gradient, upstream, divisor, *arguments, unless_one=True)

    def _write_gradient(
        self,
        gradient: Tensor,
        upstream: Tensor,
        divisor: Tensor,
        *arguments: Any,  # noqa: ANN401 - the schema has their types
        unless_one: bool = False,
    ) -> None:
        *tensors, parameters, ignore_index = arguments
        inputs = _contiguous(_Inputs(*tensors))
        upstream = upstream.to(accumulation_dtype(inputs.logits)).contiguous()
        self._launch(
            inputs,
            parameters,
            ignore_index,
            divisor=divisor,
            gradient=gradient,
            upstream=upstream,
            unless_one=unless_one,
        )

    def _divisor(self, inputs: _Inputs, ignore_index: int) -> Tensor:
        """[] float64: the weights of the pixels that count; 1 if they add up to 0."""
        logits, target = inputs.logits, inputs.target
        native = _native.module(logits.device, self.name)
        arguments = dict(
            target=target.data_ptr(),
            target_type=_native.INTEGERS[target.dtype],
            samples=logits.shape[0],
            pixels=logits.shape[2:].numel(),
            labels=inputs.tables.shape[1],
            ignore_index=ignore_index,
            label_weight=_native.pointer(inputs.label_weight),
            pixel_weight=_native.pointer(inputs.pixel_weight),
            weights_are_double=logits.dtype == torch.float64,
        )
        if not _native.is_cuda(logits):
            total = native.sum_weights(**arguments, threads=torch.get_num_threads())
            return torch.tensor(total or 1.0, dtype=torch.double)
        divisor = torch.empty((), dtype=torch.double, device=logits.device)
        partials = torch.empty(native.partials, dtype=torch.double, device=logits.device)
        with _native.on_device(logits):
            native.sum_weights(
                **arguments,
                partials=partials.data_ptr(),
                sum=divisor.data_ptr(),
                stream=_native.stream(logits),
            )
        return divisor

    def _launch(
        self,
        inputs: _Inputs,
        parameters: Sequence[float],
        ignore_index: int,
        *,
        divisor: Tensor,
        result: Tensor | None = None,
        loss: Tensor | None = None,
        gradient: Tensor | None = None,
        upstream: Tensor | None = None,
        unless_one: bool = False,
    ) -> None:
        """Run the kernel on contiguous inputs; it writes to `result`, `loss` and `gradient`, those that there are."""
        logits, target = inputs.logits, inputs.target
        kernel = getattr(_native.module(logits.device, self.name), self.name)
        arguments = dict(
            logits=logits.data_ptr(),
            logits_type=_native.FLOATS[logits.dtype],
            channels_last=not logits.is_contiguous(),
            target=target.data_ptr(),
            target_type=_native.INTEGERS[target.dtype],
            tables=inputs.tables.data_ptr(),
            samples=logits.shape[0],
            channels=logits.shape[1],
            classes=logits.shape[1] // self.channels_per_class,
            pixels=logits.shape[2:].numel(),
            labels=inputs.tables.shape[1],
            ignore_index=ignore_index,
            label_weight=_native.pointer(inputs.label_weight),
            class_weight=_native.pointer(inputs.class_weight),
            pixel_weight=_native.pointer(inputs.pixel_weight),
            parameters=parameters,
            loss=_native.pointer(loss),
            gradient=_native.pointer(gradient),
        )
        per_pixel = upstream is not None and upstream.ndim > 0
        if _native.is_cuda(logits):
            partials = torch.empty(
                _native.module(logits.device, self.name).partials, dtype=torch.double, device=logits.device
            )
            with _native.on_device(logits):
                kernel(
                    **arguments,
                    upstream=_native.pointer(upstream),
                    upstream_per_pixel=per_pixel,
                    divisor=divisor.data_ptr(),
                    unless_one=unless_one,
                    key=_native.pointer(inputs.key),
                    partials=partials.data_ptr(),
                    result=_native.pointer(result),
                    stream=_native.stream(logits),
                )
            return
        scale = 1.0 if upstream is None or per_pixel else float(upstream)
        total, invalid = kernel(
            **arguments,
            upstream=_native.pointer(upstream) if per_pixel else 0,
            scale=scale / float(divisor),
            key=0 if inputs.key is None else int(inputs.key) % 2**64,
            threads=torch.get_num_threads(),
        )
        if invalid >= 0:
            _checks.raise_invalid_label(self.name, target, invalid, inputs.tables.shape[1], ignore_index)
        if result is not None:
            result.fill_(total / float(divisor))

    def _apply_backward(self, ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        nothing = (None,) * 10
        if upstream is None:
            return None, *nothing
        # Read once: checkpointing computes the forward pass again for it, and may not be asked twice.
        *inputs, divisor, gradient = ctx.saved_tensors
        arguments = (upstream, divisor, *inputs, ctx.parameters, ctx.ignore_index)
        # Whoever backpropagates a second time gets a gradient of their own. The first one, .data, may be written to
        # without the saved tensor being found changed when the second pass reads it with the others.
        fresh, ctx.gradient_is_fresh = ctx.gradient_is_fresh, False
        # With create_graph the gradient has to have a history, if only for a second derivative to be refused.
        if gradient is not None and fresh and not torch.is_grad_enabled() and _checks.is_plain(upstream):
            if _native.is_cuda(upstream):
                self.rescale(gradient, *arguments)
                return gradient.data, *nothing
            if upstream == 1:
                return gradient.data, *nothing
        return self.backward(*arguments), *nothing


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's
    *tensors, ctx.parameters, ctx.ignore_index, _, with_gradient = inputs
    _, divisor, gradient = output
    ctx.mark_non_differentiable(divisor, gradient)
    ctx.set_materialize_grads(False)  # no logits-sized zeros for the outputs that nobody differentiates
    # The gradient too, so that checkpointing and hooks of saved tensors can free it or move it away.
    ctx.save_for_backward(*tensors, divisor, gradient if with_gradient else None)
    ctx.gradient_is_fresh = True


def readable(logits: Tensor) -> Tensor:
    """The logits in a layout that the kernels read: contiguous, or channels-last."""
    if logits.is_contiguous() or logits.movedim(1, -1).is_contiguous():
        return logits
    return logits.contiguous()


def accumulation_dtype(logits: Tensor) -> torch.dtype:
    """Of the arithmetic, the loss and the weights."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def wants_gradient(logits: Tensor) -> bool:
    """Whether the forward pass should form the gradient as well, for an upstream gradient of 1.

    It then reads the logits once instead of twice. Not in float16, where the gradient of a mean would underflow before
    the upstream scale enters, and not in a compiled graph, which cannot ask for the upstream's value.
    """
    needed = logits.requires_grad and torch.is_grad_enabled()
    return needed and logits.dtype != torch.float16 and not torch.compiler.is_compiling()


def _contiguous(inputs: _Inputs) -> _Inputs:
    others = (None if tensor is None else tensor.contiguous() for tensor in inputs[1:])
    return _Inputs._make([readable(inputs.logits), *others])
