"""Curves of Unity Imaging: what its label files say, and the regions that curves enclose."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.data.prepare import DataProblem
from labeldrop_bench.text import TextError, read_text

_NAME = re.compile(r"(?:(\d{2})-)?([0-9a-f]{64})-(\d{4})\.png")
_DRAWN, _BLURRED, _OFF = "curve", "blurred", "off"
_SPACING = 0.5  # pixels between points along a spline

Labels = Mapping[str, Any]  # name of a label -> what a label file says of it
Nodes = tuple[list[float], list[float]]  # x, y in pixels


class Curve(TypedDict):
    """What is known of one label in one picture. `nodes` of each piece; none where it is annotated but absent."""

    annotated: bool
    nodes: list[Nodes]


def picture_name(name: str) -> str | None:
    """The name of a picture in its full form without ending, "01-<64 hex>-0007"; None if it is no picture's."""
    match = _NAME.fullmatch(name)
    return f"{match[1] or '01'}-{match[2]}-{match[3]}" if match else None


def picture_file(cache: Path, name: str) -> Path:
    """Where a picture is; some releases leave the leading "01-" of its name out there."""
    folder = cache / name[:2] / name[3:5] / name[5:7]
    full, short = folder / f"{name}.png", folder / f"{name[3:]}.png"
    return short if short.is_file() and not full.is_file() else full


def listed_pictures(path: Path, problems: list[DataProblem]) -> dict[str, Labels]:
    """Full name of each picture in a label file -> its labels.

    Raises:
        ValueError: the file is no JSON object.
    """
    try:
        entries = json.loads(read_text(path))
    except TextError as error:
        raise ValueError(f"unity: {error}") from error
    except ValueError as error:  # json.JSONDecodeError is one
        raise ValueError(f"unity: {path} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(entries, dict):
        raise ValueError(f"unity: {path} must hold an object with a key for each picture, got {type(entries).__name__}")
    found: dict[str, Labels] = {}
    for key, entry in entries.items():
        name, place = picture_name(key), f"{path}, {key}"
        if name is None:
            problems.append(DataProblem(place, "is no picture's name, [01-]<64 hex digits>-<4 digits>.png"))
        elif name in found:
            problems.append(DataProblem(place, "is listed twice, with and without its leading number; leave one"))
        elif not isinstance(entry, dict) or not isinstance(entry.get("labels"), dict):
            problems.append(DataProblem(place, 'must be an object with the key "labels"'))
        else:
            found[name] = entry["labels"]
    return found


def parse_curve(place: str, entry: object, off_is_absent: bool) -> Curve:
    """One label of one picture.

    Args:
        place: for errors.
        entry: an instance {"type": ..., "x": "12.0 13.5", "y": ...}, a list of instances, or None.
        off_is_absent: "off" means annotated, with no pixel.

    Raises:
        DataProblem: other than that, a type that a curve cannot have, nodes that are no numbers or make no curve.
    """
    instances: list[Any] = [] if entry is None else entry if isinstance(entry, list) else [entry]
    if not all(isinstance(instance, dict) for instance in instances):
        raise DataProblem(place, f'must be an object with type, x and y, or a list of such, got "{entry}"')
    types = {str(instance.get("type")) for instance in instances}
    if unknown := types - {_DRAWN, _BLURRED, _OFF}:
        raise DataProblem(
            place,
            f"type must be {_DRAWN}, {_OFF} or {_BLURRED}, got {', '.join(sorted(unknown))}; is it a curve's name?",
        )
    if _BLURRED in types or not types:
        return {"annotated": False, "nodes": []}
    nodes = [_nodes(place, instance) for instance in instances if instance["type"] == _DRAWN]
    return {"annotated": bool(nodes) or off_is_absent, "nodes": nodes}


def _nodes(place: str, instance: Mapping[str, Any]) -> Nodes:
    """Nodes without repetitions, between which a spline has no direction."""
    try:
        x, y = ([float(number) for number in str(instance[axis]).split()] for axis in ("x", "y"))
    except (KeyError, ValueError) as error:
        raise DataProblem(place, f"x and y must be numbers with spaces between them ({error}); correct them") from error
    if len(x) != len(y) or not all(map(math.isfinite, [*x, *y])):
        raise DataProblem(place, f"x and y must be as many finite numbers, got {len(x)} and {len(y)}; correct them")
    pairs = list(zip(x, y, strict=True))
    kept = [pair for before, pair in zip([None, *pairs], pairs, strict=False) if pair != before]
    if len(kept) < 3:
        raise DataProblem(
            place, f"is empty: a curve needs three different nodes, got {len(kept)}; draw it, or mark it off"
        )
    return [pair[0] for pair in kept], [pair[1] for pair in kept]


def spline(nodes: Nodes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (x, y) along the open natural cubic spline through nodes, over the length of the chords between them."""
    from scipy.interpolate import CubicSpline

    points = np.array(nodes, np.float64).T  # [n, 2]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, length[-1], math.ceil(length[-1] / _SPACING) + 2)
    x, y = CubicSpline(length, points, bc_type="natural")(at).T
    return x, y


def region(pieces: Iterable[Nodes], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """[H, W] whether a pixel's centre lies in a curve that a straight line closes; in any of them if there are more."""
    from skimage import draw

    inside = np.zeros(shape, np.bool_)
    for nodes in pieces:
        x, y = spline(nodes)
        rows, columns = draw.polygon(y, x, shape)
        inside[rows, columns] = True
    return inside
