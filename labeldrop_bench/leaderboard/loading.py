"""From the records of a suite directory to the numbers of its leaderboard."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from labeldrop_bench.leaderboard.figures import check_figures
from labeldrop_bench.leaderboard.reading import (
    METRIC,
    LeaderboardError,
    Position,
    dice_rows,
    position,
    read_result,
    read_suite,
)
from labeldrop_bench.leaderboard.table import Board, Cell, Column, Cost, Entry, Leaderboard, Score, deciding, in_order
from labeldrop_bench.records import (
    METRICS,
    PIXELS,
    SIGHTINGS,
    ConditionConfig,
    ResultRow,
    RunConfig,
    RunResult,
    StrategyConfig,
    SuiteConfig,
)

Runs: TypeAlias = "Sequence[tuple[RunConfig, RunResult | None]]"


def load(directory: Path) -> Leaderboard:
    """Read a suite directory; runs that have not finished are shown as missing.

    Raises:
        LeaderboardError: no such directory, no suite.json, no finished run, or a file that does not hold what it
            should; the message names the file.
    """
    directory = Path(directory)
    suite = read_suite(directory)
    check_figures(suite)
    runs = [(run, read_result(directory, run)) for run in suite.runs()]
    finished = [result for _, result in runs if result is not None]
    if not finished:
        raise LeaderboardError(
            f"leaderboard: none of the {len(runs)} runs of suite {suite.name!r} in {directory} has finished "
            f"(no runs/*/result.json): wait for the first, or start them with `labeldrop-bench run`"
        )
    if not any(True for result in finished for _ in dice_rows(result)):
        raise LeaderboardError(
            f"leaderboard: no result.json of suite {suite.name!r} has a row with metric {METRIC!r}: "
            f"score the test set with it and run the suite again"
        )
    return Leaderboard(
        directory=directory,
        suite=suite,
        boards=tuple(_board(suite, condition, runs) for condition in suite.conditions or (None,)),
        environment=_environment(finished),
        seconds=math.fsum(result.seconds for result in finished),
    )


def _board(suite: SuiteConfig, condition: ConditionConfig | None, all_runs: Runs) -> Board:
    name = condition.name if condition else ""
    runs = [(run, result) for run, result in all_runs if run.condition == name]
    cells, problems = _cells(runs)
    scored, unshown, unknown = _sorted_out(cells, runs)
    summary = _summary(scored)
    single = tuple(Column(cell.name, (cell,)) for cell in scored)
    return Board(
        suite=suite,
        condition=condition,
        summary=summary,
        single=single,
        unknown=unknown,
        unshown=unshown,
        strategies=_entries(suite, (*summary, *single), cells, runs),
        problems=(*_undefined(scored, runs), *problems),
        distances=next((result.distances for _, result in runs if result), PIXELS),
    )


def _cells(runs: Runs) -> tuple[tuple[Cell, ...], list[str]]:
    """Every (domain, class) that a finished run of a condition was tested on, and what is wrong with them.

    Domains come in the order of the rows, classes as the suite names them, or else in the order of the rows too.
    """
    data = runs[0][0].data
    rows: dict[Position, list[ResultRow]] = {}
    for _, result in runs:
        for row in result.rows if result else ():
            rows.setdefault(position(row), []).append(row)
    seen = [list(dict.fromkeys(position(row) for row in result.rows)) for _, result in runs if result]
    domains = in_order([domain for domain, _ in places] for places in seen)
    by_domain = [[c for d, c in places if d == domain] for places in seen for domain in domains]
    classes = in_order([data.classes or (), *by_domain])
    full = {run.strategy.name for run, _ in runs if run.strategy.full_labels}
    cells, disputed = [], []
    for place in sorted(rows, key=lambda p: (domains.index(p[0]), classes.index(p[1]))):
        said = {row.annotated for row in rows[place] if row.strategy not in full} or {data.trains_on(*place)}
        if len(said) > 1:
            disputed.append("/".join(place))
        images = [row.n for row in rows[place] if row.metric == METRIC] or [0]
        cells.append(Cell(*place, annotated=False not in said, images=(min(images), max(images))))
    return tuple(cells), _contradictions(disputed)


def _sorted_out(cells: Sequence[Cell], runs: Runs) -> tuple[tuple[Cell, ...], tuple[Cell, ...], tuple[Cell, ...]]:
    """The cells that can be scored, those whose truth shows nothing, and those whose truth nobody knows."""
    images: dict[Position, dict[int, int]] = {}  # of each seed: the most in which Dice is defined in a run
    for run, result in runs:
        for row in dice_rows(result) if result else ():
            of_seed = images.setdefault(position(row), {})
            of_seed[run.seed] = max(row.n, of_seed.get(run.seed, 0))
    known = [cell for cell in cells if (cell.domain, cell.class_name) in images]
    scored = [cell for cell in known if all(images[cell.domain, cell.class_name].values())]
    return (
        tuple(scored),
        tuple(cell for cell in known if cell not in scored),
        tuple(cell for cell in cells if cell not in known),
    )


def _contradictions(disputed: Sequence[str]) -> list[str]:
    if not disputed:
        return []
    return [
        f"The results disagree about whether these were annotated in training: {', '.join(disputed)}. "
        f"They count as unannotated."
    ]


def _summary(cells: tuple[Cell, ...]) -> tuple[Column, ...]:
    groups = (
        Column("unannotated", tuple(cell for cell in cells if not cell.annotated)),
        Column("annotated", tuple(cell for cell in cells if cell.annotated)),
    )
    return (*(group for group in groups if group.cells), Column("overall", cells))


def _values(result: RunResult | None) -> dict[str, dict[Position, float | None]]:
    """Metric -> (domain, class) -> value of one run."""
    values: dict[str, dict[Position, float | None]] = {}
    for row in result.rows if result else ():
        values.setdefault(row.metric, {})[position(row)] = row.value
    return values


def _mean(of: Mapping[Position, float | None], cells: Sequence[Cell]) -> float | None:
    """Mean of one run over some cells; None if one of them is missing or not a number, or there are none."""
    values = [of.get((cell.domain, cell.class_name)) for cell in cells]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _metrics(seeds: Runs, columns: Sequence[Column]) -> dict[str, dict[Column, Score]]:
    """Metric -> column -> score of one strategy."""
    values = [_values(result) for _, result in seeds]
    return {
        metric: {c: Score(tuple(_mean(of.get(metric, {}), c.cells) for of in values)) for c in columns}
        for metric in METRICS
    }


def _cost(seeds: Runs) -> Cost | None:
    """Of a strategy; None unless all of its seeds have finished."""
    costs = [result.cost for _, result in seeds if result is not None]
    if len(costs) < len(seeds):
        return None
    return Cost(statistics.median(cost.seconds for cost in costs), max(cost.peak_bytes for cost in costs))


def _closed(mean: float | None, standard: float | None, full: float | None) -> float | None:
    """(mean - standard) / (full - standard), where all are known and `full` is better than the standard."""
    if mean is None or standard is None or full is None or full <= standard:
        return None
    return (mean - standard) / (full - standard)


def _sightings(seeds: Runs, cells: Sequence[Cell]) -> dict[str, dict[Cell, Score]]:
    """Name of a sighting -> cell -> score of one strategy."""
    values = [_values(result) for _, result in seeds]
    return {
        name: {c: Score(tuple(of.get(name, {}).get((c.domain, c.class_name)) for of in values)) for c in cells}
        for name in SIGHTINGS
    }


def _entries(suite: SuiteConfig, columns: Sequence[Column], cells: Sequence[Cell], runs: Runs) -> tuple[Entry, ...]:
    """One entry for each strategy, ranks and gaps included."""
    ranked_by = deciding(columns)
    of = {s.name: [(run, result) for run, result in runs if run.strategy.name == s.name] for s in suite.strategies}
    metrics = {name: _metrics(seeds, columns) for name, seeds in of.items()}
    means = {name: by_metric[METRIC][ranked_by].mean for name, by_metric in metrics.items()}
    upper = next((means[s.name] for s in suite.strategies if s.full_labels), None)
    competing = {s.name: means[s.name] for s in suite.strategies if not s.full_labels}

    def entry(strategy: StrategyConfig) -> Entry:
        mean = competing.get(strategy.name)
        better = [other for other in competing.values() if other is not None and mean is not None and other > mean]
        return Entry(
            strategy=strategy,
            scores=metrics[strategy.name][METRIC],
            runs=tuple(run for run, _ in of[strategy.name]),
            missing_seeds=tuple(run.seed for run, result in of[strategy.name] if result is None),
            rank=None if mean is None else 1 + len(better),
            gap=None if mean is None or upper is None else mean - upper,
            metrics=metrics[strategy.name],
            gap_closed=_closed(mean, competing.get(suite.standard), upper),
            cost=_cost(of[strategy.name]),
            sightings=_sightings(of[strategy.name], cells),
        )

    return tuple(entry(strategy) for strategy in suite.strategies)


def _environment(finished: Sequence[RunResult]) -> dict[str, tuple[str, ...]]:
    keys = sorted({key for result in finished for key in result.environment})
    return {
        key: tuple(sorted({result.environment[key] for result in finished if key in result.environment}))
        for key in keys
    }


def _undefined(cells: Sequence[Cell], runs: Runs) -> list[str]:
    """One sentence for each finished run that lacks the Dice of a cell."""
    lacking = {
        f"{run.strategy.name}, seed {run.seed}": [
            cell.name for cell in cells if _mean(_values(result).get(METRIC, {}), [cell]) is None
        ]
        for run, result in runs
        if result is not None
    }
    return [f"{run}: Dice is undefined in {', '.join(names)}." for run, names in lacking.items() if names]
