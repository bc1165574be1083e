"""Subjects of the brain phantom: T1-weighted MRI of a skull-stripped brain, made of ellipsoids and tubes.

Geometry. Coordinates (x, y, z) in mm, near those of the MNI templates: x from left to right, y from back to front, z
from below upwards, the origin close to the anterior commissure. The volume is 160 x 192 x 160 mm around `CENTRE`,
whatever the number of voxels; array axes are x, y and z, so coronal slices lie along axis 1. One half is described;
the other is its mirror image, and a smooth random displacement then makes the two differ.

Proportions. Positions and sizes are rounded values in the manner of atlases and of FreeSurfer's volumes of healthy
people, put together here, not fitted to anyone's data; `VOLUMES` says what comes out. As a check, Caviness et al. (The
human brain age 7-11 years, Cerebral Cortex 1996) measured a neocortex of 700 ml in both halves, white matter as a third
of the cerebrum, and central nuclei of 21 ml: here they are 606 ml, 43 % and 20 ml (caudate, putamen, pallidum).

The cortex is a band along the outer surface and along sulci, which are sheets where a random field is zero. So folds
have a realistic width and depth, but no subject has the same ones, and they carry no names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from labeldrop_bench.data._shapes import Array, ellipsoid, smooth_field, tube, turned, voxel_centres

PAIRED = (
    "white matter", "grey matter", "lateral ventricle", "cerebellum", "thalamus", "caudate", "putamen", "pallidum",
    "accumbens", "hippocampus", "amygdala", "ventral DC",
)  # fmt: skip
SINGLE = ("3rd ventricle", "4th ventricle", "brainstem", "corpus callosum")
NAMES = (*(f"{name} {side}" for name in PAIRED for side in "LR"), *SINGLE)
"""Of label values 1, 2, ...: left halves are odd, right halves even."""

EXTENT, CENTRE = (160.0, 192.0, 160.0), (0.0, -17.0, 8.0)

# Parts of the right half, or of the whole where x is 0. An ellipsoid: centre and radii; a tube: places and radii there.
_ELLIPSOIDS: dict[str, tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]] = {
    "cerebellum": (((25, -64, -36), (29, 27, 20)),),
    "ventral DC": (((10, -15, -9), (9, 10, 7)),),
    "thalamus": (((12, -18, 8), (9.5, 15, 10.5)),),
    "caudate": (((13, 14, 5), (6, 9, 9)),),
    "putamen": (((26, 3, 1), (6.5, 16, 11)),),
    "pallidum": (((19, -3, -1), (5, 10, 8)),),
    "accumbens": (((10, 11, -8), (5.2, 6.2, 5.2)),),
    "amygdala": (((23, -4, -20), (7, 7, 7)),),
    "3rd ventricle": (((0, -10, 0), (3, 12, 9)),),
    "4th ventricle": (((0, -46, -32), (7, 6, 9)),),
}
_TUBES: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "lateral ventricle": (
        ((6, 27, 7), (7, 8, 16), (10, -12, 22), (18, -32, 18), (26, -41, 5), (33, -26, -12)),
        (4.5, 4.5, 4.5, 5, 4.5, 3),
    ),
    "caudate": (((13, 12, 9), (15, 0, 17), (18, -16, 21)), (6, 4.5, 3)),
    "hippocampus": (((24, -15, -19), (27, -25, -13), (24, -36, -3)), (7.5, 6, 4.5)),
    "brainstem": (((0, -27, -10), (0, -27, -28), (0, -42, -58)), (12, 12.5, 7)),
    "corpus callosum": (((0, 30, 3), (0, 27, 13), (0, 5, 27), (0, -20, 25), (0, -38, 13)), (4, 4, 4, 4, 5)),
}
# What comes later covers what came before. Cortex and white matter are what is left of the cerebrum.
_ORDER = (
    "brainstem", "ventral DC", "lateral ventricle", "corpus callosum", "hippocampus", "amygdala", "thalamus", "caudate",
    "putamen", "pallidum", "accumbens", "3rd ventricle", "4th ventricle",
)  # fmt: skip
CALLOSUM_HALF_WIDTH = 6.0  # mm; beyond it the fibres are white matter

VOLUMES = {
    "white matter": (160, 243, 360), "grey matter": (210, 303, 420), "lateral ventricle": (1.8, 5.9, 18),
    "cerebellum": (34, 64, 115), "thalamus": (3.2, 6.2, 11), "caudate": (1.9, 3.8, 6.8), "putamen": (1.9, 4.3, 8.5),
    "pallidum": (0.7, 1.7, 3.2), "accumbens": (0.25, 0.71, 1.4), "hippocampus": (2.1, 4.0, 7.2),
    "amygdala": (0.6, 1.5, 2.7), "ventral DC": (1.3, 2.6, 5.3), "3rd ventricle": (0.2, 1.4, 4.2),
    "4th ventricle": (0.4, 1.8, 5.2), "brainstem": (13, 22, 34), "corpus callosum": (2.8, 4.9, 8.0),
}  # fmt: skip
"""Least, mean and greatest volume in ml of one side's structure; measured over 400 subjects, with a margin."""

