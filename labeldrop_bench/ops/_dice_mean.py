"""The mean of Dice terms as one operator: a dozen numbers whose dozen steps take longer than the pixels do."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _native
from ._dice_operator import INPUTS, DiceInputs, SumsInMemory, backward_kernel, gradient, run
from ._direct import is_direct, is_one
from ._operator import register
from ._pixel_kernel import SCALAR, accumulation_dtype

EPSILON = 1e-5


class DiceTerms(NamedTuple):
    """`q = (2 I + offset) / (P + T + eps)`; a term is `1 - q`, or q itself.

    Attributes:
        included: `[N, K]` bool, the terms that count.
        class_weights: `[K]`, or None for 1.
        offset: of the numerator.
        complement: whether a term is `1 - q`.
    """

    included: Tensor
    class_weights: Tensor | None
    offset: float
    complement: bool

    def of(self, intersection: Tensor, total: Tensor) -> Tensor:
        """`[N, K]`: the terms of I and P + T; 0 where they do not count."""
        q = (2 * intersection + self.offset) / (total + EPSILON)
        terms = torch.where(self.included, 1 - q if self.complement else q, 0)
        return terms if self.class_weights is None else terms * self.class_weights.to(terms)

    def weights(self, like: Tensor) -> Tensor:
        """`[N, K]`."""
        weights = self.included.to(like.dtype)
        return weights if self.class_weights is None else weights * self.class_weights.to(like)


Mean = tuple[Tensor, Tensor, Tensor]


class DiceMean(NamedTuple):
    """`factor sum of terms [/ sum of weights] + cross_entropy_factor cross-entropy`.

    Attributes:
        terms: of the Dice.
        positive: `[N, L, K]` bool, the labels that T is the sum of.
        mean: whether to divide, by 1 where the weights add up to 0.
        batch: a class has one term, whose I, P and T are the sums over all samples in which it counts.
        factor: of the Dice.
        cross_entropy_factor: None if there is no cross-entropy.
    """

    terms: DiceTerms
    positive: Tensor
    mean: bool
    batch: bool
    factor: float
    cross_entropy_factor: float | None

    def of(self, sums: SumsInMemory, dtype: torch.dtype) -> Mean:
        """The value `[]`; its derivatives by I and P `[2, N, K]`, and by the sum of cross-entropies `[1]` float64."""
        _, samples, classes = sums.overlaps.shape
        overlaps, weights = sums.overlaps, self.terms.class_weights
        if weights is not None and weights.device != overlaps.device:
            weights = weights.to(overlaps.device)
        tables = self.positive, self.terms.included, weights
        positive, included, class_weight = (None if each is None else each.contiguous() for each in tables)
        slopes = torch.empty_like(overlaps, dtype=dtype)
        value = torch.empty_like(SCALAR, dtype=dtype, device=overlaps.device)
        by_cross_entropy = torch.empty(1, dtype=torch.double, device=overlaps.device)
        pointers = sums.pointers()
        if self.cross_entropy_factor is None:
            pointers["cross_entropy"] = 0
        arguments = dict(
            **pointers,
            positive=_native.pointer(positive),
            included=_native.pointer(included),
            class_weight=_native.pointer(class_weight),
            samples=samples,
            classes=classes,
            labels=sums.label_weight.shape[1],
            offset=self.terms.offset,
            epsilon=EPSILON,
            complement=self.terms.complement,
            mean=self.mean,
            batch=self.batch,
            factor=self.factor,
            cross_entropy_factor=self.cross_entropy_factor or 0.0,
            is_double=dtype == torch.float64,
            value=value.data_ptr(),
            slopes=slopes.data_ptr(),
            slope_of_cross_entropy=by_cross_entropy.data_ptr(),
        )
        if _native.is_cuda(slopes):
            arguments["stream"] = _native.stream(slopes)
        with _native.on_device(slopes):
            _native.kernel(slopes, "mean_overlap")(**arguments)
        return value, slopes, by_cross_entropy


def dice_mean(inputs: DiceInputs, mean: DiceMean, *, direct: bool) -> Tensor:
    """The mean over some pixels: `[]`.

    Args:
        inputs: checked.
        mean: what is formed of the sums.
        direct: as a function of memory, past the registered operator; the tensors are such that `is_direct`.
    """
    if not direct:
        value: Tensor = _OPERATOR(*inputs, mean.positive, *mean.terms, *mean[2:])[0]
        return value
    # past what torch does in Python for transforms, of which there are none
    apply = super(torch.autograd.Function, _DirectDiceMean).apply
    result: Tensor = apply(inputs.logits, inputs, mean)  # type: ignore[no-untyped-call]
    return result


def _compute(inputs: DiceInputs, mean: DiceMean) -> Mean:
    return mean.of(run(inputs), accumulation_dtype(inputs.logits))


def _save(ctx: Any, inputs: DiceInputs, results: Mean) -> None:  # noqa: ANN401 - torch's
    ctx.save_for_backward(*inputs[:5], *results[1:])
    ctx.options = inputs[5:]


def _gradient(ctx: Any, upstream: Tensor) -> Tensor:  # noqa: ANN401 - torch's
    *tensors, slopes, by_cross_entropy = ctx.saved_tensors
    inputs, (by_intersection, by_prediction) = DiceInputs._make([*tensors, *ctx.options]), slopes.unbind()
    if _native.is_cuda(slopes) and not torch.is_grad_enabled() and is_direct(upstream):
        factor = upstream.to(slopes.dtype)
        return backward_kernel(by_intersection, by_prediction, by_cross_entropy, *inputs, factor=factor)
    if not is_one(upstream):
        by_intersection, by_prediction = (slopes * upstream).unbind()
        by_cross_entropy = by_cross_entropy * upstream
    return gradient(inputs, by_intersection, by_prediction, by_cross_entropy)


class _DirectDiceMean(torch.autograd.Function):
    """The mean, where nobody looks at the call."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, inputs: DiceInputs, mean: DiceMean) -> Tensor:  # noqa: ANN401 - torch's
        results = _compute(inputs, mean)
        _save(ctx, DiceInputs(logits, *inputs[1:]), results)
        return results[0]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        return _gradient(ctx, upstream), None, None


def _named(arguments: tuple[Any, ...]) -> tuple[DiceInputs, DiceMean]:
    """The registered operator's arguments."""
    inputs, (positive, *terms), options = arguments[:8], arguments[8:13], arguments[13:]
    return DiceInputs(*inputs), DiceMean(DiceTerms(*terms), positive, *options)


def _kernel(*arguments: Any) -> Mean:  # noqa: ANN401 - the schema has their types
    return _compute(*_named(arguments))


def _fake(*arguments: Any) -> Mean:  # noqa: ANN401 - the schema has their types
    logits = arguments[0]
    dtype = accumulation_dtype(logits)
    slopes = logits.new_empty(2, *logits.shape[:2], dtype=dtype)
    return logits.new_empty((), dtype=dtype), slopes, logits.new_empty(1, dtype=torch.double)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Mean) -> None:  # noqa: ANN401 - torch's
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    _save(ctx, _named(inputs)[0], output)


def _apply_backward(ctx: Any, upstream: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    return None if upstream is None else _gradient(ctx, upstream), *(None,) * 16


_OPERATOR = register(
    "dice_mean",
    f"({INPUTS}, Tensor positive, Tensor included, Tensor? class_weights, float offset, bool complement, bool mean, "
    "bool batch, float factor, float? cross_entropy_factor) -> (Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
    setup_context=_setup_context,
    backward=_apply_backward,
)
