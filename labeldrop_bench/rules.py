"""Rules: from the labels that were drawn to what each pixel says about each class.

A rule maps `annotated` to two boolean tables of shape `[N, L, K]`. For a pixel with label value l in sample n,
`candidates[n, l, k]` says that the pixel may be class k, `active[n, l, k]` that the pixel says anything about class
k at all. A class that is active and no candidate is excluded; one that is not active is ignored. A label value that
is not annotated in a sample gets the background row.

Rules work on any device and never wait for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .label_space import LabelSpace

Table = tuple[Tensor, Tensor]
Rule = Callable[[Tensor, Tensor, Tensor], Table]


def membership(space: LabelSpace) -> Table:
    """A label space as tensors.

    Returns:
        member: `[L, K]` bool, does the label's set hold the class?
        exhaustive: `[L]` bool, see `Label`.
    """
    member = torch.zeros(space.num_labels, space.num_classes, dtype=torch.bool)
    for value, label in enumerate(space.labels):
        member[value, sorted(label.classes)] = True
    return member, torch.tensor([label.exhaustive for label in space.labels])


def covered_classes(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Tensor:
    """Classes that a background pixel certainly is not, and background: `[N, K]` bool.

    A class is covered where some label that is annotated and exhaustive holds it.
    """
    drawn = (annotated & exhaustive).unsqueeze(-1) & member
    return drawn.any(dim=1) | _background(member)


def standard(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Table:
    """What was not drawn is background: the ordinary loss (Islam et al. 2024, "standard loss")."""
    candidates = _rows(annotated, member, _background(member).expand(len(annotated), -1))
    return candidates, torch.ones_like(candidates)


def adaptive(annotated: Tensor, member: Tensor, exhaustive: Tensor) -> Table:
    """Missing classes take no part (Mariscal-Harana et al. 2023, as described in Islam et al. 2024, section 2)."""
    covered = covered_classes(annotated, member, exhaustive)
    candidates = _rows(annotated, member, _background(member).expand_as(covered))
    return candidates, covered.unsqueeze(1) | candidates


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