# Standard deviations between subjects; all normal.
SIZE, TURN, SHIFT = (
    0.025,
    2.0,
    2.0,
)  # of the head along each axis (relative), in each plane (degrees), along each axis (mm)
WARP, WARP_KNOTS = 2.0, (4, 5, 4)  # mm, of a displacement that varies over 40 mm
GROWTH, GROWTH_SIDE, MOVE = 0.03, 0.02, 1.0  # of a structure's radii, of one side's; mm, of its place
VENTRICLES = 0.12  # of the ventricles' radii, instead of GROWTH
FOLD_KNOTS = (14, 17, 14)  # sulci are where a field is zero that varies over 11 mm
FOLD = 8.0  # mm to the sulcus for each unit of the field
SULCUS = 16.0  # mm, depth of a sulcus
FLUID_WIDTH, CORTEX = 1.2, 6.0  # mm from the surface to the cortex, and to white matter

# T1-weighted signal, white matter = 1; standard deviation between subjects TISSUE_SD.
SIGNAL = {
    "white matter": 1.0, "grey matter": 0.66, "lateral ventricle": 0.22, "cerebellum": 0.74, "thalamus": 0.84,
    "caudate": 0.72, "putamen": 0.77, "pallidum": 0.91, "accumbens": 0.71, "hippocampus": 0.69, "amygdala": 0.68,
    "ventral DC": 0.91, "3rd ventricle": 0.22, "4th ventricle": 0.22, "brainstem": 0.93, "corpus callosum": 1.04,
}  # fmt: skip
FLUID, TISSUE_SD, TEXTURE = 0.22, 0.015, 0.02
BIAS, BIAS_KNOTS = 0.12, (2, 2, 2)  # standard deviation of the logarithm
NOISE = (0.03, 0.06)  # standard deviation of each channel, uniform between subjects
BLUR = 0.5  # voxels, standard deviation: partial volumes


@dataclass(frozen=True)
class Subject:
    """What an MRI shows.

    Attributes:
        image: [X, Y, Z] float32, signal where white matter is about 1; 0 outside of the brain.
        labels: [X, Y, Z] uint8, 0 background and cerebrospinal fluid around the brain, then `NAMES`.
    """

    image: Array
    labels: NDArray[np.uint8]


def draw_subject(size: tuple[int, int, int], seeds: np.random.SeedSequence) -> Subject:
    """A random subject on a grid of `size` (x, y, z); anatomy and scan have streams of their own."""
    for_anatomy, for_scan = (np.random.default_rng(stream) for stream in seeds.spawn(2))
    points = _in_head(size, for_anatomy)
    right = points[0] > 0
    half = np.concatenate((np.abs(points[:1]), points[1:]))
    folds = smooth_field(size, FOLD_KNOTS, for_anatomy)

    radius = {name: _radius(name, half, right, for_anatomy) for name in (*_ORDER, "cerebellum")}
    tissue, brain = _cerebrum(half, folds, radius["cerebellum"])
    tissue[radius["cerebellum"] < 1] = 1 + PAIRED.index("cerebellum")
    radius["corpus callosum"][half[0] > CALLOSUM_HALF_WIDTH] = np.inf
    for name in _ORDER:
        tissue[radius[name] < 1] = 1 + (*PAIRED, *SINGLE).index(name)
    return Subject(_scan(tissue, brain, folds, for_scan), _labels(tissue, right))


