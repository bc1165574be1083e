"""Rules: from the labels that were annotated to what each pixel says about each class.

A rule maps `annotated` to two boolean tables of shape `[N, L, K]`. For a pixel with label value l in sample n,
`candidates[n, l, k]` says that the pixel may be class k, `active[n, l, k]` that the pixel says anything about class
k at all. A class that is active and no candidate is excluded; one that is not active is ignored. A label value that
is not annotated in a sample gets the background row.

Rules work on any device and never wait for it. Those here are formulas of sets (`sets.py`), which a GPU computes for a
whole batch by one kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .constants import device_with_values
from .label_space import LabelSpace
from .sets import Set, Sets

Table = tuple[Tensor, Tensor]
Rule = Callable[[Tensor, Tensor, Tensor], Table]
Function = TypeVar("Function", bound=Callable[..., Any])
PER_SAMPLE: set[Callable[..., Any]] = set()


def per_sample(rule: Function) -> Function:
    """Declares that what a rule says of a sample follows from that sample's `annotated` and the label space alone.

    Losses keep such a rule's tables, and do not ask again for what they have seen. Any other rule is asked each time.
    """
    PER_SAMPLE.add(rule)
    return rule


def is_per_sample(rule: Callable[..., Any]) -> bool:
    """Whether that was declared."""
    try:
        return rule in PER_SAMPLE
    except TypeError:  # not hashable, so somebody else's
        return False


def membership(space: LabelSpace) -> Table:
    """A label space as tensors.

    Returns:
        member: `[L, K]` bool, does the label's set hold the class?
        exhaustive: `[L]` bool, see `Label`.
    """
    device = device_with_values()
    member = torch.zeros(space.num_labels, space.num_classes, dtype=torch.bool, device=device)
    for value, label in enumerate(space.labels):
        member[value, sorted(label.classes)] = True
    return member, torch.tensor([label.exhaustive for label in space.labels], device=device)


def covered_classes(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Tensor:
    """Classes that a background pixel certainly is not, and background: `[N, K]` bool.

    A class is covered where some label that is annotated and exhaustive holds it.
    """
    covered: Tensor = Sets(annotated, member, exhaustive).covered.squeeze(1)
    return covered


class SetRule:
    """A rule that is a formula of sets: a decorator of functions of `Sets`.

    Attributes:
        formula: sets -> candidates and active classes, as sets.
    """

    def __init__(self, formula: Callable[[Sets], Any]) -> None:
        self.formula = formula
        update_wrapper(self, formula)
        per_sample(self)

    def __call__(self, annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Any:  # noqa: ANN401 - a subclass has others
        """Tables `[N, L, K]`."""
        shape = (*annotated.shape, member.shape[1])
        candidates, active = self.formula(Sets(annotated, member, exhaustive))
        return candidates.expand(shape), active.expand(shape)


@SetRule
def standard(s: Sets) -> tuple[Set, Set]:
    """What is unannotated is background: the ordinary loss (Islam et al. 2024, "standard loss")."""
    return s.rows(s.background), s.everything


@SetRule
def adaptive(s: Sets) -> tuple[Set, Set]:
    """Missing classes take no part (Mariscal-Harana et al. 2023, as described in Islam et al. 2024, section 2)."""
    candidates = s.rows(s.background)
    return candidates, s.covered | candidates


@SetRule
def marginal(s: Sets) -> tuple[Set, Set]:
    """A background pixel is background or any missing class (Shi et al. 2021, marginal loss)."""
    missing = ~s.covered
    return s.rows(missing | s.background), s.everything


RULES: dict[str, Rule] = {"standard": standard, "adaptive": adaptive, "marginal": marginal}


# ---- the sigmoid family: one yes or no for each foreground class ----


def binary(candidates: Set, active: Set, *, sets: type[Sets] = Sets) -> tuple[Set, Set]:
    """A table for the sigmoid family: `[N, L, K-1]`, a class is yes where it is a candidate, no where it is excluded.

    There is no channel for background. Where a pixel may be one of several classes, nothing is said about these.
    """
    undecided = candidates & ~sets.single(candidates)
    return sets.foreground(candidates & ~undecided), sets.foreground(active & ~undecided)


# A background pixel may be any missing class by the marginal rule, so the sigmoid family ignores these there; a
# labelled pixel is none of the others. That is SMILE (Petit et al. 2018).
SIGMOID_RULES: dict[str, Rule] = {"standard": standard, "adaptive": adaptive, "smile": marginal}


# ---- the Dice family: which pixels are positive for a class, which are looked at ----


class DiceTable(NamedTuple):
    """What a Dice loss asks of each label value, for `ops.dice_sums`.

    Attributes:
        positive: `[N, L, K]` bool, is a pixel with this label a positive of the class?
        counted: `[N, L, K]` bool, is it looked at for the class at all?
        active: `[N, L, K]` bool, the classes that share the pixel's probability.
        merged: `[N, K]` bool, classes whose probability counts as background's.
        included: `[N, K]` bool, classes that have a Dice in this sample.
    """

    positive: Set
    counted: Set
    active: Set
    merged: Set
    included: Set


DiceRule = Callable[[Tensor, Tensor, Tensor], DiceTable]


class DiceSetRule(SetRule):
    """The same for Dice: its formula gives a `DiceTable` of sets."""

    def __call__(self, annotated: Tensor, member: Tensor, exhaustive: Tensor) -> DiceTable:
        """See `DiceTable`."""
        *rows, merged, included = self.formula(Sets(annotated, member, exhaustive))
        samples, labels, classes = *annotated.shape, member.shape[1]
        of_samples = (each.expand(samples, 1, classes).squeeze(1) for each in (merged, included))
        return DiceTable(*(each.expand(samples, labels, classes) for each in rows), *of_samples)


@DiceSetRule
def dice_standard(s: Sets) -> DiceTable:
    """All classes; what is unannotated is background."""
    candidates, active = standard.formula(s)
    return _dice_table(s, candidates, active, ~s.everything, s.everything)


@DiceSetRule
def dice_adaptive(s: Sets) -> DiceTable:
    """The covered classes, among which the probability is shared out."""
    candidates, active = adaptive.formula(s)
    return _dice_table(s, candidates, active, ~s.everything, s.covered)


@DiceSetRule
def dice_marginal(s: Sets) -> DiceTable:
    """The covered classes; the probability of the missing ones counts as background's (Shi et al. 2021)."""
    candidates, active = marginal.formula(s)
    merged = ~s.covered  # into background, which is covered itself
    in_merged = s.occupied(candidates & merged)
    return _dice_table(s, candidates & ~merged | in_merged & s.background, active, merged, s.covered)


@DiceSetRule
def dice_exclusion(s: Sets) -> DiceTable:
    """Positive for a class is where it certainly is not: the overlap to be avoided (Shi et al. 2021)."""
    candidates, active = marginal.formula(s)
    return DiceTable(active & ~candidates, active, active, ~s.everything, s.everything)


@DiceSetRule
def dice_leaf(s: Sets) -> DiceTable:
    """Positive are only pixels that can be one class alone; all are looked at (Fidon et al. 2021)."""
    candidates, active = marginal.formula(s)
    positive = candidates & s.single(candidates)
    return DiceTable(positive, active, active, ~s.everything, s.in_some_row(positive))


DICE_RULES: dict[str, DiceRule] = {
    "standard": dice_standard,
    "adaptive": dice_adaptive,
    "marginal": dice_marginal,
    "exclusion": dice_exclusion,
    "leaf": dice_leaf,
}


def _dice_table(s: Sets, candidates: Set, active: Set, merged: Set, included: Set) -> DiceTable:
    """Where a pixel may be one of several classes, these are not looked at."""
    single = s.single(candidates)
    return DiceTable(candidates & single, included & (single | ~candidates), active, merged, included)
