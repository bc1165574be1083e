"""The words and number formats that every rendering of a leaderboard shares."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from labeldrop_bench.leaderboard import presence
from labeldrop_bench.leaderboard.reading import DIRECTION, METRIC
from labeldrop_bench.leaderboard.significance import Comparison, Significance
from labeldrop_bench.leaderboard.statistics import Interval, Ranking, Statistics
from labeldrop_bench.leaderboard.statistics.signed_rank import FEWEST
from labeldrop_bench.leaderboard.table import SUMMARY, Board, Cell, Column, Entry, Leaderboard, Score
from labeldrop_bench.records import METRICS

NOTHING = "—"  # an incomplete cell
UNANNOTATED = "†"  # a class that was not annotated in its domain's training data, or was hidden from it
ENOUGH_SEEDS = 3
NAMED = 8  # things that a sentence can bear


def header(column: Column) -> str:
    """Heading of a column of scores: "unannotated", "annotated", "overall", or domain and class."""
    if column.name in SUMMARY:
        return column.name
    (cell,) = column.cells
    return f"{cell.domain} {cell.class_name}" + mark(cell)


def mark(cell: Cell) -> str:
    """What stands behind the name of a class that was unannotated."""
    return "" if cell.annotated else UNANNOTATED


def number(score: Score, decimals: int = 3) -> str:
    """Mean, and standard deviation where there is one, in the metric's unit; or the mark of an incomplete cell."""
    if score.mean is None:
        return NOTHING
    mean = f"{score.mean:.{decimals}f}"
    return mean if score.std is None else f"{mean} ±{score.std:.{decimals}f}"


def measure(board: Board, entry: Entry, metric: str) -> str:
    """A metric of a strategy in the column that ranks: two decimals where it has a unit, three otherwise."""
    return number(entry.metrics[metric][board.ranked_by], 2 if METRICS[metric].is_distance else 3)


def of_trainings(score: Score) -> str:
    """What intervals and tests over patients do not say."""
    if score.std is None:
        return "This is about other patients; how much another training would change is not known from one seed."
    return f"This is about other patients; from one training to the next its Dice varies by ±{score.std:.3f}."


def rank(entry: Entry) -> str:
    """Rank, or the mark of a strategy that has none."""
    return NOTHING if entry.rank is None else str(entry.rank)


def gap(entry: Entry) -> str:
    """Signed difference to `full` in Dice units."""
    return NOTHING if entry.gap is None else f"{entry.gap:+.3f}"


def gap_closed(entry: Entry) -> str:
    """How much of the way from the standard strategy to `full` this one goes, in per cent."""
    return NOTHING if entry.gap_closed is None else f"{100 * entry.gap_closed:.0f} %"


def to_full(board: Board, entry: Entry) -> str:
    """What stands below `to_full_header`: the gap closed where the suite has its two ends, or else the gap."""
    return gap_closed(entry) if board.has_gap else gap(entry)


def to_full_header(board: Board) -> str:
    """Heading of the column about the way to `full`."""
    return "gap closed" if board.has_gap else "to full"


def milliseconds(entry: Entry) -> str:
    """Time that the loss takes in a training step."""
    return NOTHING if entry.cost is None else _three_digits(1e3 * entry.cost.seconds)


def mebibytes(entry: Entry) -> str:
    """Memory that the loss takes in a training step."""
    return NOTHING if entry.cost is None else _three_digits(entry.cost.peak_bytes / 2**20)


def _three_digits(value: float) -> str:
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f}"


def interval(found: Interval | None) -> str:
    """A 95 % interval of Dice."""
    return NOTHING if found is None else f"{found.low:.3f} to {found.high:.3f}"


def rank_and_range(ranking: Ranking, strategy: int) -> str:
    """A rank, and the range that it has in 95 % of the bootstrap samples."""
    low, high = ranking.range_of(strategy)
    return f"{ranking.ranks[strategy]:.0f} ({low:.0f} to {high:.0f})"


def first_in(ranking: Ranking, strategy: int) -> str:
    """In how many of the bootstrap samples a strategy is first."""
    return f"{100 * (ranking.bootstrapped[:, strategy] == 1).mean():.0f} %"


def seeds(board: Board, entry: Entry) -> str:
    """Finished of those asked for."""
    asked = len(board.suite.seeds)
    return f"{asked - len(entry.missing_seeds)}/{asked}"


