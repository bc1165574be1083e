"""`dice_sums` as torch has it: the kernels' launch, registration, autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks, _native
from ._direct import is_direct
from ._operator import register, register_backward
from ._pixel_kernel import accumulation_dtype, readable

NAME = "dice_sums"


class DiceInputs(NamedTuple):
    """The arguments of the registered operators."""

    logits: Tensor  # [N, K, *spatial]
    target: Tensor  # [N, *spatial]
    tables: Tensor  # [N, L, T, W] words: active, counted, positive and, if T = 4, candidates
    merged: Tensor  # [N, W] words
    pixel_weight: Tensor | None  # [N, *spatial] of accumulation_dtype
    sigmoid: bool
    squared: bool
    ignore_index: int

    def contiguous(self) -> DiceInputs:
        """As the kernels read them."""
        logits, *others = self[:5]
        if logits.is_contiguous() and all(each is None or each.is_contiguous() for each in others):
            return self
        contiguous = [None if each is None else each.contiguous() for each in others]
        return DiceInputs._make([readable(logits), *contiguous, *self[5:]])

    def launch(self, kernel: str, **pointers: int) -> None:
        """Run a kernel on contiguous inputs."""
        logits, target = self.logits, self.target
        arguments = (  # in the order of csrc/bindings.h
            *_native.loss_arguments(logits, target, self.tables, self.ignore_index, self.pixel_weight),
            self.merged.data_ptr(),
            self.sigmoid,
            self.squared,
            self.tables.shape[2] == 4,  # with_cross_entropy
        )
        function = _native.kernel(logits, kernel)
        if _native.is_cuda(logits):
            with _native.on_device(logits):
                function(*arguments, **pointers, stream=_native.stream(logits))
            return
        invalid = function(*arguments, **pointers, threads=torch.get_num_threads())
        if invalid >= 0:
            _checks.raise_invalid_label(NAME, target, invalid, self.tables.shape[1], self.ignore_index)


Sums = tuple[Tensor, Tensor, Tensor, Tensor]


def compute(inputs: DiceInputs, *, direct: bool) -> Sums:
    """Intersection, prediction `[N, K]`; float64 weight of the pixels with a label `[N, L]`; mean cross-entropy `[]`.

    Args:
        inputs: checked.
        direct: as a function of memory, past the registered operator; the tensors are such that `is_direct`.
    """
    sums: Sums
    if not direct:
        sums = _forward(*inputs)
    elif inputs.logits.requires_grad and torch.is_grad_enabled():
        # past what torch does in Python for transforms, of which there are none
        apply = super(torch.autograd.Function, DirectDiceSums).apply
        sums = apply(inputs.logits, inputs)  # type: ignore[no-untyped-call]
    else:
        sums = _kernel(*inputs)
    return sums


class SumsInMemory(NamedTuple):
    """What the kernel has added up, all float64."""

    overlaps: Tensor  # [2, N, K]: intersection, prediction
    label_weight: Tensor  # [N, L]: weight of the pixels with a label
    cross_entropy: Tensor  # [N]: the sum

    @property
    def on_cuda(self) -> bool:
        """Whether the host would have to wait for them."""
        return _native.is_cuda(self.overlaps)

    def pointers(self) -> dict[str, int]:
        """As the kernels' arguments."""
        overlaps, half = self.overlaps.data_ptr(), self.overlaps.nbytes // 2
        return {
            "intersection": overlaps,
            "prediction": overlaps + half,
            "label_weight": self.label_weight.data_ptr(),
            "cross_entropy": self.cross_entropy.data_ptr(),
        }


def run(inputs: DiceInputs) -> SumsInMemory:
    """The sums, by the kernel."""
    inputs = inputs.contiguous()
    logits, tables = inputs.logits, inputs.tables
    samples, classes, labels = *logits.shape[:2], tables.shape[1]

    def empty(*size: int) -> Tensor:
        return torch.empty(size, dtype=torch.double, device=logits.device)

    sums = SumsInMemory(empty(2, samples, classes), empty(samples, labels), empty(samples))
    pointers = sums.pointers()
    if _native.is_cuda(logits):
        native = _native.module(logits.device, NAME)
        size = native.dice_sums_partials(samples, classes, labels, logits.shape[2:].numel())
        partials = empty(size)
        pointers["partials"] = partials.data_ptr()
    inputs.launch(NAME, **pointers)
    return sums


def _kernel(*arguments: Any) -> Sums:  # noqa: ANN401 - the schema has their types
    inputs = DiceInputs(*arguments)
    overlaps, label_weight, cross_entropy = run(inputs)
    accumulation = accumulation_dtype(inputs.logits)
    intersection, prediction = (each.to(accumulation, copy=True) for each in overlaps)  # results that share no memory
    mean = cross_entropy.sum()
    if inputs.tables.shape[2] == 4:
        mean = mean / _divisor(label_weight)
    return intersection, prediction, label_weight, mean.to(accumulation)


