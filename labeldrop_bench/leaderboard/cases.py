"""Dice of the single test cases, for box plots and paired tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from labeldrop_bench.leaderboard.reading import read_cases
from labeldrop_bench.leaderboard.table import Entry

Place = tuple[str, str, str]  # domain, class, case


def dice_of_cases(directory: Path, entry: Entry) -> dict[Place, float]:
    """Mean over the seeds of every case and class in which Dice is defined for all of them.

    Nothing before all seeds of the strategy have finished: a mean over other seeds would be another quantity.

    Raises:
        LeaderboardError: a file that does not hold what it should.
    """
    if entry.missing_seeds:
        return {}
    seeds: dict[Place, list[float]] = {}
    for run in entry.runs:
        for row in read_cases(directory, run):
            if row.value is not None and math.isfinite(row.value):
                seeds.setdefault((row.domain, row.class_, row.case), []).append(row.value)
    return {place: statistics.fmean(values) for place, values in seeds.items() if len(values) == len(entry.runs)}


def over_classes(dice: Mapping[Place, float], places: Iterable[Place]) -> dict[tuple[str, str], float]:
    """(domain, case) -> the mean over its classes, each with equal weight, of those places."""
    classes: dict[tuple[str, str], list[float]] = {}
    for domain, name, case in places:
        classes.setdefault((domain, case), []).append(dice[domain, name, case])
    return {place: statistics.fmean(values) for place, values in classes.items()}
