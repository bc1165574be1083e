"""Splits that keep together what must not be torn apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PARTS = ("train", "validation", "test")


def grouped_split(
    groups: Sequence[str], domains: Sequence[int], fractions: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Which part each sample goes to, so that a group lies in one part and each domain is divided by the fractions.

    Groups are shuffled, then placed from the largest to the smallest; each goes where the domains of its samples lack
    most samples of what the fractions ask for. A domain that got nothing in some part, as five cases of which a tenth
    is asked for, then gives it a group: without one, nothing of the domain could be scored, or no epoch be chosen.

    Args:
        groups: [n] group of each sample; a group may span domains.
        domains: [n] domain index of each sample.
        fractions: of each part; they sum to 1. A part that asks for 0 gets nothing.
        seed: of the shuffle.

    Returns:
        [n] index into `fractions`.
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.zeros((len(names), max(domains) + 1), np.int64)  # samples by group and domain
    np.add.at(counts, (group_of, np.asarray(domains)), 1)
    lacking = np.outer(fractions, counts.sum(0))  # [parts, domains]

    shuffled = np.random.default_rng(seed).permutation(len(names))
    largest_first = shuffled[np.argsort(-counts.sum(1)[shuffled], kind="stable")]
    part_of_group = np.empty(len(names), np.int64)
    for group in largest_first:
        part = int(np.argmax(lacking @ counts[group]))
        part_of_group[group] = part
        lacking[part] -= counts[group]
    _fill_empty(part_of_group, counts, largest_first[::-1], np.asarray(fractions) > 0)
    return part_of_group[group_of]


def _fill_empty(
    part_of: NDArray[np.int64], counts: NDArray[np.int64], order: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> None:
    """Moves groups, in place, into parts in which their domain has none; never one that is the last of a domain.

    Args:
        part_of: [groups] part of each.
        counts: [groups, domains] samples.
        order: [groups] which to move first.
        wanted: [parts] which may not be empty.
    """
    here = counts > 0
    for domain in range(counts.shape[1]):
        for part in np.flatnonzero(wanted):
            held = np.stack([here[part_of == p].sum(0) for p in range(len(wanted))])  # [parts, domains] groups
            movable = [g for g in order if here[g, domain] and (held[part_of[g]][here[g]] > 1).all()]
            if held[part, domain] == 0 and movable:
                fullest = max(movable, key=lambda g: held[part_of[g], domain])
                part_of[fullest] = part


def report_lacking(
    where: str, domain: Sequence[int], part: Sequence[int], domains: Sequence[str], groups: Sequence[str]
) -> None:
    """Every domain must have a sample in every split.

    Args:
        where: beginning of the message: data set and folder.
        domain: [n] domain index of each sample.
        part: [n] 0 (train), 1 (validation) or 2 (test).
        domains: their names.
        groups: [n] group (patient) of each sample, which lies in one split.

    Raises:
        ValueError: with a line for each domain that lacks one.
    """
    there = set(zip(part, domain, strict=True))
    problems = []
    for d, name in enumerate(domains):
        lacking = [split for p, split in enumerate(_PARTS) if (p, d) not in there]
        members = [group for group, of in zip(groups, domain, strict=True) if of == d]
        if lacking:
            problems.append(
                f"split {' and '.join(map(repr, lacking))} has no image of domain {name!r} ({len(members)} image(s) of "
                f"{len(set(members))} patient(s) in all): training, validation and test need a patient each; add "
                f"cases, join domains (key domains), or count fewer cases as one patient (keys group, together)"
            )
    if problems:
        raise ValueError("\n  ".join([f"{where}: {len(problems)} problem(s):", *problems]))