def is_best(board: Board, entry: Entry, column: Column, metric: str = METRIC) -> bool:
    """Whether the strategy holds the best mean of the column among those that compete."""
    mean = entry.metrics[metric][column].mean
    return not entry.strategy.full_labels and mean is not None and mean == board.best(column, metric)


def captions(board: Board) -> list[str]:
    """Sentences below a table: what was measured, how it was averaged and ranked, what is missing."""
    known = [*_not_scored(board), *_missing(board), *board.problems]
    return [_measured(board), _ranked(board), *_few_seeds(board), *known] if board.cells else known


def legend(leaderboard: Leaderboard) -> str:
    """What the marks mean, below all tables."""
    marks = [f"Bold: best, full aside. p: label dropout probability. {NOTHING}: not complete, or not applicable."]
    if any(presence.gaps(board) for board in leaderboard.boards):
        marks.insert(0, f"{UNANNOTATED}: unannotated in training: not annotated there, or hidden.")
    if leaderboard.has_full:
        names = dict.fromkeys(board.ranked_by.name for board in leaderboard.boards if board.cells)
        mean = f"{' or '.join(names)} mean"
        standard = leaderboard.suite.standard
        marks.append(
            f"gap closed: (strategy - {standard}) / (full - {standard}), of the {mean}."
            if leaderboard.has_gap
            else f"to full: {mean} minus that of full."
        )
    return " ".join(marks)


def comparison_caption(leaderboard: Leaderboard) -> str:
    """What the table strategies x conditions shows."""
    name = leaderboard.compared_by
    mixed = {board.ranked_by.name for board in leaderboard.boards if board.cells} != {name}
    why = (
        ": not in all conditions can unannotated classes be scored" if mixed else ", which the strategies are ranked by"
    )
    return f"Dice, {name} mean{why}."


def compared_best(leaderboard: Leaderboard, board: Board, strategy: str) -> bool:
    """Whether a strategy has the best score of a condition among those that compete."""
    column = leaderboard.compared_column(board)
    return is_best(board, board.entry(strategy), column)


def _measured(board: Board) -> str:
    asked = len(board.suite.seeds)
    spread = (
        f"mean ± standard deviation (n-1) over {asked} seeds" if asked > 1 else "one seed, so no spread can be given"
    )
    return f"Dice, {DIRECTION}; {spread}. Test images in which Dice is defined: {_images(board)}."


def _images(board: Board) -> str:
    """Number of test images of each domain, as a range where its classes or runs differ."""
    counts: dict[str, list[int]] = {}
    for cell in board.cells:
        counts.setdefault(cell.domain, []).extend(cell.images)
    ranges = {domain: sorted({min(n), max(n)}) for domain, n in counts.items()}
    return ", ".join(f"{domain} {' to '.join(map(str, ends))}" for domain, ends in ranges.items())


def _ranked(board: Board) -> str:
    if board.ranked_by.name == "unannotated":
        what = f"the unannotated classes ({places(board.ranked_by.cells)}): not annotated in that domain, or hidden"
    elif board.blind:
        what = "the overall mean of what can be scored"
    else:
        what = "the overall mean; every class is annotated in every domain"
    means = "Columns over several classes weigh each domain and class equally."
    labels = "all labels that there are" if any(not c.annotated for c in board.unknown) else "all labels"
    full = f" full is trained on {labels}: the upper bound, not ranked." if board.has_full else ""
    return f"Ranked by {what}. {means}{full}"


def places(cells: Sequence[Cell]) -> str:
    """Classes and domains, in words; of many, the first and how many more there are."""
    names = [f"{cell.class_name} on {cell.domain}" for cell in cells[:NAMED]]
    return ", ".join(names) + (f" and {len(cells) - NAMED} more" if len(cells) > NAMED else "")


def first_line(board: Board) -> list[str]:
    """What a reader must know before the table: that it does not say what it is there to say."""
    if not board.blind:
        return []
    cells = [cell for cell in board.not_scored if not cell.annotated]
    return [
        f"Nothing that was unannotated can be scored, since no test image has truth that shows it: {places(cells)}. "
        f"The strategies are ranked by what can be scored; whether they find the rest, the table of presence shows."
    ]


def _not_scored(board: Board) -> list[str]:
    """What counts for nobody, and why."""
    why = {
        "nobody knows the truth": board.unknown,
        "the truth of no test image shows them, so that a false positive alone would decide": board.unshown,
    }
    every = len(board.cells) + len(board.not_scored)
    return [
        f"Left out for all strategies alike, {len(cells)} of {every} pairs of class and domain, since {reason}: "
        f"{places(cells)}."
        for reason, cells in why.items()
        if cells
    ]