def _in_head(size: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Points in the coordinates of the head, in which all are alike; there they are displaced smoothly."""
    points = voxel_centres(size, EXTENT, CENTRE)
    points += rng.normal(0, SHIFT, (3, 1, 1, 1)).astype(np.float32)
    for plane, degrees in zip(((0, 1), (1, 2), (0, 2)), rng.normal(0, TURN, 3), strict=True):
        points = turned(points, degrees, plane)
    points *= (1 + rng.normal(0, SIZE, (3, 1, 1, 1))).astype(np.float32)
    return points + np.float32(WARP) * np.stack([smooth_field(size, WARP_KNOTS, rng) for _ in range(3)])


def _radius(name: str, half: Array, right: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Normalised radius of a structure, on both sides, at a random place and of random size."""
    spread = VENTRICLES if "ventricle" in name else GROWTH
    growth = np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, GROWTH_SIDE, 2))
    move = rng.normal(0, MOVE, 3) * ((name in PAIRED), 1, 1)  # what lies in the middle stays there
    moved = half - move.reshape(3, 1, 1, 1).astype(np.float32)
    parts = [ellipsoid(moved, centre, radii) for centre, radii in _ELLIPSOIDS.get(name, ())]
    if name in _TUBES:
        parts.append(tube(moved, *_TUBES[name]))
    sides: Array = np.where(right, growth[1], growth[0]).astype(np.float32)
    radius: Array = np.minimum.reduce(parts) / sides
    return radius


def _cerebrum(half: Array, folds: Array, cerebellum: Array) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """White matter 1, grey matter 2, 0 elsewhere; and the brain's mask, with the fluid around it.

    The cortex follows the surface, into sulci too. Depth is the distance in mm, roughly, to the nearest surface: the
    outer one; the fissure between the hemispheres, except where fibres and nuclei join them; the lateral fissure; the
    tentorium above the cerebellum.
    """
    outer = np.minimum(
        ellipsoid(half, (0, -17, 16), (66, 84, 56)), ellipsoid(half, (36, -6, -20), (29, 46, 25))
    )  # all but the temporal lobe, and it
    core = 34 * (1 - ellipsoid(half, (0, -8, 3), (60, 46, 27)))
    between = np.hypot(half[0], np.clip(core, 0, None)) * 1.5  # a thinner band than elsewhere
    lateral = 5 * tube(half, ((40, 20, -4), (46, -5, 0), (54, -30, 12)), (5, 5, 5)) - 3
    tentorium = 24 * (cerebellum - 1)
    depth = np.minimum.reduce([62 * (1 - outer), between, lateral, tentorium])
    sulcus = np.hypot(FOLD * folds, np.clip(depth - SULCUS, 0, None))
    surface = np.minimum(depth, sulcus)
    tissue = np.select([surface > CORTEX, surface > FLUID_WIDTH], [1, 2], 0).astype(np.uint8)
    brain = (outer < 1) | (cerebellum < 1.05)
    return tissue, brain


def _labels(tissue: NDArray[np.uint8], right: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Tissues of a whole brain as the values of `NAMES`."""
    pairs = len(PAIRED)
    labels = np.where(tissue > pairs, tissue + pairs, 2 * tissue - 1 + right)
    result: NDArray[np.uint8] = np.where(tissue == 0, 0, labels).astype(np.uint8)
    return result


def _scan(tissue: NDArray[np.uint8], brain: NDArray[np.bool_], folds: Array, rng: np.random.Generator) -> Array:
    """Signal with partial volumes, texture, bias field and Rician noise, inside the brain's mask."""
    levels = np.array([FLUID, *(SIGNAL[name] for name in (*PAIRED, *SINGLE))])
    levels[1:] += rng.normal(0, TISSUE_SD, len(levels) - 1)
    mask = brain | (tissue > 0)
    signal = levels[tissue].astype(np.float32) * mask
    # Folia: the cerebellum shows grey and white matter in stripes.
    signal += np.where(tissue == 1 + PAIRED.index("cerebellum"), 0.08 * folds, TEXTURE * folds) * mask
    signal = ndimage.gaussian_filter(signal, BLUR)
    signal *= np.exp(np.float32(BIAS) * smooth_field(tissue.shape, BIAS_KNOTS, rng))
    sd = rng.uniform(*NOISE)
    real, imaginary = sd * rng.standard_normal((2, *tissue.shape), dtype=np.float32)
    image: Array = (np.hypot(signal + real, imaginary) * mask).astype(np.float32)
    return image
