from __future__ import annotations

import pytest
import torch
from torch import Tensor

from labeldrop_bench import augment
from labeldrop_bench.augment import Augmentation, make_augmentation
from labeldrop_bench.records import AugmentationConfig

NOTHING = {"scale": 0.0, "rotation": 0.0, "blur": 0.0, "brightness": 0.0, "contrast": 0.0}


def _augment(seed: int = 0, **ranges: float) -> Augmentation:
    torch.manual_seed(seed)
    return Augmentation(AugmentationConfig(**{"probability": 1.0, **NOTHING, **ranges}))


def _batch(n: int = 6, height: int = 24, width: int = 40) -> tuple[Tensor, Tensor]:
    """Images that are their own labels: a block in the middle, off centre."""
    target = torch.zeros(n, height, width, dtype=torch.uint8)
    target[:, 8:16, 12:30] = 3
    target[:, 10:14, 16:20] = 1
    return target[:, None].float(), target


def test_probability_zero_changes_nothing() -> None:
    images, target = _batch()
    same = Augmentation(AugmentationConfig(probability=0.0))(images, target)
    assert same[0] is images
    assert same[1] is target


def test_neutral_ranges_change_nothing() -> None:
    images, target = _batch()
    changed, labels = _augment()(images, target)
    assert torch.equal(labels, target)
    # the bilinear lookup at the pixels' own places: float32 rounding of coordinates up to 40
    torch.testing.assert_close(changed, images, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ranges", [{"rotation": 30.0}, {"scale": 0.3}, {"rotation": 20.0, "scale": 0.2}])
def test_images_and_labels_move_together(ranges: dict[str, float]) -> None:
    images, target = _batch()
    changed, labels = _augment(**ranges)(images, target)
    assert set(labels.unique().tolist()) <= {0, 1, 3}
    assert labels.dtype == target.dtype
    assert not torch.equal(labels, target)
    # Bilinear and nearest lookup differ only beside edges; a shift of one pixel would break 20 % of them and more.
    assert (changed[:, 0].round() == labels).float().mean() > 0.93


def test_rotation_keeps_shapes_in_images_that_are_not_square() -> None:
    target = torch.zeros(40, 60, 100, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(100) - 49.5, indexing="ij")
    target[:, (y**2 + x**2) < 20**2] = 1
    _, labels = _augment(rotation=90.0)(target[:, None].float(), target)
    # A disc in the middle stays what it is, up to pixels on its edge (4 % of its area lie within half a pixel of it)
    assert ((labels != target).flatten(1).sum(1) < 0.04 * target[0].sum()).all()


def test_brightness_adds_and_contrast_multiplies_for_each_image_on_its_own() -> None:
    images, target = torch.randn(64, 1, 8, 8), torch.zeros(64, 8, 8, dtype=torch.uint8)
    shift = (_augment(brightness=0.2)(images, target)[0] - images).flatten(1)
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-4, rtol=0)
    assert shift.abs().max() <= 0.2 + 1e-4
    assert shift[:, 0].std() > 0.05  # uniform in +-0.2: 0.115
    ratio = (_augment(contrast=0.2)(images, target)[0].flatten(1) * images.flatten(1)).sum(1) / images.square().flatten(
        1
    ).sum(1)
    assert ratio.min() > 0.8 - 1e-3
    assert ratio.max() < 1.2 + 1e-3
    assert ratio.std() > 0.05


def test_blur_softens_the_image_and_leaves_the_labels() -> None:
    images, target = torch.randn(16, 1, 32, 32), torch.randint(0, 4, (16, 32, 32), dtype=torch.uint8)
    changed, labels = _augment(blur=1.0)(images, target)
    assert torch.equal(labels, target)
    assert changed.std() < 0.9 * images.std()


def test_each_image_is_changed_with_the_given_probability() -> None:
    images, target = torch.ones(2000, 1, 4, 4), torch.zeros(2000, 4, 4, dtype=torch.uint8)
    changed, _ = _augment(probability=0.3, brightness=0.5)(images, target)
    rate = ((changed - images).abs().amax((1, 2, 3)) > 1e-3).float().mean()
    assert abs(float(rate) - 0.3) < 0.05  # five standard deviations of a rate over 2000 images


def test_volumes_change_in_the_plane_all_slices_alike() -> None:
    images, target = _batch()
    volume, labels = images[:, :, None].repeat(1, 1, 5, 1, 1), target[:, None].repeat(1, 5, 1, 1)
    changed, moved = _augment(rotation=20.0, scale=0.2)(volume, labels)
    assert changed.shape == volume.shape
    assert torch.equal(moved, moved[:, :1].expand_as(moved))
    assert not torch.equal(moved, labels)
    assert (changed[:, 0].round() == moved).float().mean() > 0.93


def test_a_slab_moves_with_the_labels_of_its_middle_slice() -> None:
    images, target = _batch()
    slabs = images[:, :, None] * torch.tensor([0.0, 1.0, 5.0]).view(3, 1, 1)  # [n, channels, depth, height, width]
    changed, labels = _augment(rotation=20.0)(slabs, target)
    assert changed.shape == slabs.shape
    assert labels.shape == target.shape
    assert (changed[:, 0, 1].round() == labels).float().mean() > 0.93
    torch.testing.assert_close(changed[:, 0, 2], 5 * changed[:, 0, 1], atol=1e-4, rtol=1e-4)


