"""Dice of the single test cases of a condition as arrays, and what of it the strategies have in common.

A place is one class in one test case: (domain, class, case). The seeds of a strategy are averaged first, and only
where all of them that were tested on a place have a value there. Truth and prediction can both be empty, and Dice is
undefined then; since that depends on the strategy, a place in which one of the strategies that are compared has no
value is left out for all of them.

The unit of every test and of the bootstrap is the patient, for the images of one patient resemble each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.leaderboard.reading import LeaderboardError, read_cases
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard

Place = tuple[str, str, str]  # domain, class, case
Patient = tuple[str, str]  # domain, patient
Group = TypeVar("Group", Patient, tuple[Patient, str])


@dataclass(frozen=True)
class CaseDice:
    """Dice of P places by each of S strategies.

    Attributes:
        strategies: their names.
        places: sorted.
        patients: of each place.
        dice: [S, P] float64, mean over the seeds; NaN where one of them has no value.
    """

    strategies: tuple[str, ...]
    places: tuple[Place, ...]
    patients: tuple[Patient, ...]
    dice: NDArray[np.float64]

    def of(self, strategies: Sequence[str]) -> CaseDice:
        """Some of the strategies, on the places in which all of these have a value."""
        rows = self.dice[[self.strategies.index(name) for name in strategies]]
        known = np.logical_not(np.isnan(rows).any(axis=0))
        return CaseDice(tuple(strategies), self.places, self.patients, rows)._at(known)

    def within(self, column: Column) -> CaseDice:
        """The places of a column's cells."""
        cells = {(cell.domain, cell.class_name) for cell in column.cells}
        return self._at(np.array([place[:2] in cells for place in self.places], dtype=bool))

    def _at(self, kept: NDArray[np.bool_]) -> CaseDice:
        """Args: kept: [P]."""
        where = np.flatnonzero(kept)
        return CaseDice(
            self.strategies,
            tuple(self.places[i] for i in where),
            tuple(self.patients[i] for i in where),
            self.dice[:, where],
        )


@dataclass(frozen=True)
class Units:
    """Dice of U patients by each of S strategies.

    Attributes:
        patients: sorted.
        dice: [S, U] float64: mean over the classes of a case, then over the cases of the patient.
    """

    patients: tuple[Patient, ...]
    dice: NDArray[np.float64]


def cases_of(leaderboard: Leaderboard, board: Board) -> CaseDice:
    """The cases of all strategies of a condition, `full` included, all of whose seeds have finished; read once.

    Raises:
        LeaderboardError: as `case_dice`.
    """
    key = ("cases", board.name)
    if key not in leaderboard.analyses:
        complete = [entry for entry in board.strategies if not entry.missing_seeds]
        leaderboard.analyses[key] = case_dice(leaderboard.directory, complete)
    cases: CaseDice = leaderboard.analyses[key]
    return cases


def case_dice(directory: Path, entries: Sequence[Entry]) -> CaseDice:
    """The cases of some strategies, all of whose seeds have finished.

    Raises:
        LeaderboardError: a cases.csv that does not hold what it should, or two that give a case to other patients.
    """
    of_seed: dict[int, list[dict[Place, float | None]]] = {}  # seed -> for each strategy its places
    patient_of: dict[tuple[str, str], str] = {}
    for entry in entries:
        for run in entry.runs:
            rows = read_cases(directory, run)
            of_seed.setdefault(run.seed, []).append({(row.domain, row.class_, row.case): row.dice for row in rows})
            for row in rows:
                if patient_of.setdefault((row.domain, row.case), row.patient) != row.patient:
                    raise LeaderboardError(
                        f"leaderboard: {directory / 'runs' / run.run / 'cases.csv'} must give case {row.case!r} of "
                        f"{row.domain!r} to patient {patient_of[row.domain, row.case]!r} as other runs do, "
                        f"got {row.patient!r}: were they split alike? Run the suite again in an empty directory"
                    )
    # With a split for each seed a place is in the test sets of some seeds only: those are averaged.
    tested = {seed: sorted({place for dice in runs for place in dice}) for seed, runs in of_seed.items()}
    places = sorted({place for of in tested.values() for place in of})
    index = {place: i for i, place in enumerate(places)}
    total = np.zeros((len(entries), len(places)))
    count = np.zeros(len(places))
    for seed, runs in of_seed.items():
        at = [index[place] for place in tested[seed]]
        count[at] += 1
        for number, dice in enumerate(runs):
            values = (dice.get(place) for place in tested[seed])
            total[number, at] += [np.nan if value is None else value for value in values]
    patients = tuple((domain, patient_of[domain, case]) for domain, _, case in places)
    every = CaseDice(tuple(e.strategy.name for e in entries), tuple(places), patients, total / count)
    return every._at(np.logical_not(np.isnan(every.dice).all(axis=0)))  # of the others there is nothing to compare


def units(cases: CaseDice) -> Units:
    """The patients of some places: mean over the classes of each case, then over the cases of each patient."""
    of_case = [(patient, place[2]) for patient, place in zip(cases.patients, cases.places, strict=True)]
    names, dice = _means(of_case, cases.dice)
    patients, dice = _means([patient for patient, _ in names], dice)
    return Units(tuple(patients), dice)


def _means(groups: Sequence[Group], values: NDArray[np.float64]) -> tuple[list[Group], NDArray[np.float64]]:
    """Sorted groups, and the mean over each: [S, P] -> [S, groups]."""
    names = sorted(set(groups))
    index = {name: i for i, name in enumerate(names)}
    at = np.array([index[group] for group in groups], dtype=np.intp)
    total = np.stack([np.bincount(at, row, minlength=len(names)) for row in values])
    return names, total / np.bincount(at, minlength=len(names))
