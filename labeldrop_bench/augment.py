"""Random changes of a batch while training: those of Islam et al. 2024, with ranges to choose, or nnU-Net's preset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from labeldrop_bench.records import AugmentationConfig

if TYPE_CHECKING:
    from monai.transforms.compose import Compose

THIN = 3  # times as wide as thick, and nnU-Net turns the slices of a volume in their plane
SHARP = 1e-3  # pixels: a standard deviation that leaves every pixel as it is


def make_augmentation(config: AugmentationConfig) -> nn.Module:
    """What the `[augmentation]` table asks for: called with images and target, it gives changed ones."""
    return NnUNet(config) if config.preset == "nnunet" else Augmentation(config)


class Augmentation(nn.Module):
    """Scaling, rotation, blur, contrast and brightness (Islam et al. 2024, section 2).

    Draws each transform for each image on its own, with the configured probability.

    Written with the functions of torch and kornia, since kornia's ready-made `AugmentationSequential` takes five times
    as long: 9 against 2 ms for a batch of 16 x 64 x 64 on one core, where the network's step takes 60.

    Volumes and slabs are changed in the plane of their last two axes, all slices alike.

    Pixels that come from outside the image repeat its border, in the image as in the labels. Labels are looked up at
    the nearest pixel, so no new values arise.

    Args:
        config: probability and ranges.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A changed copy.

        Args:
            images: [n, channels, ..., height, width] float32, standardised; `...` may be depth.
            target: [n, ..., height, width] uint8 label values, or 255 for ignored pixels; `...` may be depth.

        Returns:
            Images and target of the same shapes and dtypes; the very same tensors if the probability is 0.
        """
        config = self.config
        if config.probability == 0:
            return images, target
        shape, images = images.shape, images.flatten(1, -3)  # slices as channels
        grid = self._grid(images)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        labels = target.unflatten(0, (-1, 1)).flatten(1, -3).to(images.dtype)
        labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="border", align_corners=False)
        if config.blur:
            sigma = self._draw(images, SHARP, config.blur, neutral=SHARP)
            side = 2 * math.ceil(2 * config.blur) + 1  # two standard deviations on each side
            images = gaussian_blur2d(images, (side, side), sigma[:, None].expand(-1, 2))
        contrast = self._draw(images, 1 - config.contrast, 1 + config.contrast, neutral=1.0)
        brightness = self._draw(images, -config.brightness, config.brightness, neutral=0.0)
        images = images * contrast[:, None, None, None] + brightness[:, None, None, None]
        return images.view(shape), labels.view(target.shape).to(target.dtype)

    def _grid(self, images: Tensor) -> Tensor:
        """Where to look each pixel up, [n, height, width, 2]: rotated about the middle and scaled.

        With x and y from -1 to 1 over the width W and the height H, angle t and scale s:
        x' = (cos t x + sin t y H / W) / s,  y' = (cos t y - sin t x W / H) / s.
        """
        config, (height, width) = self.config, images.shape[2:]
        angle = self._draw(images, -config.rotation, config.rotation, neutral=0.0).deg2rad()
        scale = self._draw(images, 1 - config.scale, 1 + config.scale, neutral=1.0)
        cos, sin, none = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
        rows = (cos, sin * height / width, none), (-sin * width / height, cos, none)
        matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # [n, 2, 3]
        return F.affine_grid(matrix, list(images.shape), align_corners=False)

    def _draw(self, images: Tensor, low: float, high: float, *, neutral: float) -> Tensor:
        """One value for each image, [n]: uniform in the range with the configured probability, else neutral."""
        value, chance = torch.rand(2, len(images), device=images.device)
        return torch.where(chance < self.config.probability, low + (high - low) * value, neutral)


class NnUNet(nn.Module):
    """nnU-Net's augmentation (Isensee et al. 2021), by MONAI's transforms with the chances and ranges of version 2.

    | transform | chance | range |
    |---|---|---|
    | rotation | 0.2 | 30 degrees about each axis; in a plane 180, or 15 if one side is 1.5 times the other |
    | scaling | 0.2 | 0.71 ... 1.43 times, all axes alike |
    | Gaussian noise | 0.1 | standard deviation up to 0.32 |
    | Gaussian blur | 0.1 | standard deviation 0.5 ... 1 pixels, for each axis |
    | brightness | 0.15 | 0.75 ... 1.25 times |
    | contrast | 0.15 | 0.75 ... 1.25 times about the mean, within the range of the image |
    | low resolution | 0.125 | 0.5 ... 1 times the pixels and back again |
    | gamma of the negative image | 0.1 | 0.7 ... 1.5, mean and standard deviation kept |
    | gamma | 0.3 | 0.7 ... 1.5, mean and standard deviation kept |
    | mirroring | 0.5 for each axis | `mirror` |

    Where this differs: all channels of an image change alike (nnU-Net draws blur and low resolution for each, with half
    of twice these chances); and what turns or shrinks into the picture repeats its border, image and labels alike,
    where nnU-Net cuts a larger patch first. Slabs, and boxes at most a third as thick as wide, whose slices nnU-Net
    turns in their plane, are two-dimensional in all transforms here, all slices alike; volumes otherwise
    three-dimensional. Labels are looked up at the nearest pixel, so no new values arise.

    MONAI's transforms, since it is a dependency already and has each of these, some made after nnU-Net. nnU-Net's own
    package, batchgeneratorsv2, changes one image at a time as well, and imports more packages than it declares.
    On one core: 0.15 s on average for 2 boxes of 96 x 96 x 96, where a step of `unet` takes 7 and of `dynunet` 27.

    One number is drawn of torch's generator for a batch, and all else of that: with it a run repeats itself.

    Args:
        config: `mirror`, and `probability`, which may be 0.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A changed copy; arguments and results are those of `Augmentation`."""
        if self.config.probability == 0:
            return images, target
        sizes = target.shape[1:]
        thin = sizes.index(min(sizes)) if len(sizes) == 3 and THIN * min(sizes) < max(sizes) else None
        if thin is not None:
            images, labels = images.movedim(2 + thin, 2), target.movedim(1 + thin, 1)
        else:
            labels = target if len(sizes) == 3 else target[:, None]  # no axis of channels, or one
        shape, flat = images.shape, thin is not None or len(sizes) == 2
        changed = self._changed(images.flatten(1, -3) if flat else images, labels if flat else labels[:, None])
        images, labels = changed[0].view(shape), changed[1].to(target.dtype)
        if thin is not None:
            images, labels = images.movedim(2, 2 + thin), labels.movedim(1, 1 + thin)
        return images, labels.reshape(target.shape)

    def _changed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Of images [n, channels, *spatial] and labels [n, channels, *spatial]."""
        transforms = nnunet_transforms(images.shape[2:], self.config.mirror, images.device)
        transforms.set_random_state(int(torch.randint(2**31, ())))  # of the CPU: no device is waited for
        pairs = [{"image": image, "label": label} for image, label in zip(images, labels.float(), strict=True)]
        done = [transforms(pair) for pair in pairs]
        images, labels = (torch.stack([pair[key] for pair in done]).as_subclass(Tensor) for key in ("image", "label"))
        return images, labels