def test_ignored_pixels_move_and_stay_ignored() -> None:
    images, target = _batch()
    target[target == 3] = 255
    _, labels = _augment(rotation=20.0)(images, target)
    assert set(labels.unique().tolist()) == {0, 1, 255}


# volumes, volumes with few slices along any axis, images, and slabs with the labels of their middle slice
SHAPES = {
    "volume": ((16, 18, 20), (16, 18, 20)),
    "thin": ((4, 24, 20), (4, 24, 20)),
    "thin along the last axis": ((24, 20, 4), (24, 20, 4)),
    "image": ((24, 20), (24, 20)),
    "long image": ((16, 40), (16, 40)),
    "slab": ((7, 24, 20), (24, 20)),
}
every_shape = pytest.mark.parametrize("shape", SHAPES)


def _preset(seed: int = 0, **keys: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return make_augmentation(AugmentationConfig.model_validate({"preset": "nnunet", **keys}))


def _blobs(shape: str, n: int = 40) -> tuple[Tensor, Tensor]:
    """Two channels, of which the second is the labels: an ellipsoid off centre, ignored pixels in its middle."""
    sizes, labelled = SHAPES[shape]
    axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in sizes), indexing="ij")
    first = len(sizes) - len(labelled)  # a slab has the same disc in every slice
    radius = torch.stack([(axis - 0.2) ** 2 for axis in axes[first:]]).sum(0)
    image = 3.0 * (radius < 0.5) + (radius < 0.1)
    target = torch.where(image == 4, 255, image).to(torch.uint8)
    images = torch.stack([torch.randn(n, *sizes), image.expand(n, *sizes)], dim=1)
    return images, (target[3] if first else target).expand(n, *labelled).clone()


@every_shape
def test_the_preset_keeps_shapes_types_and_label_values(shape: str) -> None:
    images, target = _blobs(shape)
    before = images.clone()
    changed, labels = _preset()(images, target)
    assert type(changed) is type(labels) is Tensor
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert (labels.shape, labels.dtype) == (target.shape, target.dtype)
    assert labels.unique().tolist() == [0, 3, 255]
    assert changed.isfinite().all()
    assert torch.equal(images, before)
    assert not torch.equal(labels, target)


@every_shape
def test_the_preset_moves_images_and_labels_together(shape: str) -> None:
    images, target = _blobs(shape)
    changed, labels = _preset()(images, target)
    seen = changed[:, 1, 3] if shape == "slab" else changed[:, 1]
    moved = (labels != target).flatten(1).any(1)
    assert moved.sum() >= 20  # of 40; mirrored alone are three in four
    pairs = [torch.stack([a.flatten(), b.flatten().gt(0).float()]) for a, b in zip(seen, labels, strict=True)]
    alike = torch.tensor([torch.corrcoef(pair)[0, 1] for pair in pairs])
    # Brightness and gamma keep the order of grey values, and noise has a third of the blob's height at most; with
    # labels that are mirrored in one axis besides, the mean is below 0.6
    assert alike.mean() > 0.9
    assert alike.min() > 0.75


@every_shape
def test_the_preset_draws_of_torchs_generator_alone(shape: str) -> None:
    images, target = _blobs(shape, n=8)
    first, second = (_preset(seed=3)(images, target) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = _preset(seed=4)(images, target)
    assert not torch.equal(first[0], other[0])
    again = _preset(seed=3)
    again(images, target)
    assert not torch.equal(again(images, target)[0], first[0])  # the next batch


@every_shape
def test_the_preset_changes_nothing_with_probability_zero(shape: str) -> None:
    images, target = _blobs(shape, n=2)
    same = _preset(probability=0.0)(images, target)
    assert same[0] is images
    assert same[1] is target


def test_the_preset_mirrors_only_if_it_may() -> None:
    """An octant is labelled in a volume: turned by 30 degrees it stays where it is, mirrored it does not."""
    target = torch.zeros(100, 16, 16, 16, dtype=torch.uint8)
    target[:, :8, :8, :8] = 1
    octants = target[:, None].float()
    for mirror in (False, True):
        _, labels = _preset(mirror=mirror)(octants, target)
        kept = labels[:, 4, 4, 4].float().mean()
        assert kept == 1.0 if not mirror else kept < 0.3  # one in eight


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_preset_leaves_thick_slices_where_they_are(axis: int) -> None:
    sizes = [20, 20, 20]
    sizes[axis] = 5
    number = torch.arange(5, dtype=torch.uint8).view([-1 if a == axis else 1 for a in range(3)])
    target = number.expand(20, *sizes).contiguous()
    disc = torch.zeros(20, 1, *sizes)
    disc.movedim(2 + axis, 2)[..., 3:9, 3:9] = 1
    changed, labels = _preset(mirror=False)(disc, target)
    assert torch.equal(labels, target)
    assert not torch.equal(changed, disc)


def test_every_transform_of_the_preset_does_something(monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.transforms.compose import Compose

    images, target = _blobs("volume", n=20)
    whole = augment.nnunet_transforms
    for number in range(12):
        alone = lambda *a, number=number: Compose([whole(*a).transforms[number]])  # noqa: E731
        monkeypatch.setattr(augment, "nnunet_transforms", alone)
        changed, labels = _preset()(images, target)
        by_image = (changed != images).flatten(1).any(1)
        assert 0 < by_image.sum() < 20, number  # chances are 0.1 to 0.5
        assert torch.equal(labels[~by_image], target[~by_image])
        assert torch.equal(labels, target) == (number > 4), number  # mirrored, turned, scaled
