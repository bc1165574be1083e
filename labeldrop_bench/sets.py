"""Sets of classes, one for each label value of each sample: what rules are written in.

A formula takes `Sets` and joins what these have by `&`, `|`, `~` and their methods. With `Sets` themselves it computes
tables of bool, on any device and within compiled graphs. With a `Program` nothing is computed: the steps are noted, and
one kernel takes all of them for a whole batch, instead of a kernel for each step.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

# [N, L, K] bool, or what can be broadcast to it; or the step of a program that stands for it.
Set: TypeAlias = Any


class Sets:
    """Sets as tensors.

    Args:
        annotated: `[N, L]` bool.
        member: `[L, K]` bool.
        exhaustive: `[L]` bool.

    Attributes:
        background: class 0 alone.
        everything: all K classes.
        covered: background, and the classes of which the sample has an annotated and exhaustive label.
    """

    def __init__(self, annotated: Tensor, member: Tensor, exhaustive: Tensor) -> None:
        self.annotated, self.member = annotated, member
        self.background: Set = member[0]  # [K]; so that no new tensor has to reach the device
        self.everything: Set = torch.ones_like(member[0])
        covered = ((annotated & exhaustive).unsqueeze(-1) & member).any(dim=1, keepdim=True)
        self.covered: Set = covered | self.background  # [N, 1, K]

    def rows(self, background_row: Set) -> Set:
        """A label's own set where it is annotated; elsewhere, and for background, the sample's `background_row`."""
        foreground = torch.where(self.annotated[:, 1:, None], self.member[1:], background_row)
        first = background_row.expand(self.annotated.shape[0], 1, self.member.shape[1])
        return torch.cat([first, foreground], dim=1)

    @staticmethod
    def single(sets: Set) -> Set:
        """Everything where a set has one class, else nothing."""
        return sets.sum(dim=-1, keepdim=True) == 1

    @staticmethod
    def occupied(sets: Set) -> Set:
        """Everything where a set has any class, else nothing."""
        return sets.any(dim=-1, keepdim=True)

    @staticmethod
    def in_some_row(sets: Set) -> Set:
        """The classes that any label's set in the sample has. What is made of that may not have rows of its own."""
        return sets.any(dim=1, keepdim=True)

    @staticmethod
    def foreground(sets: Set) -> Set:
        """The sets without background, which loses its place: K - 1 classes."""
        return sets[..., 1:]


class Step:
    """A step of a program, which stands for what comes of it."""

    __slots__ = ("everything", "number", "program")

    def __init__(self, program: Program, number: int, everything: Step | None = None) -> None:
        self.program, self.number = program, number
        self.everything = everything  # if that is not the program's

    def __and__(self, other: Step) -> Step:
        return self.program.step("and", self, other)

    def __or__(self, other: Step) -> Step:
        return self.program.step("or", self, other)

    def __invert__(self) -> Step:
        others = self.program.step("not", self)
        return others if self.everything is None else others & self.everything


class Program(Sets):
    """A formula as steps, each of which makes a set of one or two that are there; equal steps are one.

    Attributes:
        steps: (code, first, second): what it does, and the places of what it does that to.
    """

    # in the order of `SetCode` in csrc/arguments.h
    CODES: ClassVar[tuple[str, ...]] = (
        "background", "everything", "covered", "rows", "single", "occupied", "in_some_row", "foreground", "and", "or",
        "not",
    )  # fmt: skip

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, int]] = []
        self.background, self.everything, self.covered = map(self.step, self.CODES[:3])

    def step(self, name: str, first: Step | None = None, second: Step | None = None) -> Step:
        """A new step, or an earlier one that is the same."""
        numbers = [0 if each is None else each.number for each in (first, second)]
        step = (self.CODES.index(name), numbers[0], numbers[1])
        if step not in self.steps:
            self.steps.append(step)
        everything = next((each.everything for each in (first, second) if each is not None and each.everything), None)
        return Step(self, self.steps.index(step), everything)

    def rows(self, background_row: Set) -> Set:
        """See `Sets`."""
        return self.step("rows", background_row)

    @staticmethod
    def single(sets: Set) -> Set:
        """See `Sets`."""
        return sets.program.step("single", sets)

    @staticmethod
    def occupied(sets: Set) -> Set:
        """See `Sets`."""
        return sets.program.step("occupied", sets)

    @staticmethod
    def in_some_row(sets: Set) -> Set:
        """See `Sets`."""
        return sets.program.step("in_some_row", sets)

    @staticmethod
    def foreground(sets: Set) -> Set:
        """See `Sets`."""
        program = sets.program
        left = program.step("foreground", program.everything)
        left.everything = left
        return Step(program, program.step("foreground", sets).number, left)

    def code(self) -> bytes:
        """As the kernel reads it."""
        return bytes(number for step in self.steps for number in step)
