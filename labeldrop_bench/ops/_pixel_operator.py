"""What the losses that are sums over pixels share: checks, registration with torch, autograd.

Forward and backward read the logits once where that is possible: the forward pass has formed the gradient for an
upstream of 1, which is what `loss.backward()` gives, and another upstream multiplies what is there. Where that would
round a second time, to a half type, the gradient is computed anew, with the upstream entering before it is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from . import _checks, _native
from ._direct import is_direct
from ._operator import register, register_backward
from ._pixel_kernel import Inputs, PixelKernel, accumulation_dtype, readable
from ._tables import pack_tables

_INPUTS = (
    "Tensor logits, Tensor target, Tensor tables, Tensor? label_weight, Tensor? class_weight, Tensor? pixel_weight, "
    "Tensor? key, float[] parameters, int ignore_index"
)


PIXEL_OPERATORS: dict[str, PixelOperator] = {}


class PixelOperator:
    """One operator: `labeldrop::<name>`, its derivative, and how to call them.

    Args:
        name: of the operator and of its kernels.
        parameters: the options that this operator alone has, checked, as the kernel's numbers.
        channels_per_class: logits have this many channels for each class of the tables.
        why: what these channels are, for the message about a wrong number of them.
        noisy: whether the kernel draws noise, and so needs a key.
    """

    def __init__(
        self,
        name: str,
        parameters: Callable[..., tuple[float, ...]] = tuple,
        channels_per_class: int = 1,
        why: str = "one logit for each class",
        *,
        noisy: bool = False,
    ) -> None:
        self.name, self.parameters, self.why, self.noisy = name, parameters, why, noisy
        self.channels_per_class = channels_per_class
        self.kernel = PixelKernel(name, channels_per_class)
        PIXEL_OPERATORS[name] = self
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
        # On CUDA, for half types: what backward would return, written to a gradient for an upstream of 1, unless
        # upstream is 1. The device looks at the value, so that the host need not wait for it.
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
        options: Mapping[str, Any] = MappingProxyType({}),
        label_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        pixel_weight: Tensor | None = None,
        key: Tensor | None = None,
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
        samples, channels = logits.shape[:2]
        classes = _checks.check_channels(self.name, channels, candidates, self.channels_per_class, self.why)
        _checks.check_tables(self.name, tables, samples, classes)
        _checks.check_reduction(self.name, reduction)
        shapes = {"label_weight": active.shape[:2], "class_weight": active.shape[2:], "pixel_weight": target.shape}
        for argument, weight in weights.items():
            if weight is not None:
                _checks.check_weight(self.name, argument, weight, shapes[argument])
        accumulation = accumulation_dtype(logits)
        inputs = Inputs(
            logits,
            target,
            pack_tables(self.name, candidates, active),
            **{name: None if each is None else each.detach().to(accumulation) for name, each in weights.items()},
            key=self._key(key, logits) if self.noisy else None,
            parameters=self.parameters(**options),
            ignore_index=_checks.integer(self.name, "ignore_index", ignore_index),
        )
        return self._compute(inputs, reduction, direct=is_direct(*inputs[:7]))

    def direct(
        self,
        logits: Tensor,
        target: Tensor,
        tables: Tensor,
        options: Mapping[str, Any],
        *,
        label_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
        pixel_weight: Tensor | None = None,
        scratch: Tensor | None = None,
        ignore_index: int,
        reduction: str,
    ) -> Tensor:
        """The same with packed tables `[N, L, 2, W]`, where that and weights but those of pixels are known to be right.

        The tensors are such that `is_direct`; weights but those of pixels are of the type of the arithmetic; scratch is
        what `rule_tables` has made.
        """
        _checks.check_reduction(self.name, reduction)
        if pixel_weight is not None:
            _checks.check_images(self.name, logits, target)
            _checks.check_weight(self.name, "pixel_weight", pixel_weight, target.shape)
            pixel_weight = pixel_weight.detach().to(accumulation_dtype(logits))
        inputs = Inputs(
            logits,
            target,
            tables,
            label_weight,
            class_weight,
            pixel_weight,
            self._key(None, logits) if self.noisy else None,
            self.parameters(**options),
            _checks.integer(self.name, "ignore_index", ignore_index),
        )
        return self._compute(inputs, reduction, direct=True, scratch=scratch)

    def _compute(self, inputs: Inputs, reduction: str, *, direct: bool, scratch: Tensor | None = None) -> Tensor:
        """As a function of memory, or as a registered operator where somebody wants to see the call."""
        logits = inputs.logits
        if not direct:
            *tensors, parameters, ignore_index = inputs
            with_gradient = reduction != "none" and wants_gradient(logits)
            result: Tensor = self.forward(*tensors, list(parameters), ignore_index, reduction, with_gradient)[0]
            return result
        if logits.requires_grad and torch.is_grad_enabled():
            loss: Tensor = _apply(logits, (self, inputs, reduction, scratch))  # type: ignore[no-untyped-call]
            return loss
        return self.kernel.forward(inputs, reduction, with_gradient=False, scratch=scratch)[0]

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
        *inputs, reduction, with_gradient = arguments
        loss, divisor, gradient = self.kernel.forward(Inputs(*inputs), reduction, with_gradient=with_gradient)
        return loss, divisor, divisor.new_empty(0, dtype=arguments[0].dtype) if gradient is None else gradient

    def _forward_fake(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        logits, target = readable(arguments[0]), arguments[1]
        reduction, with_gradient = arguments[-2:]
        loss = logits.new_empty(target.shape if reduction == "none" else (), dtype=accumulation_dtype(logits))
        gradient = torch.empty_like(logits) if with_gradient else logits.new_empty(0)
        return loss, logits.new_empty((), dtype=torch.double), gradient

    def _backward(self, upstream: Tensor, divisor: Tensor, *inputs: Any) -> Tensor:  # noqa: ANN401
        gradient = torch.empty_like(readable(inputs[0]))
        self.kernel.write_gradient(gradient, upstream, divisor, Inputs(*inputs))
        return gradient

    def _rescale(self, gradient: Tensor, upstream: Tensor, divisor: Tensor, *inputs: Any) -> None:  # noqa: ANN401
        self.kernel.write_gradient(gradient, upstream, divisor, Inputs(*inputs), unless_one=True)

    def _apply_backward(self, ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None if upstream is None else self.gradient(ctx, upstream), *(None,) * 10

    def gradient(self, ctx: Any, upstream: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        """The gradient of the logits: what the forward pass has formed, times upstream, or computed anew."""
        # Read once: checkpointing computes the forward pass again for it, and may not be asked twice.
        saved = ctx.saved_tensors
        # Whoever backpropagates a second time gets a gradient of their own. The first one, .data, may be written to
        # without the saved tensor being found changed when the second pass reads it with the others.
        fresh, ctx.gradient_is_fresh = ctx.gradient_is_fresh, False
        # With create_graph the gradient has to have a history, if only for a second derivative to be refused.
        is_plain = is_direct(upstream) or _checks.is_plain(upstream)
        if saved[-1] is not None and fresh and not torch.is_grad_enabled() and is_plain:
            own: Tensor = saved[-1].data
            if _native.is_cuda(upstream):
                if own.dtype in _WIDE:
                    self.kernel.scale_on_device(own, upstream)
                else:
                    self.rescale(saved[-1], upstream, saved[-2], *saved[:-2], list(ctx.parameters), ctx.ignore_index)
                return own
            factor = float(upstream)
            if factor == 1 or _scales(own.dtype, factor):
                return own if factor == 1 else own.mul_(factor)
        anew: Tensor = self.backward(upstream, saved[-2], *saved[:-2], list(ctx.parameters), ctx.ignore_index)
        return anew


class DirectPixelLoss(torch.autograd.Function):
    """A loss that is not looked at while it is computed."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        logits: Tensor,
        call: tuple[PixelOperator, Inputs, str, Tensor | None],  # one argument: torch looks at each
    ) -> Tensor:
        operator, inputs, reduction, scratch = call
        with_gradient = reduction != "none" and logits.dtype != torch.float16  # see wants_gradient
        loss, divisor, gradient = operator.kernel.forward(
            inputs, reduction, with_gradient=with_gradient, scratch=scratch
        )
        *tensors, ctx.parameters, ctx.ignore_index = inputs
        # The gradient too, so that checkpointing and hooks of saved tensors can free it or move it away.
        ctx.save_for_backward(logits, *tensors[1:], divisor, gradient)
        ctx.gradient_is_fresh, ctx.operator = True, operator
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's
        return ctx.operator.gradient(ctx, upstream), None


