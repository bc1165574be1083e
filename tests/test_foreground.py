"""Boxes that are centred on labelled pixels: which ones, how many, and that nothing else hangs on the labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_patches import make, samples_of
from torch import Tensor

from labeldrop_bench import foreground
from labeldrop_bench.data.arrays import UNSCALED, Images, LabelMaps
from labeldrop_bench.data.base import IGNORED, Samples
from labeldrop_bench.foreground import Foreground, places_of_labels


def labelled(n: int, *size: int, pixels: dict[int, list[tuple[int, ...]]]) -> Samples:
    """Samples that all have the same label map, whose images are their own labels."""
    target = torch.zeros(n, *size, dtype=torch.uint8)
    for value, places in pixels.items():
        for place in places:
            target[(slice(None), *place)] = value
    return samples_of(target[:, None].float(), target)


SMALL = {1: [(10, 12)], 2: [(y, x) for y in range(4, 9) for x in range(20, 28)], 3: [(25, 8), (26, 8)]}


def middles(kind: Any, samples: Samples, times: int = 1) -> list[int]:
    """The label in the middle of each box."""
    index = torch.arange(len(samples)).repeat(times)
    target = kind.draw(samples, index)[1]
    middle = tuple(size // 2 for size in target.shape[1:])
    return target[(slice(None), *middle)].tolist()


def test_each_label_is_met_as_often_as_any_other() -> None:
    torch.manual_seed(0)
    found = Counter(middles(make("box", (6, 8), foreground=1), labelled(30, 32, 40, pixels=SMALL), times=20))
    assert set(found) == {1, 2, 3}
    assert min(found.values()) > 150  # of 600: 200 +- 12


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_images_and_labels_are_cut_at_the_same_pixel(size: tuple[int, ...]) -> None:
    images, target = make("box", size, foreground=1).draw(labelled(20, 32, 40, pixels=SMALL), torch.arange(20))
    assert torch.equal(images[:, 0], target.float())


def test_a_pixel_at_the_border_is_seen_within_the_image() -> None:
    samples = labelled(10, 20, 24, pixels={7: [(0, 23)]})
    _, target = make("box", (8, 6), foreground=1).draw(samples, torch.arange(10))
    assert (target[:, 0, 5] == 7).all()
    _, padded = make("box", (32, 6), foreground=1).draw(samples, torch.arange(10))
    assert (padded[:, 0, 5] == 7).all()
    assert (padded[:, 20:] == IGNORED).all()


def test_what_is_not_annotated_or_says_nothing_is_not_looked_for() -> None:
    samples = labelled(40, 32, 40, pixels={**SMALL, IGNORED: [(y, 35) for y in range(32)]})
    annotated = samples.annotated.clone()
    annotated[:20, 2] = False
    samples = replace(samples, annotated=annotated)
    kind = make("box", (6, 8), foreground=1)
    torch.manual_seed(0)
    seen = torch.tensor([middles(kind, samples) for _ in range(10)])
    assert set(seen[:, :20].flatten().tolist()) == {1, 3}
    assert set(seen[:, 20:].flatten().tolist()) == {1, 2, 3}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.5, 1.0])
def test_the_share_is_right_on_average_and_off_by_less_than_one(share: float, n: int) -> None:
    samples, kind = labelled(n, 64, 64, pixels={1: [(32, 32)]}), make("box", (4, 4), foreground=share)
    torch.manual_seed(0)
    numbers = torch.tensor([sum(middles(kind, samples)) for _ in range(300)], dtype=torch.float64)
    # one of 3721 boxes that lie anywhere has it in its middle by chance
    assert (numbers - n * share).abs().max() < 1 + 1e-9
    assert float(numbers.mean()) / n == pytest.approx(share, abs=0.09)  # three standard deviations with n = 1
    assert share not in (0, 1) or (numbers == n * share).all()


@pytest.mark.parametrize("kind", ["box", "slab"])
def test_the_random_numbers_do_not_hang_on_the_labels(kind: str) -> None:
    """Strategies that are trained on other labels go on with the same numbers, and other boxes stay where they are."""
    images = torch.arange(12.0**3).view(1, 1, 12, 12, 12).repeat(9, 1, 1, 1, 1)
    with_labels, without = torch.zeros(2, 9, 12, 12, 12, dtype=torch.uint8)
    with_labels[:, 5, 6, 4] = 1
    size = (4, 4, 4) if kind == "box" else (4, 4)
    found, states = [], []
    for target in (with_labels, without):
        torch.manual_seed(3)
        found.append(make(kind, size, foreground=1 / 3).draw(samples_of(images, target), torch.arange(9))[0])
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    same = [torch.equal(a, b) for a, b in zip(*found, strict=True)]
    assert same == [True] * 6 + [False] * 3


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_slabs_have_a_labelled_pixel_in_their_middle(plane: int) -> None:
    samples = labelled(30, 14, 16, 18, pixels={1: [(2, 8, 9)], 2: [(6, 9, 7), (7, 9, 7)], 3: [(11, 3, 14)]})
    kind = make("slab", (4, 6), depth=3, planes=(plane,), foreground=1)
    torch.manual_seed(0)
    slabs, target = kind.draw(samples, torch.arange(30))
    assert torch.equal(slabs[:, 0, 1], target.float())
    assert set(target[:, 2, 3].tolist()) == {1, 2, 3}


def test_new_label_maps_are_looked_through_anew() -> None:
    samples, found = labelled(1, 16, 16, pixels={1: [(3, 4)]}), Foreground()
    assert found.draw(samples, 0, 0.0, 0.0) == (3, 4)
    moved = torch.zeros(16, 16, dtype=torch.uint8)
    moved[9, 2] = 5
    changed = replace(samples, target=samples.target.replaced({0: moved}))
    assert found.draw(changed, 0, 0.99, 0.99) == (9, 2)
    assert found.draw(samples, 0, 0.0, 0.0) == (3, 4)


@pytest.mark.parametrize("block", [1, 50, 1 << 22])
@pytest.mark.parametrize("size", [(9, 11), (5, 6, 7)])
def test_places_are_pixels_of_their_label(size: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    target = torch.randint(0, 6, (3, *size), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    target[target == 4] = IGNORED
    target[:, 0, 0] = 9  # few
    maps = LabelMaps.of(target)
    expected = [places_of_labels(maps, i, maps.counts[i]) for i in range(3)]
    monkeypatch.setattr(foreground, "BLOCK", block)
    for i in range(3):
        places = places_of_labels(maps, i, maps.counts[i])
        assert set(places) == {1, 2, 3, 5, 9}
        for value, at in places.items():
            assert (target[i].flatten()[at] == value).all()
            assert len(at) == maps.counts[i, value]
            assert torch.equal(at, expected[i][value])  # however it is read
            assert len(at) < 20 or len(at.unique()) > len(at) / 2


def test_no_more_than_so_many_places_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "PLACES", 10)
    maps = LabelMaps.of(torch.ones(1, 30, 30, dtype=torch.uint8))
    (places,) = places_of_labels(maps, 0, maps.counts[0]).values()
    assert len(places) == 10
    assert places.max() - places.min() > 300  # all over the map


class Spied:
    """Arrays that note how much of them is read."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape, self.read_values = values.numpy(), tuple(values.shape[1:]), 0

    def read(self, place: int) -> Any:
        return _Row(self, self.values[place])


