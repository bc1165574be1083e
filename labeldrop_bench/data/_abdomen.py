"""Patients of the abdomen phantom: a CT of the upper abdomen, made of ellipsoids and tubes that are bent at random.

Geometry. Coordinates are (z, y, x): z from the head to the feet, y from front to back, x to the right of the picture,
which is the patient's left. The unit is the field of view, taken as 400 mm. Volumes are 200 mm high around z = 0, the
level of the first lumbar vertebra, where liver, stomach and pancreas are seen together; a picture is the slice there.

Proportions. Mean volumes of healthy adults by CT, women and men (Geraghty et al., Normal organ volume assessment from
abdominal CT, Abdominal Imaging 2004): liver 1411 and 1710 ml, spleen 180 and 238 ml, a kidney 157 and 193 ml, pancreas
64 and 87 ml. The stomach, for which they give none, is assumed to hold 250 to 300 ml. Over the assumed heights of 15 cm
(liver), 10 cm (stomach) and 8 cm (pancreas), the mean cross-sections are some 104, 27 and 9.5 cm^2. That is 15, 4 and
1.4 % of a body of 350 x 250 mm, and the phantom's slices have the same means: 14, 3.8 and 1.4 %. `SHARES` are the
ranges they keep to. Volumes were not fitted: ellipsoids that are right in their largest slice are too small above and
below it, so liver and pancreas come to some 1.2 l and 40 ml, 9 and 0.3 % of the body, and the stomach to 270 ml.

What makes it hard. The spleen has the liver's grey values; bowel has the walls, fluid, air and contrast agent of the
stomach and, where it is collapsed, the grey value of the pancreas; blood vessels pass by the pancreas. All are
background. So position and shape have to be learnt, not grey values alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from labeldrop_bench.data._shapes import Array, ellipsoid, smooth_field, tube, turned, voxel_centres

LIVER, PANCREAS, STOMACH = 1, 2, 3
SHARES = {LIVER: (0.10, 0.20), PANCREAS: (0.004, 0.026), STOMACH: (0.016, 0.068)}
"""Of the body's cross-section, in the slice at z = 0; measured over 800 patients, with a margin of a tenth."""
HEIGHT = 0.5  # of a volume

# Every parameter is uniform in its range, independently of the others.
RANGES = {
    "shift_y": (-0.02, 0.02),  # of the body in the field of view
    "shift_x": (-0.02, 0.02),
    "turn": (-5.0, 5.0),  # degrees, in the plane of the picture
    "width": (0.93, 1.07),  # of the body and all in it, relative to 0.86 x 0.61
    "depth": (0.92, 1.08),
    "fat": (0.03, 0.11),  # under the skin, as a part of the way from skin to middle
    "liver_size": (0.92, 1.07),
    "left_lobe": (-0.04, 0.05),  # how far the left lobe reaches beyond its mean
    "stomach_size": (0.87, 1.13),
    "stomach_x": (-0.025, 0.025),
    "stomach_y": (-0.015, 0.015),
    "pancreas_size": (0.85, 1.15),
    "pancreas_y": (-0.018, 0.012),
    "pancreas_bend": (-0.02, 0.02),  # of its middle towards the front (negative) or back
    "spleen_size": (0.8, 1.15),
    "kidney_size": (0.88, 1.1),
    "right_kidney_z": (-0.03, 0.05),
    "left_kidney_z": (-0.05, 0.03),
}
WARP, WARP_KNOTS = 0.012, (3, 4, 4)  # standard deviation of the smooth displacement, in each direction

