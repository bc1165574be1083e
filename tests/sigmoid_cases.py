"""Cases for the losses of the sigmoid family: one term for each class of a pixel, no background channel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from hypothesis import strategies as st
from strategies import LAYOUTS, Case, cases, lay_out
from torch import Tensor


@dataclass(frozen=True)
class SigmoidCase:
    """Everything such a loss is called with, its own options left out."""

    logits: Tensor  # [N, C K, *spatial], C channels a class
    target: Tensor  # [N, *spatial]
    candidates: Tensor  # [N, L, K]
    active: Tensor  # [N, L, K]
    ignore_index: int = -100
    weights: dict[str, Tensor] = field(default_factory=dict)  # class_weight [K], pixel_weight [N, *spatial]

    @property
    def pixel_weight(self) -> Tensor:
        """[N, *spatial] float64; 0 where a pixel does not count."""
        weight = self.weights.get("pixel_weight", torch.ones(self.target.shape))
        return torch.where(self.target == self.ignore_index, 0.0, weight.double())

    @property
    def counted(self) -> Tensor:
        """[N, C K, *spatial]: which channels matter."""
        label = torch.where(self.target == self.ignore_index, 0, self.target.long())
        sample = torch.arange(len(label)).view(-1, *[1] * (label.ndim - 1))
        rows = self.active[sample, label].movedim(-1, 1) & (self.pixel_weight != 0).unsqueeze(1)
        return rows.repeat(1, self.logits.shape[1] // rows.shape[1], *[1] * (label.ndim - 1))

    def with_logits(self, logits: Tensor) -> SigmoidCase:
        return replace(self, logits=logits)

    def double(self) -> SigmoidCase:
        weights = {name: weight.double() for name, weight in self.weights.items()}
        return replace(self, logits=self.logits.double(), weights=weights)

    def loss(self, operator, logits=None, **options) -> Tensor:
        return operator(
            self.logits if logits is None else logits,
            self.target,
            self.candidates,
            self.active,
            ignore_index=self.ignore_index,
            **self.weights,
            **options,
        )

    def run(self, operator, upstream=None, **options) -> tuple[Tensor, Tensor]:
        """Loss and gradient."""
        logits = self.logits.detach().requires_grad_()
        loss = self.loss(operator, logits, **options)
        loss.backward(torch.ones_like(loss) if upstream is None else upstream.to(loss.dtype))
        return loss.detach(), logits.grad


def sigmoid_table(case: Case, rule: str) -> tuple[Tensor, Tensor]:
    """(candidates, active), each [N, L, K - 1]: no background, and of several candidates none says anything."""
    candidates, active = case.table(rule)
    several = candidates.sum(dim=-1, keepdim=True) > 1
    return candidates[..., 1:], (active & ~(candidates & several))[..., 1:]


@st.composite
def sigmoid_cases(draw, channels_per_class: int = 1, dtype=torch.float32, max_classes: int = 40):
    """As `cases`, with the tables of some rule, with and without weights, some of them 0."""
    case = draw(cases(dtype, max_classes))
    classes = case.space.num_classes - 1
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    others = torch.randn(
        len(case.target), (channels_per_class - 1) * classes, *case.target.shape[1:], generator=generator
    )
    scale = draw(st.sampled_from([0.1, 1.0, 5.0, 50.0]))
    logits = torch.cat([case.logits[:, 1:], (scale * others).to(dtype)], dim=1)
    weights = {}
    if draw(st.booleans()):
        weights["class_weight"] = torch.rand(classes, generator=generator)
    if draw(st.booleans()):
        kept = torch.rand(case.target.shape, generator=generator) < 0.7
        weights["pixel_weight"] = torch.rand(case.target.shape, generator=generator) * kept
    return SigmoidCase(
        lay_out(logits, draw(st.sampled_from(LAYOUTS))),
        case.target,
        *sigmoid_table(case, draw(st.sampled_from(["standard", "adaptive", "marginal"]))),
        case.ignore_index,
        weights,
    )


def random_case(logits: Tensor, channels_per_class: int = 1, labels: int = 6) -> SigmoidCase:
    """Logits with a random target (some of it ignored) and random tables, whose rows are of every kind."""
    samples, classes = logits.shape[0], logits.shape[1] // channels_per_class
    target = torch.randint(0, labels, (samples, *logits.shape[2:]))
    target[torch.rand(target.shape) < 0.1] = -100
    active = torch.rand(samples, labels, classes) < 0.8
    return SigmoidCase(logits, target, torch.rand(samples, labels, classes) < 0.4, active)


def one_class(logits: Tensor, positive: Tensor) -> SigmoidCase:
    """Pixels [S] of one class that is a candidate where `positive` [S], else excluded; logits [C, S]."""
    table = torch.tensor([[[False], [True]]])
    return SigmoidCase(logits.unsqueeze(0), positive.long().unsqueeze(0), table, torch.ones_like(table))


def assert_equals_exact(operators, case: SigmoidCase, upstream=None, **options) -> None:
    """The fused operator against the plain one in float64.

    A term is a few products of factors that are right to 2 ulp, and measured to be right to 6 ulp of 1 + its size; the
    float64 reference, which has no better arithmetic for float64 logits, forms 1 - t for a target t and multiplies it
    by up to |z|. So a pixel is off by at most 8 eps K (1 + |z|), a sum by so much for every pixel; all weights are at
    most 1. A gradient is a term's derivative times weight, upstream and 1 / divisor; half types round once more when
    it is stored.
    """
    fused, exact = (c.run(f, upstream, **options) for f, c in zip(operators, (case, case.double()), strict=True))
    storage = torch.finfo(case.logits.dtype)
    eps = torch.finfo(fused[0].dtype).eps
    size = 1 + float(case.logits.double().abs().max())
    reduction = options.get("reduction", "mean")

    pixels = case.target.numel() if reduction == "sum" else 1
    torch.testing.assert_close(
        fused[0].double(), exact[0], rtol=8 * eps, atol=8 * eps * size * case.active.shape[-1] * pixels
    )
    largest = 1.0 if upstream is None else float(upstream.abs().max())
    if reduction == "mean":
        largest *= float(case.pixel_weight.max() / case.pixel_weight.sum().clamp(min=1e-30))
    error = (fused[1].double() - exact[1]).abs()
    rounding = (storage.eps / 2 + 8 * eps) * exact[1].abs() + storage.smallest_normal * storage.eps
    assert bool((error <= 8 * eps * size * largest + rounding).all())
