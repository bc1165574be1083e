"""Bootstrap samples of patients, and the Dice of a column in each of them.

Patients are drawn with replacement within each domain, as many as there are, with all of their images. A sample is thus
a whole number for each patient: how often it was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.statistics.cases import CaseDice, Patient
from labeldrop_bench.leaderboard.table import Column

TAILS = (0.025, 0.975)  # of a 95 % percentile interval


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def draw(patients: Sequence[Patient], bootstraps: int, seed: int) -> NDArray[np.int64]:
    """How often each patient is in each sample.

    Args:
        patients: U of them, those of a domain together.
        bootstraps: B.
        seed: of the draw.

    Returns:
        [B, U] int64; in each domain a row adds up to the number of its patients.
    """
    rng = np.random.default_rng(seed)
    domains = [domain for domain, _ in patients]
    sizes = [domains.count(domain) for domain in dict.fromkeys(domains)]
    return np.concatenate([rng.multinomial(n, np.full(n, 1 / n), size=bootstraps) for n in sizes], axis=1)


def column_dice(
    cases: CaseDice, column: Column, patients: Sequence[Patient], drawn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Dice of each strategy in each sample: the mean over the column's cells of the mean over a cell's test cases.

    Args:
        cases: of S strategies. Each counts where it has a value.
        column: its cells weigh the same.
        patients: U, among them all that `cases` has.
        drawn: [B, U], how often each is in each sample.

    Returns:
        [S, B] float64; NaN where a sample has no case of a cell.
    """
    index = {patient: i for i, patient in enumerate(patients)}
    total = np.zeros((len(cases.strategies), len(drawn)))
    for cell in column.cells:
        at = [i for i, place in enumerate(cases.places) if place[:2] == (cell.domain, cell.class_name)]
        of_place = drawn[:, [index[cases.patients[i]] for i in at]].T.astype(np.float64)  # [places, B]
        dice = cases.dice[:, at]
        known = ~np.isnan(dice)
        with np.errstate(invalid="ignore"):
            total += np.where(known, dice, 0.0) @ of_place / (known @ of_place)
    return total / len(column.cells)


def intervals(
    cases: CaseDice, columns: Sequence[Column], *, bootstraps: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Percentile intervals of Dice: strategy -> column -> interval.

    A column has none where it has no value, since Dice is undefined in all cases of a cell. Samples without a case of
    some cell say nothing about the column and are left out; a column has no interval either if those are all.
    """
    patients = sorted(set(cases.patients))
    drawn = draw(patients, bootstraps, seed)
    everyone = np.ones((1, len(patients)), dtype=np.int64)
    found: dict[str, dict[str, Interval]] = {name: {} for name in cases.strategies}
    for column in columns:
        mean, samples = (column_dice(cases, column, patients, d) for d in (everyone, drawn))
        for number in np.flatnonzero(~np.isnan(mean[:, 0]) & ~np.isnan(samples).all(1)):
            low, high = np.nanquantile(samples[number], TAILS)
            found[cases.strategies[number]][column.name] = Interval(float(low), float(high))
    return found
