"""Example images with the classes of truth and prediction laid over them, stored once however often they are shown."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.records import Example

# Okabe-Ito, most different first; with more classes they come again with another pattern
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
PATTERNS = 3  # filled, chequered, striped
UNKNOWN = 255  # in a truth
FILL, EDGE = 110, 255  # opacity of a class, and of its edge


@dataclass(frozen=True)
class Swatch:
    """A class in a legend."""

    name: str
    colour: str
    pattern: int


@dataclass(frozen=True)
class Panel:
    """One picture: images upon each other.

    Attributes:
        title: what it shows.
        layers: names of stored images, the lowest first.
    """

    title: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """An example as the page shows it.

    Attributes:
        title: case and domain.
        width, height: pixels of its images.
        panels: image, truth, prediction, then the maps of the loss.
    """

    title: str
    width: int
    height: int
    panels: tuple[Panel, ...]


@dataclass
class Store:
    """Images by their content: name -> data address of a PNG file."""

    addresses: dict[str, str] = field(default_factory=dict)

    def keep(self, pixels: NDArray[np.uint8]) -> str:
        """The name of an image, [H, W] grey or [H, W, 4] RGBA."""
        from PIL import Image

        name = "i" + hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]
        if name not in self.addresses:
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG", optimize=True)
            self.addresses[name] = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
        return name


def show(example: Example, store: Store) -> Shown:
    """Put the images of an example into the store."""
    image = store.keep(example.image)
    height, width = example.image.shape
    panels = [
        Panel("image", (image,)),
        Panel("truth", (image, store.keep(overlay(example.truth)))),
        Panel("prediction", (image, store.keep(overlay(example.prediction)))),
        *(Panel(name, (store.keep(coloured(values)),)) for name, values in example.maps.items()),
    ]
    return Shown(f"{example.case} ({example.domain})", width, height, tuple(panels))


def overlay(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 4] RGBA of a class map [H, W]: nothing on background, edges firm, what is unknown grey."""
    pixels = np.zeros((*classes.shape, 4), np.uint8)
    y, x = np.indices(classes.shape)
    patterns = (np.ones_like(classes, bool), (x + y) % 2 == 0, y % 3 == 0)
    for c in np.unique(classes):
        if c == 0:
            continue
        here = classes == c
        unknown = c == UNKNOWN
        swatch = swatch_of(int(c), "")
        pixels[here, :3] = (128, 128, 128) if unknown else tuple(bytes.fromhex(swatch.colour[1:]))
        pixels[here & patterns[1 if unknown else swatch.pattern], 3] = FILL
        pixels[here & _edge(here), 3] = FILL if unknown else EDGE
    return pixels


def _edge(here: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels with a neighbour that is not there; the border of the image is no edge."""
    around = np.pad(here, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    found: NDArray[np.bool_] = ~inner
    return found


def coloured(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 4] RGBA of a map [H, W], in the colours of the figures: dark blue is 0, yellow 255."""
    from matplotlib import colormaps

    from labeldrop_bench.leaderboard.figures.cells import COLOUR_MAP

    pixels: NDArray[np.uint8] = colormaps[COLOUR_MAP](values, bytes=True)
    return pixels


def swatch_of(number: int, name: str) -> Swatch:
    """How class `number`, 1 or more, is shown."""
    cycle, place = divmod(number - 1, len(COLOURS))
    return Swatch(name, COLOURS[place], cycle % PATTERNS)


def legend(examples: Sequence[Example]) -> tuple[Swatch, ...]:
    """The foreground classes that are seen in some examples of one data set."""
    seen = sorted({int(c) for e in examples for part in (e.truth, e.prediction) for c in np.unique(part)} - {0})
    names = examples[0].classes if examples else ()
    by_number: Mapping[int, str] = {**dict(enumerate(names)), UNKNOWN: "unknown"}
    swatches = [swatch_of(c, by_number.get(c, f"class {c}")) for c in seen]
    return tuple(Swatch("unknown", "#808080", 1) if s.name == "unknown" else s for s in swatches)