# past what torch does in Python for transforms, of which there are none
_apply = super(torch.autograd.Function, DirectPixelLoss).apply


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's
    *tensors, ctx.parameters, ctx.ignore_index, _, with_gradient = inputs
    _, divisor, gradient = output
    ctx.mark_non_differentiable(divisor, gradient)
    ctx.set_materialize_grads(False)  # no logits-sized zeros for the outputs that nobody differentiates
    ctx.save_for_backward(*tensors, divisor, gradient if with_gradient else None)
    ctx.gradient_is_fresh = True


_WIDE = (torch.float32, torch.float64)  # the types of the arithmetic itself


def _scales(dtype: torch.dtype, factor: float) -> bool:
    """Whether multiplying a gradient is as good as computing it anew: it rounds like the arithmetic, or not at all.

    Not by infinity and NaN, which would make NaN of the zeros of what takes no part.
    """
    exact = dtype == torch.bfloat16 and abs(math.frexp(factor)[0]) == 0.5
    return math.isfinite(factor) and (dtype in _WIDE or exact)


def wants_gradient(logits: Tensor) -> bool:
    """Whether the forward pass should form the gradient as well, for an upstream gradient of 1.

    Counted in passes over memory of the logits' size: without it the forward pass reads, the backward pass reads and
    writes, 3; with it a forward pass that reads and writes is all there is for an upstream of 1, 2, and any other one
    costs 2 more at most.

    Not in float16, where the gradient of a mean would underflow before the upstream scale enters, which is never 1.

    Not in a compiled graph, where it would be 4 at least. There an operator that writes to a saved tensor is made a
    function of it. Torch 2.13 puts such a one back in place only if the graph copies what it has written to the input
    (can_inplace in inductor's reinplace.py); a saved tensor is an input of the backward graph that nobody asks for
    afterwards, so it is copied first. That the copy takes over the buffer of what it copies saves memory, not passes.
    """
    needed = logits.requires_grad and torch.is_grad_enabled()
    return needed and logits.dtype != torch.float16 and not torch.compiler.is_compiling()
