"""A figure as bytes: PNG, SVG, and SVG to stand within a page that has light and dark colours."""

from __future__ import annotations

import hashlib
import io
import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from labeldrop_bench.leaderboard.figures.style import DARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS = re.compile(r"(-?\d+\.\d\d)\d+")  # a hundredth of a point is finer than any screen's pixel
SIZE = re.compile(r' width="([\d.]+)pt" height="[\d.]+pt"')  # a point is 4/3 of a pixel
NUMBERS = re.compile(r'(?<= d=")[^"]*|(?<= transform=")[^"]*|(?<= x=")[^"]*|(?<= y=")[^"]*')
COLOUR = re.compile(r"#[0-9a-f]{6}\b(?![^<>]*</text>)")  # a name may look like one
WITHOUT_USE = (
    re.compile(r"<metadata>.*?</metadata>", re.DOTALL),
    re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL),  # holds for all of a page
    re.compile(r' xmlns(?::xlink)?="[^"]*"'),  # HTML knows them
    re.compile(r' id="[\w.]+_\d+"'),  # of groups, the same in all figures; nothing refers to them
    re.compile(r" font-family: [^;\"]*;"),  # the page has its own
    re.compile(r' transform="rotate\(-0 [^"]*"'),
    re.compile(r"<g/>"),
)
ALONE = re.compile(r"<g>\s*(<[^<>]+/>|<text [^<>]*>[^<>]*</text>)\s*</g>")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, 150 pixels per inch."""
    return _save(figure, "png", "", {"Software": None})


def svg(figure: Figure, name: str) -> bytes:
    """The figure as an SVG file with text as text; the same bytes every time.

    Args:
        figure: to be written.
        name: sets the ids within the file apart from those of other figures.
    """
    return _save(figure, "svg", name, {"Date": None})


def inline(content: bytes, label: str) -> str:
    """An SVG file of `svg` as an element of an HTML page, whose colours are variables of the page.

    Args:
        content: the file.
        label: what the figure shows, for readers who do not see it.
    """
    _, start, rest = content.decode().partition("<svg")
    text = SIZE.sub(lambda found: f' style="max-width: {float(found[1]) * 4 / 3:.0f}px"', f"{start}{rest}", count=1)
    text = text.replace("<svg", f'<svg role="img" aria-label={quoteattr(label)}', 1)
    for pattern in WITHOUT_USE:
        text = pattern.sub("", text)
    text = COLOUR.sub(lambda found: _variable(found[0]), text)
    text = NUMBERS.sub(lambda found: " ".join(DIGITS.sub(r"\1", found[0]).split()), text)
    text = ALONE.sub(r"\1", ALONE.sub(r"\1", text))
    return re.sub(r">\s+<", ">\n<", text)


def variables(*, dark: bool) -> dict[str, str]:
    """CSS variable -> colour: everything that `inline` refers to."""
    return {_name(light): DARK[light] if dark else light for light in DARK}


def _variable(colour: str) -> str:
    return f"var({_name(colour)})" if colour.upper() in DARK else colour


def _name(colour: str) -> str:
    return f"--c{colour[1:].lower()}"


def _save(figure: Figure, file_format: str, name: str, metadata: dict[str, None]) -> bytes:
    from matplotlib import rc_context

    content = io.BytesIO()
    salt = hashlib.sha256(name.encode()).hexdigest()
    with rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        # tight: the layout leaves names of several lines too little room at the left
        figure.savefig(content, format=file_format, dpi=150, metadata=metadata, bbox_inches="tight", pad_inches=0.08)
    return content.getvalue()
