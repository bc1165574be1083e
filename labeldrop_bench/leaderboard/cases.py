"""Dice of the single test cases of one strategy, for box plots."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from labeldrop_bench.leaderboard.statistics.cases import Place, cases_of
from labeldrop_bench.leaderboard.table import Board, Leaderboard

__all__ = ["Place", "dice_of_cases", "over_classes"]


def dice_of_cases(leaderboard: Leaderboard, board: Board, strategy: str) -> dict[Place, float]:
    """Mean over the seeds of every case and class in which Dice is defined for all of them.

    Nothing before all seeds of the strategy have finished: a mean over other seeds would be another quantity.

    Raises:
        LeaderboardError: a file that does not hold what it should.
    """
    cases = cases_of(leaderboard, board)
    if strategy not in cases.strategies:
        return {}
    dice = cases.dice[cases.strategies.index(strategy)].tolist()
    return {place: value for place, value in zip(cases.places, dice, strict=True) if not math.isnan(value)}


def over_classes(dice: Mapping[Place, float], places: Iterable[Place]) -> dict[tuple[str, str], float]:
    """(domain, case) -> the mean over its classes, each with equal weight, of those places."""
    classes: dict[tuple[str, str], list[float]] = {}
    for domain, name, case in places:
        classes.setdefault((domain, case), []).append(dice[domain, name, case])
    return {place: statistics.fmean(values) for place, values in classes.items()}
