"""Cases for predictive variance, whose logits are two channels a class: value and log-variance."""

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from strategies import INTEGERS, LAYOUTS, lay_out
from torch import Tensor

MODES = (("loss", 0.0), ("loss", 2.0), ("loss", 1.3), ("probability", 0.0))  # (average, gamma): a kernel each
KEY = torch.tensor([-1234567890123456789])


@dataclass(frozen=True)
class Case:
    """Everything the operator is called with."""

    logits: Tensor  # [N, 2 K, *spatial]
    target: Tensor  # [N, *spatial]
    candidates: Tensor  # [N, L, K]
    active: Tensor  # [N, L, K]
    class_weight: Tensor | None = None  # [K]
    pixel_weight: Tensor | None = None  # [N, *spatial]
    key: Tensor = KEY
    samples: int = 5
    gamma: float = 0.0
    average: str = "loss"
    ignore_index: int = -100

    def __call__(self, backend, logits, reduction="mean"):
        arguments = dict(vars(self), reduction=reduction)
        del arguments["logits"]
        return backend.predictive_variance(logits, **arguments)

    @property
    def active_pixels(self):
        """[N, K, *spatial]: which classes of which pixels have a part in the loss."""
        label = torch.where(self.target == self.ignore_index, 0, self.target.long())
        sample = torch.arange(len(label)).view(-1, *[1] * (label.ndim - 1))
        counted = self.target != self.ignore_index
        if self.pixel_weight is not None:
            counted = counted & (self.pixel_weight != 0)
        return self.active[sample, label].movedim(-1, 1) & counted.unsqueeze(1)


def make(classes=3, shape=(2, 5, 7), labels=4, seed=0, scale=2.0, dtype=torch.float32, **options):
    """A case with random tables, some ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    samples, *spatial = shape
    logits = torch.randn(samples, 2 * classes, *spatial, generator=generator, dtype=torch.float64) * scale
    target = torch.randint(0, labels, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = options.get("ignore_index", -100)
    candidates = torch.rand(samples, labels, classes, generator=generator) < 0.4
    active = candidates | (torch.rand(samples, labels, classes, generator=generator) < 0.5)
    return Case(logits.to(dtype), target, candidates, active, **options)


@st.composite
def cases(draw, dtype=torch.float32, most_classes=20):
    """Shapes around the kernel's vectors and blocks, layouts, types, tables, weights, and the options."""
    shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 3), st.sampled_from([1, 7, 16, 33, 513])),
            st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 9)),
            st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
        )
    )
    integer = draw(st.sampled_from(INTEGERS))
    average, gamma = draw(st.sampled_from(MODES))
    case = make(
        draw(st.integers(1, most_classes)),  # two and more channels: in place up to 16, through scratch beyond
        shape,
        seed=draw(st.integers(0, 2**31)),
        scale=draw(st.sampled_from([0.1, 1.0, 3.0])),
        dtype=dtype,
        ignore_index=200 if integer == torch.uint8 else -100,
        key=torch.tensor([draw(st.integers(-(2**63), 2**63 - 1))]),
        samples=draw(st.sampled_from([1, 2, 3, 4, 7, 10, 65])),
        average=average,
        gamma=gamma,
    )
    weights = {}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if draw(st.booleans()):
        weights["class_weight"] = torch.rand(case.active.shape[2], generator=generator)
    if draw(st.booleans()):
        drawn = torch.rand(2, *shape, generator=generator)
        weights["pixel_weight"] = drawn[0] * (drawn[1] < 0.7)
    logits = lay_out(case.logits, draw(st.sampled_from(LAYOUTS)))
    return replace(case, logits=logits, target=case.target.to(integer), **weights)


def run(backend, case, reduction="mean", upstream=None):
    """Loss and gradient."""
    logits = case.logits.detach().requires_grad_()
    loss = case(backend, logits, reduction)
    loss.backward(torch.ones_like(loss) if upstream is None else upstream.to(loss.dtype))
    return loss.detach(), logits.grad


def one_class(z, s, samples, pixels, positive=True, **options):
    """The same logit and log-variance in every pixel."""
    logits = torch.tensor([z, s]).view(1, 2, 1).repeat(1, 1, pixels)
    table = torch.ones(1, 1, 1, dtype=torch.bool)
    target = torch.zeros(1, pixels, dtype=torch.uint8)
    return Case(logits, target, table & positive, table, samples=samples, **options)
