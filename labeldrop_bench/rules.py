"""Rules: from the labels that were annotated to what each pixel says about each class.

A rule maps `annotated` to two boolean tables of shape `[N, L, K]`. For a pixel with label value l in sample n,
`candidates[n, l, k]` says that the pixel may be class k, `active[n, l, k]` that the pixel says anything about class
k at all. A class that is active and no candidate is excluded; one that is not active is ignored. A label value that
is not annotated in a sample gets the background row.

Rules work on any device and never wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .constants import device_with_values
from .label_space import LabelSpace

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
    covered = (annotated & exhaustive).unsqueeze(-1) & member
    return covered.any(dim=1) | _background(member)


@per_sample
def standard(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Table:
    """What is unannotated is background: the ordinary loss (Islam et al. 2024, "standard loss")."""
    candidates = _rows(annotated, member, _background(member).expand(annotated.shape[0], -1))
    return candidates, torch.ones_like(candidates)


@per_sample
def adaptive(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Table:
    """Missing classes take no part (Mariscal-Harana et al. 2023, as described in Islam et al. 2024, section 2)."""
    covered = covered_classes(annotated, member, exhaustive)
    candidates = _rows(annotated, member, _background(member).expand_as(covered))
    return candidates, covered.unsqueeze(1) | candidates


@per_sample
def marginal(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Table:
    """A background pixel is background or any missing class (Shi et al. 2021, marginal loss)."""
    missing = ~covered_classes(annotated, member, exhaustive)
    candidates = _rows(annotated, member, missing | _background(member))
    return candidates, torch.ones_like(candidates)


def _background(member: Tensor) -> Tensor:
    """`[K]` bool: true for class 0. Row 0 of the membership, so that no new tensor has to reach the device."""
    return member[0]


def _rows(annotated: Tensor, member: Tensor, background_row: Tensor) -> Tensor:
    """`[N, L, K]`: a label's own set where it is annotated, elsewhere the sample's background row `[N, K]`."""
    background = background_row.unsqueeze(1)
    foreground = torch.where(annotated[:, 1:, None], member[1:], background)
    return torch.cat([background, foreground], dim=1)


RULES: dict[str, Rule] = {"standard": standard, "adaptive": adaptive, "marginal": marginal}


# ---- the sigmoid family: one yes or no for each foreground class ----


def binary(candidates: Tensor, active: Tensor) -> Table:
    """A table for the sigmoid family: `[N, L, K-1]`, a class is yes where it is a candidate, no where it is excluded.

    There is no channel for background. Where a pixel may be one of several classes, nothing is said about these.
    """
    undecided = candidates & ~_single(candidates)
    return (candidates & ~undecided)[..., 1:], (active & ~undecided)[..., 1:]


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

    positive: Tensor
    counted: Tensor
    active: Tensor
    merged: Tensor
    included: Tensor


DiceRule = Callable[[Tensor, Tensor, Tensor], DiceTable]


@per_sample
def dice_standard(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> DiceTable:
    """All classes; what is unannotated is background."""
    candidates, active = standard(annotated, member, exhaustive)
    included = active.any(dim=1)
    return _dice_table(candidates, active, torch.zeros_like(included), included)


@per_sample
def dice_adaptive(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> DiceTable:
    """The covered classes, among which the probability is shared out."""
    candidates, active = adaptive(annotated, member, exhaustive)
    covered = covered_classes(annotated, member, exhaustive)
    return _dice_table(candidates, active, torch.zeros_like(covered), covered)


@per_sample
def dice_marginal(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> DiceTable:
    """The covered classes; the probability of the missing ones counts as background's (Shi et al. 2021)."""
    candidates, active = marginal(annotated, member, exhaustive)
    covered = covered_classes(annotated, member, exhaustive)
    merged = ~covered.unsqueeze(1)  # into background, which is covered itself
    in_merged = (candidates & merged).any(dim=-1, keepdim=True)
    return _dice_table((candidates & ~merged) | (in_merged & _background(member)), active, ~covered, covered)


@per_sample
def dice_exclusion(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> DiceTable:
    """Positive for a class is where it certainly is not: the overlap to be avoided (Shi et al. 2021)."""
    candidates, active = marginal(annotated, member, exhaustive)
    included = active.any(dim=1)
    return DiceTable(active & ~candidates, active, active, torch.zeros_like(included), included)


@per_sample
def dice_leaf(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> DiceTable:
    """Positive are only pixels that can be one class alone; all are looked at (Fidon et al. 2021)."""
    candidates, active = marginal(annotated, member, exhaustive)
    positive = candidates & _single(candidates)
    included = positive.any(dim=1)
    return DiceTable(positive, active, active, torch.zeros_like(included), included)


DICE_RULES: dict[str, DiceRule] = {
    "standard": dice_standard,
    "adaptive": dice_adaptive,
    "marginal": dice_marginal,
    "exclusion": dice_exclusion,
    "leaf": dice_leaf,
}


def _dice_table(candidates: Tensor, active: Tensor, merged: Tensor, included: Tensor) -> DiceTable:
    """Where a pixel may be one of several classes, these are not looked at."""
    single = _single(candidates)
    counted = included.unsqueeze(1) & (single | ~candidates)
    return DiceTable(candidates & single, counted, active, merged, included)


def _single(candidates: Tensor) -> Tensor:
    """`[N, L, 1]` bool: there is one candidate."""
    return candidates.sum(dim=-1, keepdim=True) == 1
