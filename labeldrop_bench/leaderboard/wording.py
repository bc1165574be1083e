"""The words and number formats that every rendering of a leaderboard shares."""

from __future__ import annotations

import shlex

from labeldrop_bench.leaderboard.reading import DIRECTION
from labeldrop_bench.leaderboard.significance import FEWEST, Comparison, Significance
from labeldrop_bench.leaderboard.table import SUMMARY, Board, Column, Entry, Leaderboard, Score

NOTHING = "—"  # an incomplete cell
UNDRAWN = "†"  # a class that was not drawn in its domain's training data


def header(column: Column) -> str:
    """Heading of a column of scores: "undrawn", "drawn", "overall", or domain and class."""
    if column.name in SUMMARY:
        return column.name
    (cell,) = column.cells
    return f"{cell.domain} {cell.class_name}" + ("" if cell.drawn else UNDRAWN)


def number(score: Score) -> str:
    """Mean, and standard deviation where there is one, in Dice units; or the mark of an incomplete cell."""
    if score.mean is None:
        return NOTHING
    return f"{score.mean:.3f}" if score.std is None else f"{score.mean:.3f} ±{score.std:.3f}"


def rank(entry: Entry) -> str:
    """Rank, or the mark of a strategy that has none."""
    return NOTHING if entry.rank is None else str(entry.rank)


def gap(entry: Entry) -> str:
    """Signed difference to `full` in Dice units."""
    return NOTHING if entry.gap is None else f"{entry.gap:+.3f}"


def seeds(board: Board, entry: Entry) -> str:
    """Finished of those asked for."""
    asked = len(board.suite.seeds)
    return f"{asked - len(entry.missing_seeds)}/{asked}"


def is_best(board: Board, entry: Entry, column: Column) -> bool:
    """Whether the strategy holds the best mean of the column among those that compete."""
    mean = entry.scores[column].mean
    return not entry.strategy.full_labels and mean is not None and mean == board.best(column)


def captions(board: Board) -> list[str]:
    """Sentences below a table: what was measured, how it was averaged and ranked, what is missing."""
    if not board.cells:
        return [*_missing(board), *board.problems]
    return [_measured(board), _ranked(board), *_missing(board), *board.problems]


def legend(leaderboard: Leaderboard) -> str:
    """What the marks mean, below all tables."""
    marks = [f"Bold: best, full aside. p: label dropout probability. {NOTHING}: not complete, or not applicable."]
    if any(not cell.drawn for board in leaderboard.boards for cell in board.cells):
        marks.insert(0, f"{UNDRAWN}: not drawn in training.")
    if leaderboard.has_full:
        names = dict.fromkeys(board.ranked_by.name for board in leaderboard.boards if board.cells)
        marks.append(f"to full: {' or '.join(names)} mean minus that of full.")
    return " ".join(marks)


def comparison_caption(leaderboard: Leaderboard) -> str:
    """What the table strategies x conditions shows."""
    name = leaderboard.compared_by
    mixed = {board.ranked_by.name for board in leaderboard.boards if board.cells} != {name}
    why = ": not all conditions have undrawn classes" if mixed else ", which the strategies are ranked by"
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
    if board.ranked_by.name == "undrawn":
        undrawn = ", ".join(f"{cell.class_name} on {cell.domain}" for cell in board.ranked_by.cells)
        what = f"the undrawn classes ({undrawn}): those not drawn in that domain's training data"
    else:
        what = "the overall mean; every class is drawn in every domain"
    means = "Columns over several classes weigh each domain and class equally."
    full = " full is trained on all labels: the upper bound, not ranked." if board.has_full else ""
    return f"Ranked by {what}. {means}{full}"


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
        f"test cases in which Dice is defined for both, averaged over the seeds; the {significance.tests} p values of "
        f"this table are corrected together after Holm. Cases of one patient count as independent. overall: the mean "
        f"over the classes of a case. Fewer than {FEWEST} cases that differ: no p. {NOTHING}: not complete."
    )