# Grey values in Hounsfield units, portal venous phase; (mean, standard deviation) between patients where they vary.
AIR, FAT, MUSCLE, BONE, MARROW = -1000.0, -100.0, 60.0, 450.0, 190.0
VARYING = {
    "liver": (105.0, 12.0),
    "spleen": (112.0, 12.0),
    "pancreas": (88.0, 12.0),
    "kidney": (165.0, 20.0),
    "blood": (150.0, 20.0),
    "wall": (85.0, 12.0),  # of stomach and bowel
}
FLUID, CONTRAST_AGENT = (0.0, 60.0), (150.0, 300.0)  # in stomach and bowel
WITH_AGENT, WITH_AIR = (
    0.25,
    0.5,
)  # part of the patients whose gut holds contrast agent; of the stomachs and loops with air
LOOPS = 24  # of bowel, some of them hidden behind organs or above and below the slice
TEXTURE = 6.0  # HU, standard deviation within a tissue
NOISE = (10.0, 22.0)  # HU, standard deviation; uniform between patients
WINDOW = (-160.0, 240.0)  # HU, shown from black to white


@dataclass(frozen=True)
class Patient:
    """What a CT shows.

    Attributes:
        image: [D, H, W] float32 in [0, 1], the window from black to white.
        labels: [D, H, W] uint8, 0 background, 1 liver, 2 pancreas, 3 stomach.
        body: [D, H, W] bool, inside the skin.
    """

    image: Array
    labels: NDArray[np.uint8]
    body: NDArray[np.bool_]


class _Canvas:
    """Grey values and labels that are painted from the back to the front."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.grey = np.full(shape, AIR, np.float32)
        self.labels = np.zeros(shape, np.uint8)

    def paint(self, region: NDArray[np.bool_], grey: float | Array, label: int = 0) -> None:
        """Cover a region, with one grey value or with those of an image."""
        np.copyto(self.grey, np.float32(grey), where=region)
        self.labels[region] = label


def draw_patient(size: tuple[int, int, int], seeds: np.random.SeedSequence) -> Patient:
    """A random patient on a grid of `size` (slices, height, width); anatomy, bowel and noise have their own streams."""
    for_anatomy, for_bowel, for_noise = (np.random.default_rng(stream) for stream in seeds.spawn(3))
    p = {name: for_anatomy.uniform(low, high) for name, (low, high) in RANGES.items()}
    grey = {name: for_anatomy.normal(mean, sd) for name, (mean, sd) in VARYING.items()}
    agent = bool(for_anatomy.random() < WITH_AGENT)
    points = _in_body(p, size, for_anatomy)
    fine = smooth_field(size, (10, 28, 28), for_anatomy)

    canvas = _Canvas(size)
    body, cavity = _trunk(canvas, points, p["fat"])
    _bowel(canvas, points, cavity, grey["wall"], agent, for_bowel)
    _solid_organs(canvas, points, cavity, p, grey)
    _liver(canvas, points, cavity, p, grey, [smooth_field(size, (8, 16, 16), for_anatomy) for _ in range(2)])
    _stomach(canvas, points, cavity, p, _filling(grey["wall"], agent, for_anatomy))
    _pancreas(canvas, points, cavity, p, grey["pancreas"], fine)
    _vessels_and_spine(canvas, points, grey["blood"])
    return Patient(_scan(canvas.grey + TEXTURE * fine * body, for_noise), canvas.labels, body)


def _in_body(p: dict[str, float], size: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Points in the body's own coordinates, in which every body is the same one; there they are displaced smoothly."""
    _, height, width = size
    unit = min(height, width)
    extent = (HEIGHT, height / unit, width / unit)
    points = voxel_centres(size, extent, (0.0, -p["shift_y"], -p["shift_x"]))
    points = turned(points, p["turn"], (1, 2))
    points /= np.array([1, p["depth"], p["width"]], np.float32).reshape(3, 1, 1, 1)
    return points + np.float32(WARP) * np.stack([smooth_field(size, WARP_KNOTS, rng) for _ in range(3)])


