"""The leaderboard in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from labeldrop_bench.leaderboard import presence_table, wording
from labeldrop_bench.leaderboard.presence_table import PresenceTable
from labeldrop_bench.leaderboard.reading import METRIC
from labeldrop_bench.leaderboard.table import Board, Column, Entry, Leaderboard
from labeldrop_bench.records import METRICS, SuiteConfig

CELLS_ABREAST = 6  # columns of single cells that fit beside a strategy's name in 80 characters
CONDITIONS_ABREAST = 4
PRESENCE_ABREAST = 4


def renderable(leaderboard: Leaderboard) -> RenderableType:
    """Strategies x conditions, then the tables of each condition with captions; for `rich.print`."""
    boards = leaderboard.boards
    several = range(0, len(boards), CONDITIONS_ABREAST) if leaderboard.suite.conditions else ()
    parts = [boards[i : i + CONDITIONS_ABREAST] for i in several]
    comparison = [wording.comparison_caption(leaderboard)] if parts else []
    return Group(
        *(_comparison(leaderboard, part) for part in parts),
        *map(_caption, comparison),
        *(_section(board) for board in boards),
        _caption(wording.legend(leaderboard)),
    )


def render(leaderboard: Leaderboard) -> str:
    """The leaderboard as text for standard output: its width, and colours only if it is a terminal."""
    console = Console()
    with console.capture() as capture:
        console.print(renderable(leaderboard))
    return capture.get()


def _section(board: Board) -> RenderableType:
    """Summary table, tables of single domains and classes, captions; presence; the other metrics."""
    parts = [board.single[i : i + CELLS_ABREAST] for i in range(0, len(board.single), CELLS_ABREAST)]
    shown: list[RenderableType] = [Text(line, style="bold") for line in wording.first_line(board)]
    shown += [_summary(board), *(_cells(board, part) for part in parts)]
    shown += map(_caption, wording.captions(board))
    if found := presence_table.table(board):
        shown += [*_presence(found), *(Text(sentence, style="bold") for sentence in found.shortcuts)]
        shown += map(_caption, found.captions)
    if board.cells:
        shown += [_metrics(board), _caption(wording.metrics_caption(board))]
    return Group(*shown)


def _caption(text: str) -> Text:
    return Text(text, style="dim")


def _named(suite: SuiteConfig) -> str:
    """Title and name, which are the same where a suite file says neither."""
    return suite.title if suite.title == suite.name else f"{suite.title} ({suite.name})"


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))


def _add_columns(table: Table, *, names: Sequence[str] = (), numbers: Sequence[str] = ()) -> None:
    """Only names may wrap; a number that is cut in two would be read as another number."""
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for number in numbers:
        table.add_column(Text(number), justify="right", no_wrap=True)


def _scores(board: Board, entry: Entry, columns: Sequence[Column]) -> list[Text]:
    return [_stacked(wording.number(entry.scores[c]), wording.is_best(board, entry, c)) for c in columns]


def _stacked(number: str, best: bool) -> Text:
    """Mean, and its deviation on a second line."""
    return Text(number.replace(" ", "\n"), style="bold" if best else "")


def _comparison(leaderboard: Leaderboard, boards: Sequence[Board]) -> Table:
    """The scores of all strategies in a few conditions."""
    first = boards[0] is leaderboard.boards[0]
    table = _table(_named(leaderboard.suite) if first else "")
    _add_columns(table, names=["strategy"])
    for board in boards:  # a condition's name may wrap, its numbers, of six characters, may not
        table.add_column(Text(board.name), justify="right", min_width=6, max_width=12)
    for entry in leaderboard.boards[0].strategies:
        name = entry.strategy.name
        scores = [
            score
            for board in boards
            for score in _scores(board, board.entry(name), [leaderboard.compared_column(board)])
        ]
        table.add_row(Text(name), *scores, style=_style(entry))
    return table


def _style(entry: Entry) -> str:
    return "italic" if entry.strategy.full_labels else ""


def _summary(board: Board) -> Table:
    """Rank, strategy, the means over several cells, gap and seeds."""
    table = _table(f"\n{board.name}" if board.name else _named(board.suite))
    _add_columns(table, numbers=["#"])
    _add_columns(table, names=["strategy", "loss"])
    headers = [wording.header(column).replace("unann", "un-\nann") for column in board.summary]
    _add_columns(table, numbers=["p", *headers])
    full = [wording.to_full_header(board).replace(" closed", "\nclosed")] if board.has_full else []
    _add_columns(table, numbers=[*full, "seeds"])
    for entry in board.display:
        strategy = entry.strategy
        names = [Text(wording.rank(entry)), Text(strategy.name), Text(strategy.loss), Text(f"{strategy.dropout:g}")]
        to_full = [Text(wording.to_full(board, entry))] if board.has_full else []
        seeds = Text(wording.seeds(board, entry))
        table.add_row(*names, *_scores(board, entry, board.summary), *to_full, seeds, style=_style(entry))
    return table


def _presence(found: PresenceTable) -> Iterator[Table]:
    """How often and how large the strategies find the classes that were unannotated somewhere."""
    for start in range(0, len(found.headers), PRESENCE_ABREAST):
        part = slice(start, start + PRESENCE_ABREAST)
        table = _table(f"\n{presence_table.TITLE}" if start == 0 else "")
        _add_columns(table, names=["strategy"])
        for header in found.headers[part]:
            table.add_column(Text(header), justify="right", min_width=len("100 %"), max_width=14)
        for entry, fields in found.rows:
            texts = (Text(f"{share}\n{size}") for share, size in fields[part])
            table.add_row(Text(entry.strategy.name), *texts, style=_style(entry))
        yield table


def _metrics(board: Board) -> Table:
    """The other metrics in the column that ranks, and what the loss costs."""
    others = [name for name in METRICS if name != METRIC]
    table = _table(f"\n{wording.metrics_title(board)}")
    _add_columns(
        table, names=["strategy"], numbers=[*(wording.metric_heading(board, name) for name in others), "ms", "MiB"]
    )
    for entry in board.display:
        measures = [
            _stacked(wording.measure(board, entry, name), wording.is_best(board, entry, board.ranked_by, name))
            for name in others
        ]
        cost = Text(wording.milliseconds(entry)), Text(wording.mebibytes(entry))
        table.add_row(Text(entry.strategy.name), *measures, *cost, style=_style(entry))
    return table


def _cells(board: Board, columns: Sequence[Column]) -> Table:
    """The scores of a few single cells."""
    table = _table("By domain and class")
    _add_columns(table, names=["strategy"], numbers=[wording.header(column) for column in columns])
    for entry in board.display:
        table.add_row(Text(entry.strategy.name), *_scores(board, entry, columns), style=_style(entry))
    return table
