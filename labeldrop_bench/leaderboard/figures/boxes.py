"""Box plots of the single test cases, by class and strategy (Islam et al. 2024, experiment 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from labeldrop_bench.leaderboard import wording
from labeldrop_bench.leaderboard.cases import Place, dice_of_cases, over_classes
from labeldrop_bench.leaderboard.figures.style import (
    COLOURS,
    WIDTH,
    Look,
    dress,
    head,
    legend,
    looks_of,
    name_columns,
    new_figure,
    nothing,
)
from labeldrop_bench.leaderboard.reading import DIRECTION
from labeldrop_bench.leaderboard.table import Cell, Leaderboard, in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOX, CLASS, WIDEST = 0.17, 0.75, 24.0  # inches: a box; a class at the least; the figure
LETTER = 0.085  # inches
SPREAD = 0.8  # of the room of a class, the rest being space between classes


def draw(leaderboard: Leaderboard, look_of: Mapping[str, Look] | None = None) -> Figure:
    """A panel for each condition (down) and domain (across); in it, for each class, a box for each strategy.

    Box: quartiles; whiskers: 5th and 95th percentile; points: the cases beyond them. A case counts once, with its mean
    over the seeds; a strategy of which seeds are missing has no boxes.

    Args:
        leaderboard: of the suite.
        look_of: name -> look of the strategies to draw, without a title; None is all.
    """
    suite, boards = leaderboard.suite, leaderboard.boards
    domains = in_order([cell.domain for cell in board.cells] for board in boards) or [""]
    titled = look_of is None
    look_of = look_of or looks_of(suite)
    classes = max(len([c for c in b.cells if c.domain == d]) for b in boards for d in domains) + 1
    panel = max(CLASS, BOX * (len(look_of) + 1) / SPREAD) * classes
    panel = min((WIDEST - 0.8) / len(domains), max((WIDTH - 0.8) / len(domains), panel))
    width = 0.8 + panel * len(domains)
    room = int((panel - 0.2) / LETTER)
    figure = new_figure(1.4 + 3.2 * len(boards), width)
    panels = figure.subplots(len(boards), len(domains), squeeze=False, sharey=True)
    for row, board in zip(panels, boards, strict=True):
        dice = {name: dice_of_cases(leaderboard, board, name) for name in look_of}
        for axes, domain in zip(row, domains, strict=True):
            groups = _groups([cell for cell in board.cells if cell.domain == domain])
            _panel(axes, list(groups.values()), dice, look_of)
            name_columns(axes, range(len(groups)), list(groups), room=room // classes)
            several = len(domains) > 1 or not board.name
            title = ": ".join(filter(None, [board.name, domain if several else ""]))
            dress(axes, title=title, room=room)
        row[0].set_ylabel(f"Dice of each case, {DIRECTION}")
    if titled:
        head(figure, suite, width)
    _legend(figure, leaderboard, look_of, width)
    return figure


def _groups(cells: list[Cell]) -> dict[str, list[Cell]]:
    """Heading -> the classes below it: each by itself, and all of them if there are several."""
    single = {cell.class_name + ("" if cell.annotated else wording.UNANNOTATED): [cell] for cell in cells}
    return {**single, "mean": cells} if len(cells) > 1 else single


def _panel(
    axes: Axes, groups: list[list[Cell]], dice: dict[str, dict[Place, float]], look_of: Mapping[str, Look]
) -> None:
    """Groups of boxes, one for each class and one for their mean."""
    step = SPREAD / len(look_of)
    empty = True
    for place, group in enumerate(groups):
        wanted = {(cell.domain, cell.class_name) for cell in group}
        for number, (name, look) in enumerate(look_of.items()):
            of = dice[name]
            values = list(over_classes(of, (p for p in of if p[:2] in wanted)).values())
            if values:
                empty = False
                _box(axes, values, place + step * (number - (len(look_of) - 1) / 2), 0.82 * step, look)
    axes.set_xlim(-0.55, max(1, len(groups)) - 0.45)
    axes.tick_params(axis="x", length=0)
    if empty:
        nothing(axes)


def _box(axes: Axes, values: list[float], x: float, width: float, look: Look) -> None:
    text = COLOURS["text"]
    parts = axes.boxplot(
        [values], positions=[x], widths=width, whis=(5, 95), patch_artist=True, manage_ticks=False,
        flierprops={"marker": ".", "markersize": 3, "markerfacecolor": look.colour, "markeredgecolor": look.colour},
        medianprops={"color": text, "linewidth": 1.5}, whiskerprops={"color": look.colour},
        capprops={"color": look.colour},
    )  # fmt: skip
    for patch in parts["boxes"]:
        patch.set(facecolor=look.colour, edgecolor=text, linewidth=0.6, hatch=look.hatch, alpha=0.85)


def _legend(figure: Figure, leaderboard: Leaderboard, look_of: Mapping[str, Look], width: float) -> None:
    from matplotlib.artist import Artist
    from matplotlib.patches import Patch

    text = COLOURS["text"]
    handles: list[Artist] = [
        Patch(facecolor=look.colour, edgecolor=text, hatch=look.hatch, alpha=0.85, label=name)
        for name, look in look_of.items()
    ]
    if any(not cell.annotated for board in leaderboard.boards for cell in board.cells):
        handles.append(Patch(alpha=0, label=f"{wording.UNANNOTATED} not annotated in training"))
    legend(figure, handles, width)
