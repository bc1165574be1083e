"""Splits that keep together what must not be torn apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def grouped_split(
    groups: Sequence[str], domains: Sequence[int], fractions: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Which part each sample goes to, so that a group lies in one part and each domain is divided by the fractions.

    Groups are shuffled, then placed from the largest to the smallest; each goes where the domains of its samples lack
    most samples of what the fractions ask for.

    Args:
        groups: [n] group of each sample; a group may span domains.
        domains: [n] domain index of each sample.
        fractions: of each part; they sum to 1.
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
    return part_of_group[group_of]


def report_lacking(where: str, domain: Sequence[int], part: Sequence[int], domains: Sequence[str]) -> None:
    """Every domain must have a sample in every split.

    Args:
        where: beginning of the message: data set and folder.
        domain: [n] domain index of each sample.
        part: [n] 0 (train), 1 (validation) or 2 (test).
        domains: their names.

    Raises:
        ValueError: with a line for each domain and split that lacks one.
    """
    there = set(zip(part, domain, strict=True))
    problems = [
        f"split {name!r} has no image of domain {domains[d]!r} (it has {sum(1 for x in domain if x == d)} images in "
        f"all); raise the split's fraction, or use smaller groups or more images"
        for d in range(len(domains))
        for p, name in enumerate(("train", "validation", "test"))
        if (p, d) not in there
    ]
    if problems:
        raise ValueError("\n  ".join([f"{where}: {len(problems)} problem(s):", *problems]))
