"""What of an image a network sees at once, in training and in prediction (the `[patches]` table).

Every kind has two functions: `draw` cuts what a training step sees, `views` gives the logits of whole images, once for
each way of looking at them. The prediction is the mean of the views; sporadic-error rejection looks at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from labeldrop_bench.records import PatchConfig

Forward = Callable[[Tensor], Tensor]
IGNORED = 255  # as in `data.base`
DIVISIBLE = 16  # in-plane sizes of a slab are padded to a multiple, whatever the network's strides
SLABS_AT_ONCE = 16
BOX_PIXELS_AT_ONCE = 1 << 20  # in prediction, of at most four boxes: a hundred classes have a hundred logits for each


class Patches(Protocol):
    """How images are cut up and put together again."""

    def draw(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What a training step sees: of images [n, channels, *spatial] and their target [n, *spatial]."""

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """Logits [n, out_channels, *spatial] of whole images, once for each view."""


def make_patches(config: PatchConfig) -> Patches:
    """The kind that a suite asks for."""
    if config.kind == "whole":
        return Whole()
    return Box(config.size) if config.kind == "box" else Slab(config.size, config.depth, config.planes)


class Whole:
    """Whole images."""

    def draw(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The images themselves."""
        return images, target

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """One view."""
        return [network(images)]


class Box:
    """Random boxes in training; sliding windows that overlap by half in prediction (MONAI's, Gaussian weights).

    Args:
        size: of the box, one number per axis.
    """

    def __init__(self, size: tuple[int, ...]) -> None:
        self.size = size

    def draw(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A box of each image, at a place of its own; what lies outside the image is 0 and ignored."""
        images, target = _padded(images, target, self.size)
        corners = [_corners(images, axis, size) for axis, size in enumerate(self.size)]
        boxes = [
            tuple(slice(start, start + size) for start, size in zip(corner, self.size, strict=True))
            for corner in zip(*corners, strict=True)
        ]
        cut_images = [image[(..., *box)] for image, box in zip(images, boxes, strict=True)]
        cut_target = [labels[box] for labels, box in zip(target, boxes, strict=True)]
        return torch.stack(cut_images), torch.stack(cut_target)

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """One view."""
        at_once = min(4, max(1, BOX_PIXELS_AT_ONCE // math.prod(self.size)))
        logits = sliding_window_inference(images, self.size, at_once, network, overlap=0.5, mode="gaussian")
        assert isinstance(logits, Tensor)  # noqa: S101 - for the type checker: a network here gives one tensor
        return [logits]


class Slab:
    """Some slices of a volume, of which the network labels the middle one (McKinley et al. 2019, section 3).

    Beyond its first and last slice a volume repeats them; within a slice what lies outside is 0 and ignored.

    Args:
        size: height and width in training; prediction takes whole slices.
        depth: slices, an odd number.
        planes: axes of the volume that a slab may lie across; each gives one view.
    """

    def __init__(self, size: tuple[int, ...], depth: int, planes: tuple[int, ...]) -> None:
        self.size, self.depth, self.planes = size, depth, planes

    def draw(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """A slab [n, channels, depth, *size] of each volume across one random axis, and its middle slice's target."""
        plane = self.planes[int(torch.randint(len(self.planes), ()))]
        images, target = images.movedim(2 + plane, 2), target.movedim(1 + plane, 1)
        middle = torch.randint(images.shape[2], (len(images),)).tolist()
        slabs = torch.stack([self._slab(image, m) for image, m in zip(images, middle, strict=True)])
        slices = torch.stack([labels[m] for labels, m in zip(target, middle, strict=True)])
        flat, slices = Box(self.size).draw(slabs.flatten(1, 2), slices)
        return flat.unflatten(1, slabs.shape[1:3]), slices

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """One view for each plane."""
        return [self._along(network, images, plane) for plane in self.planes]

    def _along(self, network: Forward, images: Tensor, plane: int) -> Tensor:
        volumes = images.movedim(2 + plane, 2)
        height, width = volumes.shape[3:]
        below, right = (-size % DIVISIBLE for size in (height, width))
        logits = []
        for volume in F.pad(volumes, (0, right, 0, below)):
            slabs = torch.stack([self._slab(volume, m) for m in range(volume.shape[1])])
            slices = torch.cat([network(chunk) for chunk in slabs.split(SLABS_AT_ONCE)])
            logits.append(slices[..., :height, :width].movedim(0, 1))
        return torch.stack(logits).movedim(2, 2 + plane)

    def _slab(self, volume: Tensor, middle: int) -> Tensor:
        """[channels, depth, height, width] about a slice of [channels, slices, height, width]."""
        half = self.depth // 2
        index = torch.arange(middle - half, middle + half + 1, device=volume.device)
        return volume[:, index.clamp(0, volume.shape[1] - 1)]


def _padded(images: Tensor, target: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images and target that are at least of a size, padded at the far ends."""
    missing = [max(wanted - have, 0) for wanted, have in zip(size, target.shape[1:], strict=True)]
    padding = [amount for axis in reversed(missing) for amount in (0, axis)]
    return F.pad(images, padding), F.pad(target, padding, value=IGNORED)


def _corners(images: Tensor, axis: int, size: int) -> list[int]:
    """A random first index along a spatial axis for each image."""
    corners: list[int] = torch.randint(images.shape[2 + axis] - size + 1, (len(images),)).tolist()
    return corners