def _trunk(canvas: _Canvas, points: Array, fat: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Skin, fat and muscle; returns the body and the cavity that holds the organs."""
    # |x / a|^n + |y / b|^n = 1 with n = 2.4: fuller than an ellipse, as a trunk is
    _, y, x = points
    radius = (np.abs(x / 0.43) ** 2.4 + np.abs(y / 0.305) ** 2.4) ** (1 / 2.4)
    body, cavity = radius < 1, radius < 0.93 - fat
    canvas.paint(body, MUSCLE)
    canvas.paint(radius < 0.985, FAT)
    canvas.paint(radius < 1 - fat, MUSCLE)
    canvas.paint(cavity, FAT)
    for side in (-1, 1):  # psoas, and the muscles along the spine
        canvas.paint(ellipsoid(points, (0, 0.14, 0.085 * side), (9, 0.045, 0.033)) < 1, MUSCLE)
        canvas.paint((ellipsoid(points, (0, 0.225, 0.075 * side), (9, 0.045, 0.07)) < 1) & (radius < 0.96), MUSCLE)
    return body, cavity


@dataclass(frozen=True)
class _Filling:
    """What a stomach or a loop of bowel holds: grey values, and the height y above which there is air."""

    wall: float
    content: float
    air_above: float


def _filling(wall: float, agent: bool, rng: np.random.Generator) -> _Filling:
    content = rng.uniform(*(CONTRAST_AGENT if agent else FLUID))
    return _Filling(wall, content, rng.uniform(-0.6, 0.2) if rng.random() < WITH_AIR else -np.inf)


def _paint_gut(canvas: _Canvas, radius: Array, height: Array, inside: NDArray[np.bool_], filling: _Filling) -> None:
    """Wall, content and air of a hollow organ; `height` is y from its middle, in its own radii."""
    canvas.paint(inside & (radius < 1), filling.wall)
    lumen = inside & (radius < 0.72)
    canvas.paint(lumen, filling.content)
    canvas.paint(lumen & (height < filling.air_above), AIR)


def _bowel(
    canvas: _Canvas, points: Array, cavity: NDArray[np.bool_], wall: float, agent: bool, rng: np.random.Generator
) -> None:
    """Loops at random places in front and on the left; one in three is collapsed, all wall."""
    for _ in range(LOOPS):
        centre = rng.uniform((-0.25, -0.19, -0.12), (0.25, 0.09, 0.31))
        radii = rng.uniform((0.05, 0.028, 0.03), (0.12, 0.05, 0.065))
        filling, collapsed = _filling(wall, agent, rng), rng.random() < 1 / 3
        radius = ellipsoid(points, centre, radii, rng.uniform(-60, 60))
        if collapsed:
            canvas.paint(cavity & (radius < 0.8), wall)
        else:
            _paint_gut(canvas, radius, (points[1] - centre[1]) / radii[1], cavity, filling)


def _solid_organs(
    canvas: _Canvas, points: Array, cavity: NDArray[np.bool_], p: dict[str, float], grey: dict[str, float]
) -> None:
    """Spleen and kidneys, background that looks like an organ."""
    spleen = ellipsoid(points, (-0.05, 0.075, 0.30), p["spleen_size"] * np.array((0.13, 0.105, 0.055)), 20)
    canvas.paint(cavity & (spleen < 1), grey["spleen"])
    for side, z in ((-1, p["right_kidney_z"]), (1, p["left_kidney_z"])):
        centre = np.array((z, 0.135, 0.155 * side))
        kidney = ellipsoid(points, centre, p["kidney_size"] * np.array((0.13, 0.06, 0.052)), 25 * side)
        # The sinus opens towards the middle.
        sinus = ellipsoid(points, centre - (0, 0.012, 0.028 * side), (0.06, 0.022, 0.028))
        canvas.paint(kidney < 1, grey["kidney"])
        canvas.paint((kidney < 1) & (sinus < 1), FAT)


def _liver(
    canvas: _Canvas,
    points: Array,
    cavity: NDArray[np.bool_],
    p: dict[str, float],
    grey: dict[str, float],
    fields: list[Array],
) -> None:
    """A large right lobe, a flat left lobe in front, and blood vessels: lines along which two fields are zero."""
    size = p["liver_size"]
    right = ellipsoid(points, (-0.04, 0.0, -0.25), size * np.array((0.24, 0.15, 0.105)), -12)
    left = ellipsoid(points, (-0.05, -0.125, -0.12 + p["left_lobe"]), size * np.array((0.18, 0.052, 0.135)), 10)
    liver = cavity & (np.minimum(right, left) < 1)
    vessels = fields[0] ** 2 + fields[1] ** 2 < 0.08
    canvas.paint(liver, np.where(vessels, 0.5 * (grey["blood"] + grey["liver"]), grey["liver"]), LIVER)


def _stomach(canvas: _Canvas, points: Array, cavity: NDArray[np.bool_], p: dict[str, float], filling: _Filling) -> None:
    """From the fundus under the left diaphragm forwards and across to the pylorus: a J."""
    line = np.array(((-0.16, -0.02, 0.23), (-0.04, -0.085, 0.21), (0.02, -0.135, 0.11), (0.03, -0.105, 0.03)))
    line += np.array((0, p["stomach_y"], p["stomach_x"]))
    radii = p["stomach_size"] * np.array((0.075, 0.058, 0.042, 0.026))
    radius = tube(points, line, radii)
    inside = cavity & (radius < 1)
    canvas.labels[inside] = STOMACH
    grey = _Canvas(radius.shape)
    _paint_gut(grey, radius, (points[1] + 0.11) / 0.06, inside, filling)
    canvas.paint(inside, grey.grey, STOMACH)


def _pancreas(
    canvas: _Canvas, points: Array, cavity: NDArray[np.bool_], p: dict[str, float], grey: float, fine: Array
) -> None:
    """From the head, low beside the vena cava, to the tail, high at the spleen; thrice as high as deep."""
    middle = p["pancreas_bend"]
    line = np.array(
        ((0.05, 0.03, -0.085), (0.01, -0.005, -0.035), (-0.015, -0.015 + middle, 0.05), (-0.04, 0.035, 0.17))
    )
    line += np.array((0, p["pancreas_y"], 0))
    radius = tube(
        _flat(points), _flat(line.T.astype(np.float32)).T, p["pancreas_size"] * np.array((0.023, 0.012, 0.0145, 0.0125))
    )
    # Lobules: the surface is uneven, and fat lies between them.
    inside = cavity & (radius + 0.12 * fine < 1)
    canvas.paint(inside, np.where(fine > 1.2, grey - 50, grey), PANCREAS)


def _flat(points: Array) -> Array:
    """A third as high."""
    return points * np.array((1 / 3, 1, 1), np.float32).reshape(3, *[1] * (points.ndim - 1))


def _vessels_and_spine(canvas: _Canvas, points: Array, blood: float) -> None:
    canvas.paint(ellipsoid(points, (0, 0.045, 0.022), (9, 0.024, 0.024)) < 1, blood)  # aorta
    canvas.paint(ellipsoid(points, (0, 0.05, -0.045), (9, 0.022, 0.029)) < 1, blood)  # vena cava
    vertebra = ellipsoid(points, (0, 0.115, 0), (9, 0.046, 0.058))
    process = np.minimum(
        ellipsoid(points, (0, 0.225, 0), (9, 0.045, 0.012)), ellipsoid(points, (0, 0.185, 0), (9, 0.016, 0.085))
    )
    arch = ellipsoid(points, (0, 0.175, 0), (9, 0.036, 0.042))
    for region, grey in ((process, BONE), (arch, BONE), (vertebra, BONE)):
        canvas.paint(region < 1, grey)
    canvas.paint(vertebra < 0.87, MARROW)
    canvas.paint(ellipsoid(points, (0, 0.178, 0), (9, 0.019, 0.024)) < 1, 40.0)  # spinal canal


def _scan(grey: Array, rng: np.random.Generator) -> Array:
    """Blur of half a voxel, noise that is correlated over about a voxel, and the window."""
    sd = rng.uniform(*NOISE)
    noise = ndimage.gaussian_filter(rng.standard_normal(grey.shape, dtype=np.float32), 0.6)
    blurred = ndimage.gaussian_filter(np.clip(grey, AIR, 500), 0.5)
    low, high = WINDOW
    shown: Array = np.clip((blurred + sd * noise / noise.std() - low) / (high - low), 0, 1).astype(np.float32)
    return shown
