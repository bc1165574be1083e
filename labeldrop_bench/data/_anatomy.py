"""Hearts of the echo phantom: parameters, label maps and echogenicity of apical views.

Geometry. Lengths are fractions of the image height (of the shorter side if the image is not square), angles are
degrees. x runs to the right from the middle of the image, y downwards from its upper edge. Each left ventricle has its
own coordinates: s along its long axis, from the apex (0) to the mitral plane (lv_length) and on into the atrium; l
across it, measured from the bent long axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LV, LVM, LA = 1, 2, 3

# Every parameter is uniform in its range, independently of the others and of the domain.
RANGES = {
    "apex_x": (-0.03, 0.03),  # position of the endocardial apex
    "apex_y": (0.17, 0.23),
    "tilt": (-8.0, 8.0),  # degrees from the vertical to the long axis
    "lv_length": (0.34, 0.43),  # apex to mitral plane
    "lv_half_width": (0.09, 0.135),  # where the cavity is widest
    "lv_widest": (0.55, 0.80),  # where that is, as a fraction of the length
    "lv_taper": (0.05, 0.30),  # relative loss of width from there to the mitral plane
    "bend": (-0.03, 0.03),  # sideways offset of the middle of the long axis
    "wall": (0.04, 0.06),  # thickness of the myocardium
    "la_half_length": (0.075, 0.125),
    "la_half_width": (0.08, 0.13),
    "la_centre": (0.50, 0.80),  # from the mitral plane to the centre, in half-lengths of the atrium
    "la_offset": (-0.03, 0.03),  # sideways, from the long axis
    "four_chamber": (0.0, 1.0),  # above 0.5 the view shows the right heart, which is background
    "rv_half_width": (0.04, 0.07),
    "opening": (0.0, 0.8),  # of the mitral valve: the part of the mitral plane that shows no leaflet
}

# Mean echo in dB; 0 dB is the brightest reflector. What is not named is TISSUE.
BLOOD, MYOCARDIUM, TISSUE, ATRIAL_WALL, PERICARDIUM, VALVE = -40.0, -15.0, -24.0, -17.0, -6.0, -8.0
PERICARDIUM_WIDTH, ATRIAL_WALL_WIDTH, VALVE_HALF_WIDTH = 0.022, 0.022, 0.008


@dataclass(frozen=True)
class Views:
    """What n apical views show.

    Attributes:
        labels: [n, H, W] uint8, 0 background, 1 LV, 2 LVM, 3 LA.
        echo: [n, H, W] float32, mean echo in dB.
    """

    labels: NDArray[np.uint8]
    echo: Array


def grid(size: tuple[int, int]) -> tuple[Array, Array]:
    """Pixel centres x [1, W] and y [H, 1] of an image of `size` (height, width)."""
    height, width = size
    unit = min(size)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / unit
    y = (np.arange(height, dtype=np.float32) + 0.5) / unit
    return x[None].astype(np.float32), y[:, None].astype(np.float32)


def draw_views(n: int, size: tuple[int, int], rng: np.random.Generator) -> Views:
    """Random apical views, n of them, on a grid of `size` (height, width)."""
    low, high = np.array(list(RANGES.values())).T
    values = rng.uniform(low, high, size=(n, len(RANGES)))
    columns = values.T.astype(np.float32)[..., None, None]  # [parameters, n, 1, 1]
    return _render(dict(zip(RANGES, columns, strict=True)), size)


def _render(p: dict[str, Array], size: tuple[int, int]) -> Views:
    s, across = _own_coordinates(p, size)
    beyond = s > p["lv_length"]  # past the mitral plane
    lv = _inside_ventricle(p, s, across, np.float32(0)) & ~beyond
    epicardium = _inside_ventricle(p, s, across, p["wall"]) & ~beyond
    pericardium = _inside_ventricle(p, s, across, p["wall"] + PERICARDIUM_WIDTH) & ~beyond
    la = _inside_atrium(p, s, across, 0.0) & beyond
    atrial_wall = _inside_atrium(p, s, across, ATRIAL_WALL_WIDTH) & beyond

    labels = np.zeros(lv.shape, np.uint8)
    echo = np.full(lv.shape, TISSUE, np.float32)
    # From the back to the front: what comes later covers what came before.
    echo[_inside_right_heart(p, s, across)] = BLOOD
    for region, level in ((pericardium, PERICARDIUM), (atrial_wall, ATRIAL_WALL), (epicardium, MYOCARDIUM)):
        echo[region] = level
    for region, label in ((epicardium, LVM), (lv, LV), (la, LA)):
        labels[region] = label
    echo[lv | la] = BLOOD
    echo[_on_leaflets(p, s, across)] = VALVE
    return Views(labels, echo)


def _own_coordinates(p: dict[str, Array], size: tuple[int, int]) -> tuple[Array, Array]:
    """Coordinates s and l, [n, H, W]: moved to the apex, turned by the tilt, straightened along the bend."""
    x, y = grid(size)
    dx, dy = x - p["apex_x"], y - p["apex_y"]
    sin, cos = np.sin(np.deg2rad(p["tilt"])), np.cos(np.deg2rad(p["tilt"]))
    s = dx * sin + dy * cos
    t = np.clip(s / p["lv_length"], 0, 1)
    across = dx * cos - dy * sin - p["bend"] * 4 * t * (1 - t)
    return s.astype(np.float32), across.astype(np.float32)


def _inside_ventricle(p: dict[str, Array], s: Array, across: Array, margin: Array | np.float32) -> NDArray[np.bool_]:
    """Half an ellipse from the apex to the widest place, then tapering; `margin` wider on all sides but the base."""
    widest = p["lv_widest"] * p["lv_length"]
    u = (s - widest) / (widest + margin)  # -1 at the apex, 0 at the widest place
    v = (s - widest) / (p["lv_length"] - widest)  # 1 at the mitral plane
    round_end = np.sqrt(np.clip(1 - u**2, 0, None))
    profile = np.where(u < 0, round_end, 1 - p["lv_taper"] * np.clip(v, 0, 1) ** 2)
    inside: NDArray[np.bool_] = np.abs(across) < (p["lv_half_width"] + margin) * profile
    return inside


def _inside_atrium(p: dict[str, Array], s: Array, across: Array, margin: float) -> NDArray[np.bool_]:
    """An ellipse whose upper end the mitral plane cuts off."""
    centre = p["lv_length"] + p["la_centre"] * p["la_half_length"]
    along = (s - centre) / (p["la_half_length"] + margin)
    sideways = (across - p["la_offset"]) / (p["la_half_width"] + margin)
    inside: NDArray[np.bool_] = along**2 + sideways**2 < 1
    return inside


def _inside_right_heart(p: dict[str, Array], s: Array, across: Array) -> NDArray[np.bool_]:
    """In a four-chamber view, a flat ventricle beside the septum (on the left) and an atrium below it."""
    half_width = p["rv_half_width"]
    ventricle_centre = -(p["lv_half_width"] + p["wall"] + half_width)
    ventricle = ((s - 0.6 * p["lv_length"]) / (0.42 * p["lv_length"])) ** 2 + (
        (across - ventricle_centre) / half_width
    ) ** 2 < 1
    atrium_centre = p["la_offset"] - p["la_half_width"] - ATRIAL_WALL_WIDTH - 0.09
    atrium = ((s - p["lv_length"] - 0.1) / 0.09) ** 2 + ((across - atrium_centre) / 0.085) ** 2 < 1
    inside: NDArray[np.bool_] = (ventricle | atrium) & (p["four_chamber"] > 0.5)
    return inside


def _on_leaflets(p: dict[str, Array], s: Array, across: Array) -> NDArray[np.bool_]:
    """The mitral plane from the ventricle's walls to the edges of the opening."""
    from_middle = np.abs(across) / p["lv_half_width"]
    on_plane = np.abs(s - p["lv_length"]) < VALVE_HALF_WIDTH
    leaflets: NDArray[np.bool_] = on_plane & (from_middle > p["opening"]) & (from_middle < 1)
    return leaflets