def _few_seeds(board: Board) -> list[str]:
    seeds = len(board.suite.seeds)
    if seeds >= ENOUGH_SEEDS:
        return []
    return [
        f"Fewer than {ENOUGH_SEEDS} seeds ({seeds}): how much a training's result varies by chance is hardly known."
    ]


def metrics_title(board: Board) -> str:
    """Heading of the table of the other metrics and of what a step costs."""
    return f"Other metrics ({board.ranked_by.name}) and cost of the loss"


def metric_heading(board: Board, name: str) -> str:
    """A metric's title, with the unit if it has one: "HD95 (mm)"."""
    metric = METRICS[name]
    return f"{metric.title} ({board.distances.partition(',')[0]})" if metric.is_distance else metric.title


def metrics_caption(board: Board) -> str:
    """What that table shows."""
    others = {name: metric for name, metric in METRICS.items() if name != METRIC}
    lower = [metric.title for metric in others.values() if not metric.higher_is_better]
    higher = [metric.title for metric in others.values() if metric.higher_is_better]
    return (
        f"The column {board.ranked_by.name}, as for Dice. HD95, and the tolerance of NSD, in {board.distances}. "
        f"Higher is better: {', '.join(higher)}; lower is better: {', '.join(lower)}. ms, MiB: time and peak memory "
        f"of the loss in one training step, forward and backward pass; median and largest over the seeds."
    )


def ranking_caption(statistics: Statistics) -> str:
    """What the table of rankings shows."""
    firm = "; ".join(f"{name} {np.nanmedian(r.kendall):.2f}" for name, r in statistics.rankings.items() if r.firm)
    samples = len(statistics.rankings["test-based"].bootstrapped)
    return (
        f"Rank, and its range in 95 % of {samples} bootstrap samples of the {statistics.patients} patients, drawn with "
        f"replacement within each domain. first: share of the samples in which mean then rank puts the strategy first. "
        f"Test-based: by the number of others that a strategy is significantly better than (Wilcoxon's signed-rank "
        f"test, one-sided, 5 % after Holm; from {FEWEST} patients that differ on). "
        f"Kendall's tau with the ranking on all patients, median: {firm or NOTHING}. After Wiesenfarth et al. 2021."
    )


def interval_caption() -> str:
    """What the intervals are of."""
    return (
        "95 %: percentile interval under resampling of patients within domains, seeds averaged. It is about other "
        "patients, not about other trainings."
    )


def _missing(board: Board) -> list[str]:
    if board.finished == board.asked:
        return []
    which = "; ".join(
        f"{entry.strategy.name} (seed {', '.join(map(str, entry.missing_seeds))})"
        for entry in board.strategies
        if entry.missing_seeds
    )
    return [f"{board.finished} of {board.asked} runs have finished. Not finished: {which}."]


def command(leaderboard: Leaderboard) -> str:
    """The command that runs the suite."""
    return f"labeldrop-bench run {shlex.quote(leaderboard.suite.name)}"


def comparison(result: Comparison) -> str:
    """Mean difference and corrected p value of a test, or why there is none."""
    if result.difference is None:
        return f"{NOTHING} (no pairs)"
    if result.corrected is None:
        why = "no difference" if result.differing == 0 else f"only {result.differing} differ"
        return f"{result.difference:+.3f} ({why})"
    p = "p < 0.001" if result.corrected < 0.001 else f"p = {result.corrected:.3f}"
    return f"{result.difference:+.3f} ({p})"


def pairs(significance: Significance, column: int) -> str:
    """Number of pairs in a column, as a range where strategies differ."""
    counts = sorted({row[column].pairs for row in significance.rows.values() if row})
    return " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]]))) if counts else NOTHING


def significance_caption(significance: Significance) -> str:
    """What the table of tests shows."""
    return (
        f"Mean difference of Dice to {significance.baseline}, and two-sided p of Wilcoxon's signed-rank test over the "
        f"patients (n); their cases in which Dice is defined for both are averaged, and the seeds. The "
        f"{significance.tests} p values of this table are corrected together after Holm. overall: the mean over the "
        f"classes of a case. Fewer than {FEWEST} patients that differ: no p. {NOTHING}: not complete."
    )
