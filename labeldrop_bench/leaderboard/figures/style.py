"""What all figures share: colours, sizes, how strategies look, legends, files."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labeldrop_bench.records import SuiteConfig

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito colours, which stay apart for colour-blind readers; a marker's shape says the same again.
COLOURS = {
    "unannotated": "#D55E00",
    "annotated": "#0072B2",
    "overall": "#0072B2",
    "text": "#222222",
    "paper": "#FFFFFF",
}
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FULL = "#888888"  # the upper bound stays in the background
LIGHT = "#FEFEFE"  # on a dark colour, whatever the paper
DARK = {  # what each of these becomes where the paper is dark; any other colour stays
    "#D55E00": "#E69F00", "#0072B2": "#56B4E9", "#009E73": "#009E73", "#CC79A7": "#CC79A7", "#E69F00": "#F0E442",
    "#56B4E9": "#D55E00", "#888888": "#999999", "#222222": "#DDDDDD", "#FFFFFF": "#16181C",
}  # fmt: skip
MARKERS = ("o", "D", "s", "^", "v", "P", "X")
Dash = Literal["-", "--", ":"]
DASHES: tuple[Dash, ...] = ("-", "--", ":")
HATCHES = ("", "////", "....")
WIDTH = 8.0  # inches
NAME_WIDTH = 30  # characters of a strategy's name on one line


@dataclass(frozen=True)
class Look:
    """How a line or box looks; all three tell it from the others."""

    colour: str
    marker: str
    dash: Dash
    hatch: str


def looks(number: int) -> list[Look]:
    """Looks that differ: the colours first, and when they are used up the dashes too."""
    colours = LINES
    return [
        Look(
            colours[i % len(colours)],
            MARKERS[i % len(MARKERS)],
            DASHES[i // len(colours) % len(DASHES)],
            HATCHES[i // len(colours) % len(HATCHES)],
        )
        for i in range(number)
    ]


def looks_of(suite: SuiteConfig) -> dict[str, Look]:
    """The look of each strategy, the same in all figures of a suite."""
    competing = [strategy.name for strategy in suite.strategies if not strategy.full_labels]
    full = {s.name: Look(FULL, "*", "-", "") for s in suite.strategies if s.full_labels}
    return {**full, **dict(zip(competing, looks(len(competing)), strict=True))}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure  # here, because a terminal or CSV table has no use for it

    return Figure(figsize=(width, height), layout="constrained", facecolor=COLOURS["paper"])


def grid_of_panels(
    figure: Figure,
    number: int,
    abreast: int,
    **shared: Any,  # noqa: ANN401 - what `subplots` takes
) -> list[Axes]:
    """That many panels, in rows of at most so many abreast; the places left over in the last row stay empty."""
    columns = min(number, abreast)
    panels = figure.subplots(rows_of_panels(number, abreast), columns, squeeze=False, **shared)
    flat: list[Axes] = list(panels.flat)
    for axes in flat[number:]:
        axes.set_visible(False)
    if shared.get("sharex"):
        for axes in flat[max(0, number - columns) : number]:  # the lowest of its column, though not of the figure
            axes.xaxis.set_tick_params(labelbottom=True)
    return flat[:number]


def rows_of_panels(number: int, abreast: int) -> int:
    """How many rows `grid_of_panels` makes."""
    return math.ceil(number / min(number, abreast))


def dress(axes: Axes, grid: Literal["x", "y", "none"] = "y", *, title: str = "", room: int = 40) -> None:
    """Colours, grid and title of a panel, in lines of at most `room` characters."""
    text = COLOURS["text"]
    axes.set_facecolor(COLOURS["paper"])
    axes.tick_params(colors=text)
    axes.xaxis.label.set_color(text)
    axes.yaxis.label.set_color(text)
    if grid != "none":
        axes.grid(axis=grid, color=text, alpha=0.15)
        axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom" or (side == "left" and grid == "y"))
        spine.set_color(text)
    if title:
        axes.set_title(wrapped(title, room), color=text, loc="left", fontsize=10, parse_math=False)


def head(figure: Figure, suite: SuiteConfig, width: float = WIDTH) -> None:
    """The suite's title above everything."""
    figure.suptitle(wrapped(suite.title, int(9.5 * width)), color=COLOURS["text"], x=0.01, ha="left", parse_math=False)


def legend(figure: Figure, handles: Sequence[Artist], width: float = WIDTH) -> None:
    """A legend below everything, in as many columns as fit."""
    from matplotlib.legend import Legend

    for handle in handles:
        handle.set_label(wrapped(str(handle.get_label()), 2 * NAME_WIDTH))
    longest = max(len(line) for handle in handles for line in str(handle.get_label()).splitlines())
    columns = max(1, min(len(handles), int(width / (0.6 + 0.085 * longest))))
    below: Legend = figure.legend(handles=list(handles), loc="outside lower left", ncols=columns, frameon=False)
    for label in below.get_texts():
        label.set_color(COLOURS["text"])
        label.set_parse_math(False)


def line_handles(look_of: Mapping[str, Look]) -> list[Artist]:
    """Lines with markers for a legend."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=look.colour, linestyle=look.dash, marker=look.marker, linewidth=2.2, label=name)
        for name, look in look_of.items()
    ]


def name_columns(axes: Axes, places: Sequence[float], names: Sequence[str], room: int) -> None:
    """Names below the horizontal axis, slanted where they do not fit side by side.

    Args:
        axes: the panel.
        places: where on the axis.
        names: of the places.
        room: characters that fit between two places.
    """
    lines = [wrapped(name, room) for name in names]
    words = [word for name in names for word in re.split(r"[\s-]", name)]
    fit = all(line.count("\n") < 4 for line in lines) and all(len(word) <= room for word in words)
    axes.set_xticks(places, lines if fit else [wrapped(name, 28) for name in names], parse_math=False, fontsize=9)
    for label in axes.get_xticklabels() if not fit else ():
        label.set(rotation=40, ha="right", rotation_mode="anchor")


def shared_words(names: Sequence[str]) -> tuple[str, list[str]]:
    """The words that all names begin and end with, as the label of an axis, and what is left of each for its tick.

    ["alpha 0.1", "alpha 0.2"] gives "alpha" and ["0.1", "0.2"].
    """
    words = [name.split() for name in names]
    fewest = min(map(len, words))
    if len(names) == 1:
        return "", list(names)
    start = 0
    while start < fewest - 1 and len({w[start] for w in words}) == 1:
        start += 1
    end = 0
    while end < fewest - 1 - start and len({w[-1 - end] for w in words}) == 1:
        end += 1
    label = " ".join([*words[0][:start], *words[0][len(words[0]) - end :]])
    return label, [" ".join(w[start : len(w) - end]) for w in words]


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most so many characters."""
    return textwrap.fill(text, width)


def empty_figure(suite: SuiteConfig) -> Figure:
    """A figure that says that there is nothing to show yet."""
    figure = new_figure(2.0)
    axes = figure.add_subplot()
    nothing(axes)
    axes.set_xticks([])
    dress(axes, "x")
    head(figure, suite)
    return figure


def nothing(axes: Axes) -> None:
    """Say in a panel that there is nothing to show yet."""
    axes.text(
        0.5, 0.5, "no finished results yet", transform=axes.transAxes, ha="center", va="center",
        color=COLOURS["text"], alpha=0.7,
    )  # fmt: skip
