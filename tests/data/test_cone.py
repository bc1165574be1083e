import numpy as np
import pytest

from labeldrop_bench.data._anatomy import draw_views, grid
from labeldrop_bench.data._ultrasound import STYLE, draw_style, in_sector, scan
from labeldrop_bench.data.cone import crop_cone, ultrasound_cone


def phantoms(n, size):
    """Pictures of both domains at gap 1 with their sectors: lists of uint8 and bool [size, size]."""
    images, sectors = [], []
    x, y = grid((size, size))
    low, high = STYLE["half_angle"]
    for shift in (-1.0, 1.0):
        rng = np.random.default_rng(0)
        views, style = draw_views(n, (size, size), rng), draw_style(n, shift, rng)
        images += list((scan(views.echo, style, rng) * 255).astype(np.uint8))
        angles = low + (high - low) * style[:, list(STYLE).index("half_angle")]
        sectors += [in_sector(x, y, angle) for angle in angles]
    return images, sectors


def with_clutter(image, sector, rng):
    """Text in the upper corners, a grey scale at the right edge and an ECG below; the sector covers them."""
    size = len(image)
    clutter = np.zeros_like(image)
    for x in (0.02, 0.80):
        for y in (0.03, 0.08, 0.13, 0.18):
            strokes = rng.random((3, int(0.16 * size))) < 0.6
            strokes[:, ::4] = False
            row, column = int(y * size), int(x * size)
            clutter[row : row + 3, column : column + strokes.shape[1]] = 230 * strokes
    top, bottom = int(0.3 * size), int(0.7 * size)
    clutter[top:bottom, int(0.96 * size) : int(0.98 * size)] = np.linspace(255, 0, bottom - top)[:, None]
    heights = np.full(size, int(0.96 * size))
    heights[np.arange(size) % 30 < 2] -= int(0.05 * size)
    for column, (a, b) in enumerate(zip(heights, np.roll(heights, 1), strict=True)):
        clutter[min(a, b) : max(a, b) + 1, column] = 200
    clutter[sector] = 0
    return np.maximum(image, clutter), clutter > 0


def measure(n, size=128):
    """Of each phantom: overlap of found and true sector, and share of the clutter that is removed."""
    rng = np.random.default_rng(1)
    overlaps, removed = [], []
    for image, sector in zip(*phantoms(n, size), strict=True):
        picture, clutter = with_clutter(image, sector, rng)
        found = ultrasound_cone(picture)
        overlaps.append((found & sector).sum() / (found | sector).sum())
        removed.append((~found)[clutter].mean())
    return np.array(overlaps), np.array(removed)


def test_overlap_with_the_sector_of_the_phantom():
    """The figures of the docstring, measured on 240 phantoms; 40 of them here."""
    overlaps, removed = measure(20)
    assert np.median(overlaps) > 0.965
    assert (overlaps > 0.9).mean() > 0.9
    assert np.median(removed) > 0.9


def test_only_what_lies_outside_becomes_black():
    images, sectors = phantoms(1, 128)
    picture, _ = with_clutter(images[0], sectors[0], np.random.default_rng(0))
    cropped = crop_cone(picture)
    cone = ultrasound_cone(picture)
    assert cropped.dtype == picture.dtype
    assert (cropped[cone] == picture[cone]).all()
    assert not cropped[~cone].any()
    assert 0.5 < cone.mean() < 0.9


def test_a_dark_cavity_belongs_to_the_sector_and_a_smaller_part_does_not():
    image = np.zeros((64, 64), np.uint8)
    image[10:50, 10:50] = 100
    image[20:40, 20:40] = 0
    image[54:62, 54:62] = 255
    cone = ultrasound_cone(image)
    assert cone[30, 30]
    assert not cone[58, 58]


@pytest.mark.parametrize(
    ("image", "message"), [(np.zeros((32, 32)), "the picture is black"), (np.ones((1, 8, 8)), r"must be \[H, W\]")]
)
def test_errors(image, message):
    with pytest.raises(ValueError, match=message):
        ultrasound_cone(image)
