"""Figures of the page: made once, shown within it, and kept as files if there is a place for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from labeldrop_bench import records
from labeldrop_bench.leaderboard import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it.

    Attributes:
        caption: its heading.
        svg: an element of the page.
    """

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Gallery:
    """Where figures become pictures.

    Attributes:
        directory: of the suite, where each figure is kept as PNG and SVG too; None: nowhere.
    """

    directory: Path | None

    def hang(self, figure: Figure, name: str, caption: str) -> Picture:
        """A figure as a picture.

        Args:
            figure: to be shown.
            name: of its files, without ending, below the directory; each figure has its own.
            caption: what it shows.
        """
        content = figures.svg(figure, name)
        if self.directory is not None:
            figure.set_layout_engine("none")  # all has its place by now, and finding it takes as long as drawing
            records.write_bytes(self.directory / f"{name}.svg", content)
            records.write_bytes(self.directory / f"{name}.png", figures.png(figure))
        label = f"{caption}; the numbers are in the tables and in the files of the runs"
        return Picture(caption, Markup(figures.inline(content, label)))  # noqa: S704 - text in it is escaped