def _divisor(label_weight: Tensor) -> Tensor:
    """Of the mean cross-entropy: the weights of all pixels that count; 1 if they add up to 0."""
    total = label_weight.sum()
    return total.where(total != 0, 1)


def _fake(logits: Tensor, target: Tensor, tables: Tensor, *_: object) -> Sums:
    accumulation = accumulation_dtype(logits)
    sums = [logits.new_empty(logits.shape[:2], dtype=accumulation) for _ in range(2)]
    label_weight = logits.new_empty(tables.shape[:2], dtype=torch.double)
    return sums[0], sums[1], label_weight, logits.new_empty((), dtype=accumulation)


def backward_kernel(
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    upstream_cross_entropy: Tensor,
    *arguments: Any,  # noqa: ANN401
    factor: Tensor | None = None,
) -> Tensor:
    """The gradient of the logits; on CUDA times a factor `[]` of the type of the arithmetic."""
    inputs = DiceInputs(*arguments).contiguous()
    gradient = torch.empty_like(inputs.logits)
    accumulation = accumulation_dtype(gradient)
    upstream = [each.to(accumulation).contiguous() for each in (upstream_intersection, upstream_prediction)]
    of_cross_entropy = upstream_cross_entropy.double()
    inputs.launch(
        f"{NAME}_backward",
        upstream_intersection=upstream[0].data_ptr(),
        upstream_prediction=upstream[1].data_ptr(),
        upstream_cross_entropy=of_cross_entropy.data_ptr(),
        gradient=gradient.data_ptr(),
        **({"factor": _native.pointer(factor)} if _native.is_cuda(gradient) else {}),
    )
    return gradient


def _backward_fake(
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    upstream_cross_entropy: Tensor,
    logits: Tensor,
    *_: object,
) -> Tensor:
    return torch.empty_like(readable(logits))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's
    *tensors, ctx.sigmoid, ctx.squared, ctx.ignore_index = inputs
    label_weight = output[2]
    ctx.mark_non_differentiable(label_weight)
    ctx.save_for_backward(*tensors, label_weight)


def _apply_backward(
    ctx: Any,  # noqa: ANN401 - torch's
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    _: Tensor,
    upstream_cross_entropy: Tensor,
) -> tuple[Tensor | None, ...]:
    return _gradient(ctx, upstream_intersection, upstream_prediction, upstream_cross_entropy), *(None,) * 7


def _gradient(
    ctx: Any,  # noqa: ANN401 - torch's
    upstream_intersection: Tensor,
    upstream_prediction: Tensor,
    upstream_cross_entropy: Tensor,
) -> Tensor:
    """Of the logits."""
    *tensors, label_weight = ctx.saved_tensors
    if tensors[2].shape[2] == 4:
        upstream_cross_entropy = upstream_cross_entropy / _divisor(label_weight)
    inputs = DiceInputs._make([*tensors, ctx.sigmoid, ctx.squared, ctx.ignore_index])
    return gradient(inputs, upstream_intersection, upstream_prediction, upstream_cross_entropy)


def gradient(
    inputs: DiceInputs, upstream_intersection: Tensor, upstream_prediction: Tensor, upstream_cross_entropy: Tensor
) -> Tensor:
    """Of the logits, from the upstream gradients of the first two sums and of the sum of the cross-entropy."""
    upstream = (upstream_intersection, upstream_prediction, upstream_cross_entropy)
    # With create_graph the gradient has to have a history, if only for a second derivative to be refused.
    direct = not torch.is_grad_enabled() and is_direct(*upstream)
    found: Tensor = (backward_kernel if direct else _backward)(*upstream, *inputs)
    return found


class DirectDiceSums(torch.autograd.Function):
    """The sums, where nobody looks at the call."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inputs: DiceInputs) -> Sums:  # noqa: ANN401 - torch's
        results = _kernel(*inputs)
        _setup_context(ctx, (logits, *inputs[1:]), results)
        return results

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        return _gradient(ctx, upstream[0], upstream[1], upstream[3]), None


INPUTS = (
    "Tensor logits, Tensor target, Tensor tables, Tensor merged, Tensor? pixel_weight, bool sigmoid, bool squared, "
    "int ignore_index"
)
_forward = register(
    NAME,
    f"({INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
    setup_context=_setup_context,
    backward=_apply_backward,
)
# The upstream gradients are those of the first two outputs, and of the sum of the cross-entropy.
_backward = register_backward(
    NAME,
    f"(Tensor upstream_intersection, Tensor upstream_prediction, Tensor upstream_cross_entropy, {INPUTS}) -> Tensor",
    backward_kernel,
    _backward_fake,
)
