"""Dice of the single test cases of one strategy, for box plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from labeldrop_bench.leaderboard.statistics.cases import Place, case_dice
from labeldrop_bench.leaderboard.table import Entry

__all__ = ["Place", "dice_of_cases", "over_classes"]


def dice_of_cases(directory: Path, entry: Entry) -> dict[Place, float]:
    """Mean over the seeds of every case and class in which Dice is defined for all of them.

    Nothing before all seeds of the strategy have finished: a mean over other seeds would be another quantity.

    Raises:
        LeaderboardError: a file that does not hold what it should.
    """
    if entry.missing_seeds:
        return {}
    cases = case_dice(directory, [entry])
    (dice,) = cases.dice.tolist()
    return {place: value for place, value in zip(cases.places, dice, strict=True) if not math.isnan(value)}


def over_classes(dice: Mapping[Place, float], places: Iterable[Place]) -> dict[tuple[str, str], float]:
    """(domain, case) -> the mean over its classes, each with equal weight, of those places."""
    classes: dict[tuple[str, str], list[float]] = {}
    for domain, name, case in places:
        classes.setdefault((domain, case), []).append(dice[domain, name, case])
    return {place: statistics.fmean(values) for place, values in classes.items()}
