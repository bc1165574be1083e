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