class _Row:
    def __init__(self, spied: Spied, row: NDArray[Any]) -> None:
        self.spied, self.row = spied, row

    def __getitem__(self, key: Any) -> NDArray[Any]:
        part: NDArray[Any] = self.row[key]
        self.spied.read_values += part.size
        return part


@pytest.mark.parametrize(
    ("kind", "size", "values"), [("box", (8, 8, 8), 8**3), ("slab", (8, 8), 3 * 8**2), ("whole", (), 24**3)]
)
def test_nothing_is_read_but_what_is_seen(kind: str, size: tuple[int, ...], values: int) -> None:
    images, target = Spied(torch.randn(4, 1, 24, 24, 24)), Spied(torch.ones(4, 24, 24, 24, dtype=torch.uint8))
    counts = torch.from_numpy(np.bincount([1], minlength=256)).int().repeat(4, 1) * 24**3
    plain = samples_of(torch.zeros(4, 1, 24, 24, 24), torch.zeros(4, 24, 24, 24, dtype=torch.uint8))
    samples = replace(
        plain,
        images=Images.stored(images, torch.tensor(UNSCALED).repeat(4, 1, 1), torch.zeros(4, 1, dtype=torch.bool)),
        target=LabelMaps.stored(target, counts),
    )
    patches = make(kind, size, depth=3, foreground=0.5)
    index = torch.tensor([0, 1, 2, 3])
    patches.draw(samples, index)  # looks for labelled pixels in two of them, once
    after_first = target.read_values
    assert images.read_values <= 4 * values
    for _ in range(20):
        patches.draw(samples, index)
    assert images.read_values <= 21 * 4 * values
    assert target.read_values - after_first <= 20 * 4 * values