def nnunet_transforms(sizes: Sequence[int], mirror: bool, device: torch.device) -> Compose:
    """The transforms of `NnUNet` in turn, for an image [channels, *sizes] and a label map [channels, *sizes]."""
    from monai.transforms.compose import Compose  # slow to import
    from monai.transforms.intensity import dictionary as intensity
    from monai.transforms.spatial import dictionary as spatial

    both, linear = ("image", "label"), "trilinear" if len(sizes) == 3 else "bilinear"
    degrees = 30 if len(sizes) == 3 else 15 if max(sizes) > 1.5 * min(sizes) else 180
    turn = spatial.RandAffined(
        both,
        prob=0.2,
        rotate_range=[math.radians(degrees)] * (3 if len(sizes) == 3 else 1),
        mode=("bilinear", "nearest"),
        padding_mode="border",
        device=device,
    )
    zoom = spatial.RandZoomd(both, prob=0.2, min_zoom=1 / 1.4, max_zoom=1 / 0.7, mode=(linear, "nearest-exact"))
    some = (0.5, 1.0)
    return Compose(
        [
            *(spatial.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(len(sizes) if mirror else 0)),
            turn,
            zoom,
            intensity.RandGaussianNoised("image", prob=0.1, std=math.sqrt(0.1)),
            intensity.RandGaussianSmoothd("image", prob=0.1, sigma_x=some, sigma_y=some, sigma_z=some),
            intensity.RandScaleIntensityd("image", prob=0.15, factors=0.25),
            intensity.RandScaleIntensityFixedMeand("image", prob=0.15, factors=0.25, preserve_range=True),
            spatial.RandSimulateLowResolutiond("image", prob=0.125, upsample_mode=linear, zoom_range=some),
            intensity.RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
            intensity.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
        ]
    )
