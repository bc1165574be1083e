"""Patches: what is cut is what is where, and views put every pixel back in its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from labeldrop_bench import patches
from labeldrop_bench.data.arrays import Images, LabelMaps
from labeldrop_bench.data.base import Samples
from labeldrop_bench.patches import IGNORED, make_patches
from labeldrop_bench.records import PatchConfig


def painted(n: int, *size: int) -> tuple[Tensor, Tensor]:
    """Images whose channels are the coordinates of each pixel and the number of the image, and a target made of them.

    Coordinates count from 1, so that padding can be told from a pixel.
    """
    grids = torch.meshgrid(*(torch.arange(1, s + 1) for s in size), indexing="ij")
    number = torch.arange(n).view(n, 1, *[1] * len(size)).expand(n, 1, *size)
    images = torch.cat([torch.stack(grids).expand(n, *[-1] * (len(size) + 1)), number], dim=1).float()
    return images, as_target(images)


def as_target(images: Tensor) -> Tensor:
    """A label that hangs on every channel; IGNORED where there is padding, whose coordinates are 0."""
    factors = torch.tensor([1, 7, 49, 3])[-images.shape[1] :].view(-1, *[1] * (images.ndim - 2))
    value = (images.long() * factors).sum(1) % 251
    return torch.where((images[:, :-1] == 0).all(1), IGNORED, value).to(torch.uint8)


def samples_of(images: Tensor, target: Tensor, annotated: Tensor | None = None) -> Samples:
    """Samples of which only what training sees counts; by default everything is annotated."""
    n = len(images)
    everything = torch.ones(n, 255, dtype=torch.bool)
    names = tuple(map(str, range(n)))
    maps = LabelMaps.of(target)
    return Samples(
        Images.of(images), maps, everything if annotated is None else annotated, maps, everything,
        torch.zeros(n, dtype=torch.int64), names, names,
    )  # fmt: skip


def draw(kind: patches.Patches, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return kind.draw(samples_of(images, target), torch.arange(len(images)))


def make(kind: str, size: tuple[int, ...] = (), **options: object) -> patches.Patches:
    return make_patches(PatchConfig.model_validate({"kind": kind, "size": size, **options}))


def test_whole_images_stay_as_they_are() -> None:
    images, target = painted(3, 5, 6)
    seen = draw(make("whole"), images, target)
    assert torch.equal(seen[0], images)
    assert torch.equal(seen[1], target)
    (view,) = make("whole").views(lambda x: 2 * x, images)
    assert torch.equal(view, 2 * images)


@pytest.mark.parametrize(("image", "size"), [((9, 12), (4, 5)), ((6, 7, 8), (3, 2, 4)), ((6, 7), (6, 7))])
def test_a_box_and_its_target_are_cut_at_one_place(image: tuple[int, ...], size: tuple[int, ...]) -> None:
    images, target = painted(8, *image)
    boxes, labels = draw(make("box", size), images, target)
    assert boxes.shape == (8, len(image) + 1, *size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, as_target(boxes))
    assert boxes[:, -1].flatten(1).unique(dim=1).flatten().tolist() == list(range(8))  # of its own image each
    for axis in range(len(size)):  # and without gaps
        places = boxes[:, axis].movedim(1 + axis, 1).flatten(2)[:, :, 0]
        assert (places.diff(dim=1) == 1).all()


def test_boxes_lie_at_every_place_and_those_of_a_batch_apart() -> None:
    images, target = painted(300, 5, 6)
    corners = draw(make("box", (4, 3), foreground=0), images, target)[0][:, :2, 0, 0]
    places = {tuple(c) for c in corners.int().tolist()}
    assert places == {(y, x) for y in (1, 2) for x in (1, 2, 3, 4)}


def test_what_a_box_sees_beyond_the_image_is_zero_and_ignored() -> None:
    images, target = painted(4, 3, 9)
    boxes, labels = draw(make("box", (5, 4)), images, target)
    assert torch.equal(labels, as_target(boxes))
    assert (labels[:, 3:] == IGNORED).all()
    assert (labels[:, :3] != IGNORED).all()
    assert (boxes[:, :, 3:] == 0).all()


@pytest.mark.parametrize(("image", "size"), [((9, 12), (4, 5)), ((6, 7, 8), (4, 4, 4)), ((3, 5), (4, 8))])
def test_sliding_windows_put_every_pixel_back(image: tuple[int, ...], size: tuple[int, ...]) -> None:
    images, _ = painted(2, *image)
    sizes = []

    def network(windows: Tensor) -> Tensor:
        sizes.append(tuple(windows.shape[2:]))
        return windows

    (view,) = make("box", size).views(network, images)
    # weighted means of equal numbers: float32 rounding
    torch.testing.assert_close(view, images, rtol=0, atol=1e-4)
    assert set(sizes) == {size}


def test_windows_of_bf16_are_put_together_in_float32() -> None:
    images, _ = painted(1, 12, 14)
    (view,) = make("box", (4, 5)).views(torch.Tensor.bfloat16, images)
    assert view.dtype == torch.float32
    torch.testing.assert_close(view, images, rtol=0, atol=1e-4)  # numbers that bf16 holds exactly


@pytest.mark.parametrize("plane", [0, 1, 2])
def test_a_slabs_target_is_its_middle_slice(plane: int) -> None:
    images, target = painted(40, 5, 6, 8)
    slabs, labels = draw(make("slab", (4, 5), depth=3, planes=(plane,)), images, target)
    assert slabs.shape == (40, 4, 3, 4, 5)
    assert torch.equal(labels, as_target(slabs[:, :, 1]))
    depth = images.shape[2 + plane]
    along = slabs[:, plane]
    assert (along.flatten(2).std(2) == 0).all()  # one slice of the plane, whole
    middle = along[:, 1, 0, 0]
    assert set(middle.tolist()) == set(range(1, depth + 1))
    neighbours = torch.stack([(middle - 1).clamp(min=1), middle, (middle + 1).clamp(max=depth)], dim=1)
    assert torch.equal(along[:, :, 0, 0], neighbours)  # beyond the ends they repeat
    assert (slabs[:, -1].flatten(1) == torch.arange(40)[:, None]).all()
    # at random places within the slice, too
    assert len({tuple(c) for c in slabs[:, :3, 1, 0, 0].tolist()}) > 15


def test_slabs_lie_across_every_plane_that_is_named_and_no_other() -> None:
    images, target = painted(2, 6, 6, 6)
    kind = make("slab", (4, 4), depth=3, planes=(0, 2))
    found = set()
    for _ in range(30):
        slabs, _ = draw(kind, images, target)
        found |= {axis for axis in range(3) if (slabs[0, axis, 1].std() == 0)}
    assert found == {0, 2}


def test_what_a_slab_sees_beside_the_volume_is_ignored() -> None:
    images, target = painted(6, 5, 3, 9)
    slabs, labels = draw(make("slab", (4, 8), depth=3, planes=(0,)), images, target)
    assert torch.equal(labels, as_target(slabs[:, :, 1]))
    assert (labels[:, 3] == IGNORED).all()
    assert (labels[:, :3] != IGNORED).all()


@pytest.mark.parametrize("planes", [(0,), (1,), (2,), (0, 1, 2), (2, 0)])
def test_every_view_of_a_volume_puts_its_voxels_back(planes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "SLABS_AT_ONCE", 4)
    images, _ = painted(2, 5, 18, 7)
    shapes = []

    def middle(slabs: Tensor) -> Tensor:
        shapes.append(tuple(slabs.shape))
        return slabs[:, :, slabs.shape[2] // 2]

    views = make("slab", (8, 8), depth=3, planes=planes).views(middle, images)
    assert len(views) == len(planes)
    for view in views:
        assert torch.equal(view, images)
    assert all(n <= 4 and depth == 3 and h % 16 == w % 16 == 0 for n, _, depth, h, w in shapes)


def test_each_view_looks_along_its_own_plane() -> None:
    """A "network" that gives the number of the slab's slice tells the planes apart."""
    images, _ = painted(1, 4, 5, 6)

    def first_channel_of_the_slice_before(slabs: Tensor) -> Tensor:
        return slabs[:, :3, 0]

    views = make("slab", (8, 8), depth=3).views(first_channel_of_the_slice_before, images)
    for plane, view in enumerate(views):
        expected = images[:, :3].clone()
        expected[:, plane] = (expected[:, plane] - 1).clamp(min=1)
        assert torch.equal(view, expected)
