"""Random problems for dice_sums, on any device, and what counts as the right answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from strategies import Case, cases, lay_out
from torch import Tensor

from labeldrop_bench import LabelSpace, ops, reference

MODES = ("softmax", "softmax with cross-entropy", "sigmoid")


@dataclass(frozen=True)
class Problem:
    """Everything that dice_sums is called with."""

    case: Case
    tables: dict[str, Tensor]  # positive, counted, active, candidates [N, L, K]; merged [N, K]
    mode: str
    squared: bool
    pixel_weight: Tensor | None = None  # [N, *spatial]

    def sums(self, backend, logits):
        tables = dict(self.tables)
        if self.mode != "softmax with cross-entropy":
            del tables["candidates"]
        return backend.dice_sums(
            logits,
            self.case.target,
            **tables,
            pixel_weight=self.pixel_weight,
            squared=self.squared,
            activation="sigmoid" if self.mode == "sigmoid" else "softmax",
            ignore_index=self.case.ignore_index,
        )

    def run(self, backend, dtype, upstream):
        """The four results and the gradient of their product with `upstream`, in float64."""
        logits = self.case.logits.detach().to(dtype).requires_grad_()
        sums = self.sums(backend, logits)
        parts = (sums.intersection, sums.prediction, sums.cross_entropy)
        total = sum((u.to(part.dtype) * part).sum() for u, part in zip(upstream, parts, strict=True))
        total.backward()
        return [each.detach().double() for each in (*sums, logits.grad)]


def random_tables(case, seed):
    """Any tables that the operator takes: what rules would never say is among them."""
    generator = torch.Generator().manual_seed(seed)
    samples, labels, classes = len(case.target), case.space.num_labels, case.space.num_classes

    def draw(share, *shape):
        return torch.rand(*shape, generator=generator) < share

    table = (samples, labels, classes)
    candidates = draw(0.3, *table)
    candidates[..., 1] |= ~candidates.any(dim=-1)
    return {
        "positive": draw(0.4, *table),
        "counted": draw(0.7, *table),
        "active": candidates | draw(0.5, *table),
        "merged": draw(0.3, samples, classes),
        "candidates": candidates,
    }


def alike_tables(case, seed):
    """Tables whose rows differ in few classes, as rules' do: one candidate, positive for a few, otherwise two kinds."""
    generator = torch.Generator().manual_seed(seed)
    samples, labels, classes = len(case.target), case.space.num_labels, case.space.num_classes

    def of_kind(share):
        kind = torch.randint(0, 2, (samples, labels), generator=generator)
        table = torch.rand(samples, 2, classes, generator=generator) < share
        table[..., 1] = True
        return table.gather(1, kind.unsqueeze(-1).expand(-1, -1, classes))

    def one_of(table):
        rank = torch.rand(table.shape, generator=generator) * table
        return rank == rank.amax(dim=-1, keepdim=True)

    active, counted = of_kind(0.8), of_kind(0.8)
    several = torch.rand(active.shape, generator=generator) < 2 / classes
    merged = torch.rand(samples, classes, generator=generator) < 0.1
    return {
        "positive": one_of(counted) | several,
        "counted": counted,
        "active": active,
        "merged": merged,
        "candidates": one_of(active),
    }


def in_runs(case, length):
    """The same with labels that `length` pixels in a row have in common."""
    target = case.target.flatten(1)
    pixel = torch.arange(target.shape[1]) // length * length
    return replace(case, target=target[:, pixel].view_as(case.target))


def random_weights(target, seed):
    """[N, *spatial] float32 up to 3, a third of them 0, some very small."""
    generator = torch.Generator().manual_seed(seed)
    weight = 3 * torch.rand(target.shape, generator=generator)
    kind = torch.rand(target.shape, generator=generator)
    return torch.where(kind < 0.3, 0, torch.where(kind > 0.9, weight * 1e-6, weight))


@st.composite
def problems(draw, dtype, **options):
    case = in_runs(draw(cases(dtype, **options)), draw(st.sampled_from([1, 5, 13, 100])))
    seed = draw(st.integers(0, 2**31))
    weight = random_weights(case.target, seed) if draw(st.booleans()) else None
    tables = draw(st.sampled_from([random_tables, alike_tables]))(case, seed)
    return Problem(case, tables, draw(st.sampled_from(MODES)), draw(st.booleans()), weight)


def random_upstream(problem, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = problem.case.logits.shape[:2]
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, shape, ())]


def assert_fused_is_exact(problem, seed=0):
    """Against the reference in float64.

    The exponent z - max is off by eps * |z| and the exponential by 2 ulp, so a probability is off by a few
    eps * (1 + |z|) relatively; the sum of a block of up to 32 vectors adds as many roundings, and is in float64 from
    there on. Probabilities below float32's normal numbers are 0. In the gradient p (g - mean) the same holds relative
    to the largest g, times the pixel's weight; the cross-entropy is a difference of numbers as large as the logits.
    Half types round once more when the gradient is stored.
    """
    dtype = problem.case.logits.dtype
    upstream = random_upstream(problem, seed)
    fused = problem.run(ops, dtype, upstream)
    exact = problem.run(reference, torch.float64, upstream)
    eps = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    unit = 32 * eps * (1 + float(problem.case.logits.double().abs().max()))
    heaviest = 1 if problem.pixel_weight is None else max(1, float(problem.pixel_weight.max()))
    for result, expected in zip(fused[:3], exact[:3], strict=True):
        assert bool(((result - expected).abs() <= unit * expected + 1e-30).all())
    assert float((fused[3] - exact[3]).abs()) <= unit
    # g is an intersection's and a prediction's upstream gradient, the latter times 2 q <= 2 K for sigmoids of merged
    # classes; the cross-entropy's upstream gradient is divided by the number of pixels
    largest_q = problem.case.space.num_classes if problem.mode == "sigmoid" else 1
    largest = float(upstream[0].abs().max() + 2 * largest_q * upstream[1].abs().max() + upstream[2].abs()) * heaviest
    storage = torch.finfo(dtype)
    allowed = unit * largest + storage.eps / 2 * exact[4].abs() + storage.smallest_normal * storage.eps
    assert bool(((fused[4] - exact[4]).abs() <= allowed).all())


def problem_of(num_classes, pixels, mode, dtype=torch.float32, layout="contiguous", integer=torch.uint8, squared=False):
    """Two samples of random logits and tables; every seventh pixel is ignored."""
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(2, num_classes, pixels, generator=generator).to(dtype)
    target = torch.randint(0, num_classes, (2, pixels), generator=generator)
    ignore_index = 255 if num_classes < 255 and integer == torch.uint8 else -100
    target[:, ::7] = ignore_index
    annotated = torch.ones(2, num_classes, dtype=torch.bool)
    space = LabelSpace.of_classes(num_classes)
    case = Case(lay_out(logits, layout), target.to(integer), annotated, space, ignore_index)
    return Problem(case, random_tables(case, 0), mode, squared)
