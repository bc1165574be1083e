"""Hypothesis strategies: label spaces, annotations and whole cases for the losses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from labeldrop_bench import Label, LabelSpace, rules

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)
LAYOUTS = ("contiguous", "channels_last", "strided")


@dataclass(frozen=True)
class Case:
    """Everything a loss is called with."""

    logits: Tensor  # [N, K, *spatial]
    target: Tensor  # [N, *spatial]
    annotated: Tensor  # [N, L]
    space: LabelSpace
    ignore_index: int

    def with_logits(self, logits: Tensor) -> Case:
        return replace(self, logits=logits)

    def table(self, rule: str):
        """(candidates, active), each [N, L, K]."""
        return rules.RULES[rule](self.annotated, *rules.membership(self.space))

    def row_of_each_pixel(self, table: Tensor) -> Tensor:
        """[N, *spatial, K]: a table's row for every pixel; that of label 0 for ignored pixels."""
        label = torch.where(self.target == self.ignore_index, 0, self.target.long())
        sample = torch.arange(len(label)).view(-1, *[1] * (label.ndim - 1))
        return table[sample, label]

    @property
    def counted(self) -> Tensor:
        return self.target != self.ignore_index


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values with other strides: [N, K, *spatial]."""
    if layout == "channels_last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":  # every second element of a larger tensor: neither of the layouts that kernels read
        return torch.stack([tensor, tensor], dim=-1).flatten(-2)[..., ::2]
    return tensor.contiguous()


@st.composite
def label_spaces(draw, max_classes: int = 40):
    """One label per class, with super-labels and labels that are not exhaustive mixed in."""
    num_classes = draw(st.integers(2, max_classes))
    exhaustive = draw(st.lists(st.integers(0, 5).map(bool), min_size=num_classes, max_size=num_classes))
    labels = [Label("background", frozenset({0}))]
    labels += [Label(f"label {c}", frozenset({c}), exhaustive[c]) for c in range(1, num_classes)]
    for s in range(draw(st.integers(0, 2))):
        members = draw(st.sets(st.integers(1, num_classes - 1), min_size=1, max_size=4))
        labels.append(Label(f"super {s}", frozenset(members), exhaustive=draw(st.booleans())))
    return LabelSpace(tuple(f"class {c}" for c in range(num_classes)), tuple(labels))


@st.composite
def annotations(draw, samples: int, num_labels: int):
    """[N, L] bool, column 0 true."""
    rows = st.lists(st.booleans(), min_size=num_labels - 1, max_size=num_labels - 1)
    return torch.tensor([[True, *draw(rows)] for _ in range(samples)])


@st.composite
def cases(draw, dtype=torch.float32, max_classes: int = 40, spaces=None):
    """Shapes, strides, integer types, annotations, ignored pixels and the logits' scale vary."""
    space = draw(spaces if spaces is not None else label_spaces(max_classes))
    samples = draw(st.integers(1, 3))
    # sizes around the kernel's vectors (4, 8, 16 pixels) and blocks (64 to 512 pixels)
    shape = draw(
        st.one_of(
            st.tuples(st.sampled_from([1, 7, 16, 33, 64, 513, 1024])),
            st.tuples(st.integers(1, 9), st.integers(1, 17)),
            st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)),
        )
    )
    integer = draw(st.sampled_from(INTEGERS))
    ignore_index = draw(st.sampled_from([-100, space.num_labels, 200]) if integer != torch.uint8 else st.just(200))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0, 50.0]))
    logits = torch.randn(samples, space.num_classes, *shape, generator=generator, dtype=torch.float64) * scale
    target = torch.randint(0, space.num_labels, (samples, *shape), generator=generator)
    if draw(st.booleans()):
        target[torch.rand(target.shape, generator=generator) < 0.3] = ignore_index
    return Case(
        lay_out(logits.to(dtype), draw(st.sampled_from(LAYOUTS))),
        target.to(integer),
        draw(annotations(samples, space.num_labels)),
        space,
        ignore_index,
    )
