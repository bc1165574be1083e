"""A suite's leaderboard as a short section of a Markdown document about several suites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from labeldrop_bench.leaderboard import presence_table, wording
from labeldrop_bench.leaderboard.markdown import comparison, escape, pipe_table
from labeldrop_bench.leaderboard.statistics import Statistics, analyse
from labeldrop_bench.leaderboard.statistics.rankings import ALPHA
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard

MOST = 20  # strategies in a table; where there are more, a grid shows all of them
COMMIT = 12  # digits of a commit
ENVIRONMENT = ("torch", "monai", "python", "device", "precision", "threads")


def section(leaderboard: Leaderboard, folder: str) -> str:
    """Title, who is first and how sure that is, a table, what was run, and where the files are.

    Args:
        leaderboard: of the suite.
        folder: of the suite's files, as a link from the document.

    Raises:
        LeaderboardError: a cases.csv does not hold what it should.
    """
    suite, boards = leaderboard.suite, leaderboard.boards
    tables = comparison(leaderboard)[1:] if suite.conditions else _tables(leaderboard, boards[0], folder)
    parts = [
        f"## {escape(suite.title)}",
        escape(suite.description),
        *(_winner(leaderboard, board) for board in boards),
        *tables,
        *(_shortcuts(board) for board in boards),
        escape(wording.legend(leaderboard)),
        _what_was_run(leaderboard),
        f"All numbers: [leaderboard.csv]({folder}/leaderboard.csv), [results.csv]({folder}/results.csv), and the test "
        f"cases of each run in [runs]({folder}/runs).",
    ]
    return "\n\n".join(part for part in parts if part)


def _winner(leaderboard: Leaderboard, board: Board) -> str:
    """Who is first, and how sure that is."""
    where = f"{escape(board.name)}: " if board.name else ""
    first = [entry for entry in board.display if entry.rank == 1]
    if not first:
        return f"{where}No strategy is complete yet."
    found = analyse(leaderboard, board)
    names = " and ".join(f"**{escape(entry.strategy.name)}**" for entry in first)
    score = wording.number(first[0].scores[board.ranked_by])
    what = escape(", ".join(f"{cell.class_name} on {cell.domain}" for cell in board.ranked_by.cells))
    on = "what can be scored" if board.blind else "all classes"
    on = f"the unannotated classes ({what})" if board.ranked_by.name == "unannotated" else on
    says = [
        *(f"{where}{escape(line)}" for line in wording.first_line(board)),
        f"{where}{names} {'is' if len(first) == 1 else 'are'} first: Dice {score} on {on}.",
    ]
    if found is None:
        return " ".join([*says, "There is too little to say how sure that is."])
    return " ".join([*says, *(_how_sure(board, entry, found) for entry in first)])


def _shortcuts(board: Board) -> str:
    """What can be seen without truth."""
    where = f"{board.name}: " if board.name else ""
    return escape(" ".join(f"{where}{sentence}" for sentence in presence_table.shortcuts(board)))


def _how_sure(board: Board, first: Entry, found: Statistics) -> str:
    """Interval, bootstrap and tests of a strategy that is first."""
    name = first.strategy.name
    place = found.strategies.index(name)
    interval = wording.interval(found.intervals.get(name, {}).get(board.ranked_by.name))
    often = wording.first_in(found.rankings["mean then rank"], place)
    others = [i for i in range(len(found.strategies)) if i != place]
    worse = [i for i in others if found.p_values[place, i] < ALPHA and found.differences[place, i] > 0]
    even = [escape(found.strategies[i]) for i in others if i not in worse]
    alike = f"; not told apart from {_listed(even)}" if even else ""
    trainings = wording.of_trainings(first.scores[board.ranked_by])
    return (
        f"95 % interval over {found.patients} patients {interval}; first in {often} of the bootstrap samples; "
        f"significantly better than {len(worse)} of {len(others)} others (Wilcoxon's signed-rank test, 5 % after "
        f"Holm){alike}. {trainings}"
    )


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _tables(leaderboard: Leaderboard, board: Board, folder: str) -> list[str]:
    """The best strategies; where that is not all of them, also loss x dropout."""
    shown = board.display[: MOST + board.has_full]
    left_out = len(board.display) - len(shown)
    if not left_out:
        return [_best(leaderboard, board, shown)]
    note = f"The best {MOST}; the other {left_out} are in [leaderboard.csv]({folder}/leaderboard.csv)."
    return [_best(leaderboard, board, shown), note, _grid(board), _grid_caption(board)]


def _best(leaderboard: Leaderboard, board: Board, shown: Sequence[Entry]) -> str:
    found = analyse(leaderboard, board)
    others = [column for column in board.summary if column is not board.ranked_by]

    def score(entry: Entry, column: Column) -> str:
        text = wording.number(entry.scores[column])
        return f"**{text}**" if wording.is_best(board, entry, column) else text

    def row(entry: Entry) -> list[str]:
        interval = (found.intervals if found else {}).get(entry.strategy.name, {}).get(board.ranked_by.name)
        return [
            wording.rank(entry), escape(entry.strategy.name), score(entry, board.ranked_by),
            wording.interval(interval), *(score(entry, column) for column in others), wording.to_full(board, entry),
            wording.milliseconds(entry), wording.mebibytes(entry),
        ]  # fmt: skip

    names = [escape(wording.header(column)) for column in (board.ranked_by, *others)]
    headers = ["#", "strategy", names[0], "95 %", *names[1:], wording.to_full_header(board), "ms / step", "MiB / step"]
    return pipe_table([row(entry) for entry in shown], headers, ["right", "left", *["right"] * (len(headers) - 2)])


def _grid(board: Board) -> str:
    """Loss x dropout; the best dropout of each loss in bold."""
    means: dict[str, dict[float, float]] = defaultdict(dict)
    for entry in board.strategies:
        mean = entry.scores[board.ranked_by].mean
        if mean is not None and not entry.strategy.full_labels:
            means[entry.strategy.loss][entry.strategy.dropout] = mean
    dropouts = sorted({p for by_dropout in means.values() for p in by_dropout})

    def cell(by_dropout: dict[float, float], p: float) -> str:
        if p not in by_dropout:
            return wording.NOTHING
        text = f"{by_dropout[p]:.3f}"
        return f"**{text}**" if by_dropout[p] == max(by_dropout.values()) else text

    order = sorted(means, key=lambda loss: -max(means[loss].values()))
    rows = [[escape(loss), *(cell(means[loss], p) for p in dropouts)] for loss in order]
    return pipe_table(rows, ["loss", *(f"p = {p:g}" for p in dropouts)], ["left", *["right"] * len(dropouts)])


def _grid_caption(board: Board) -> str:
    return (
        f"Dice, {escape(board.ranked_by.name)} mean, by loss and label dropout probability p; bold: the best p of a "
        f"loss. Losses in the order of their best."
    )


def _what_was_run(leaderboard: Leaderboard) -> str:
    """Command, seeds, commit, versions, machine and time."""
    suite, environment = leaderboard.suite, leaderboard.environment
    commits = [commit[:COMMIT] + "-dirty" * commit.endswith("-dirty") for commit in environment.get("commit", ())]
    facts = [
        f"`{wording.command(leaderboard)}`",
        f"seeds {', '.join(map(str, suite.seeds))}",
        f"commit {' / '.join(commits) or 'unknown'}",
        *(f"{key} {' / '.join(environment[key])}" for key in ENVIRONMENT if key in environment),
        f"{leaderboard.finished} runs in {leaderboard.seconds / 3600:.1f} h of computing",
    ]
    return f"Run: {_escape_all_but_code(facts)}."


def _escape_all_but_code(facts: Sequence[str]) -> str:
    return ", ".join(fact if fact.startswith("`") else escape(fact) for fact in facts)
