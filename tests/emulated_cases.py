"""Problems of the losses that are sums over pixels, and how the emulated CUDA kernels are compared on them."""

from dataclasses import dataclass, replace
from importlib import import_module

import torch
from torch import Tensor

from labeldrop_bench import ops, reference
from labeldrop_bench.ops._pixel_operator import PixelOperator

KEY = torch.tensor([-1234567890123456789])
# (channels of a class, weight that only this loss has, the options that choose between kernels)
LOSSES = {
    "set_cross_entropy": (1, "label_weight", [{}]),
    "sigmoid_focal": (1, "class_weight", [{}, {"gamma": 2.0, "alpha": 0.25}, {"gamma": 1.3}]),
    "label_flip": (2, "class_weight", [{}, {"gamma": 2.0}, {"gamma": 1.3, "detach_target": True}]),
    "predictive_variance": (
        2,
        "class_weight",
        [
            {"key": KEY},
            {"key": KEY, "samples": 7, "gamma": 2.0},
            {"key": KEY, "samples": 3, "gamma": 1.3},
            {"key": KEY, "samples": 5, "average": "probability"},
        ],
    ),
}


@dataclass(frozen=True)
class Case:
    """Everything a loss is called with."""

    name: str
    logits: Tensor  # [N, C, *spatial]
    target: Tensor  # [N, *spatial]
    candidates: Tensor  # [N, L, K]
    active: Tensor  # [N, L, K]
    options: dict
    ignore_index: int = -100

    def __call__(self, backend, logits, reduction="mean"):
        arguments = (logits, self.target, self.candidates, self.active)
        return getattr(backend, self.name)(
            *arguments, **self.options, ignore_index=self.ignore_index, reduction=reduction
        )

    @property
    def registered(self) -> PixelOperator:
        """The operator as torch has it."""
        return import_module(f"labeldrop_bench.ops.{self.name}")._OPERATOR


def make(name, classes, shape, seed=0, dtype=torch.float32, integer=torch.int64, weighted=False, **options):
    """A case with random tables, a fifth of the pixels ignored, some weights 0."""
    generator = torch.Generator().manual_seed(seed)
    labels = classes + 2
    channels, own_weight, _ = LOSSES[name]
    samples, *spatial = shape

    def rand(*size):
        return torch.rand(size, generator=generator)

    logits = torch.randn(samples, channels * classes, *spatial, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(0, labels, shape, generator=generator)
    ignore_index = 200 if integer == torch.uint8 else -100
    target[rand(*shape) < 0.2] = ignore_index
    candidates = rand(samples, labels, classes) < 0.3
    if name == "set_cross_entropy":
        candidates.scatter_(2, torch.randint(0, classes, (samples, labels, 1), generator=generator), True)
    active = candidates | (rand(samples, labels, classes) < 0.5)
    if weighted:
        of_pixels = rand(*shape) * (rand(*shape) < 0.8)
        options |= {"pixel_weight": of_pixels, own_weight: rand(*active.shape[slice(*_AXES[own_weight])])}
    return Case(name, logits.to(dtype), target.to(integer), candidates, active, options, ignore_index)


_AXES = {"label_weight": (0, 2), "class_weight": (2, 3)}  # of [N, L, K]


def run(backend, case, reduction="mean", upstream=None):
    """Loss and gradient."""
    logits = case.logits.detach().requires_grad_()
    loss = case(backend, logits, reduction)
    loss.backward(torch.ones_like(loss) if upstream is None else upstream.to(loss.dtype))
    return loss.detach(), logits.grad


def assert_equals_reference(device, case, reduction, order, upstream):
    """Against the plain version in float64.

    The terms are off by some ulp of |z| < 12 and of normal numbers below 7 sigma; sums over classes and pixels have a
    relative error well below 1e-5, where every wrong class, weight or sign shows in the first digits. Half types round
    the gradient once more, and their kernels may use exponentials to 1e-5.
    """
    with device(order):
        loss, gradient = run(ops, case, reduction, upstream)
    exact_loss, exact_gradient = run(reference, replace(case, logits=case.logits.double()), reduction, upstream)
    assert gradient.dtype == case.logits.dtype
    tolerance = 1e-11 if case.logits.dtype == torch.float64 else 3e-5
    torch.testing.assert_close(
        loss.double(), exact_loss, rtol=tolerance, atol=tolerance * max(1, float(exact_loss.abs().max()))
    )
    storage = torch.finfo(case.logits.dtype)
    largest = float(exact_gradient.abs().max())
    torch.testing.assert_close(
        gradient.double(),
        exact_gradient,
        rtol=storage.eps / 2 + tolerance,
        atol=tolerance * largest + storage.smallest_normal * storage.eps,
    )


def displaced(tensor):
    """The same values, one element further in memory: not aligned to vectors."""
    storage = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    storage[1:] = tensor.flatten()
    return storage[1:].view(tensor.shape)
