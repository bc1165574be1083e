"""Whether the scores of a run are those of its cases."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from math import isclose

from labeldrop_bench.records.config import RunConfig
from labeldrop_bench.records.results import METRICS, SIGHTINGS, CaseRow, ResultRow, RunResult
from labeldrop_bench.records.sightings import Place, Sighting, sightings

ROUNDING = 1e-5  # relative: the numbers of cases.csv have six significant digits


def disagreements(run: RunConfig, result: RunResult, cases: Sequence[CaseRow]) -> list[str]:
    """Where result.json and cases.csv do not fit the run or each other, a sentence for each place; none is good."""
    other = [] if result.run == run.run else [f"run: {run.run!r} expected, got {result.run!r}"]
    return [*other, *_wrong_places(result, cases), *_wrong_rows(run, result, cases)]


def _wrong_places(result: RunResult, cases: Sequence[CaseRow]) -> list[str]:
    """Every (domain, class) must have a row for what its cases have, and none for what is not there.

    A class that is scored in no case may have rows without a value: somebody knows the truth, and it never shows it.
    """
    given = Counter((row.domain, row.class_, row.metric) for row in result.rows)
    scored = {(case.domain, case.class_, metric) for case in cases if case.scored for metric in METRICS}
    seen = {(case.domain, case.class_, metric) for case in cases if case.size is not None for metric in SIGHTINGS}
    wanted = scored | seen
    possible = wanted | {(case.domain, case.class_, metric) for case in cases for metric in METRICS}
    return [
        *(f"{' '.join(place)}: more than one row" for place in sorted(p for p, n in given.items() if n > 1)),
        *(f"{' '.join(place)}: no row, although there are cases" for place in sorted(wanted - set(given))),
        *(f"{' '.join(place)}: a row without cases, or of no known metric" for place in sorted(set(given) - possible)),
    ]


def _wrong_rows(run: RunConfig, result: RunResult, cases: Sequence[CaseRow]) -> Iterator[str]:
    """Every row must be of this run, in its metric's range, and the mean of its cases."""
    strategy = run.strategy
    labels = {
        "suite": run.suite, "run": run.run, "condition": run.condition, "strategy": strategy.name,
        "loss": strategy.loss, "dropout": strategy.dropout, "seed": run.seed,
    }  # fmt: skip
    annotated = {(case.domain, case.class_): False for case in cases}
    found = sightings(cases, annotated | {(row.domain, row.class_): row.annotated for row in result.rows})
    by_place: dict[Place, list[CaseRow]] = {}
    for case in cases:
        by_place.setdefault((case.domain, case.class_), []).append(case)
    for row in result.rows:
        what = f"{row.domain} {row.class_} {row.metric}"
        yield from (
            f"{what}: {key} must be {value!r}, got {getattr(row, key)!r}"
            for key, value in labels.items()
            if getattr(row, key) != value
        )
        if row.metric in METRICS:
            here = [getattr(case, row.metric) for case in by_place.get((row.domain, row.class_), ())]
            values = [value for value in here if value is not None]
            yield from _not_their_mean(what, row, (statistics.fmean(values) if values else None, len(values)))
            yield from _out_of_range(what, row, values)
        elif row.metric in SIGHTINGS and (row.domain, row.class_) in found:
            yield from _not_their_mean(what, row, found[row.domain, row.class_][row.metric])


def _not_their_mean(what: str, row: ResultRow, of_cases: Sighting) -> Iterator[str]:
    mean, n = of_cases
    same = mean == row.value if mean is None or row.value is None else isclose(mean, row.value, rel_tol=ROUNDING)
    if not same or n != row.n:
        yield f"{what}: {row.value} over {row.n} cases, where the cases give {mean} over {n}"


def _out_of_range(what: str, row: ResultRow, values: Sequence[float]) -> Iterator[str]:
    highest = float("inf") if METRICS[row.metric].is_distance else 1.0
    if any(not 0 <= value <= highest for value in values):
        yield f"{what}: must lie in 0 ... {highest:g}, got {min(values)} to {max(values)}"
