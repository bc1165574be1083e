"""What of an image a network sees at once, in training and in prediction (the `[patches]` table).

Every kind has two functions: `draw` cuts what a training step sees, `views` gives the logits of whole images, once for
each way of looking at them. The prediction is the mean of the views; sporadic-error rejection looks at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference
from torch import Tensor

from labeldrop_bench.data.base import IGNORED, Samples
from labeldrop_bench.foreground import Foreground
from labeldrop_bench.records import PatchConfig

Forward = Callable[[Tensor], Tensor]
DIVISIBLE = 16  # in-plane sizes of a slab are padded to a multiple, whatever the network's strides
SLABS_AT_ONCE = 16
BOX_PIXELS_AT_ONCE = 1 << 20  # in prediction, of at most four boxes: a hundred classes have a hundred logits for each


class Patches(Protocol):
    """How images are cut up and put together again."""

    def draw(self, samples: Samples, index: Tensor) -> tuple[Tensor, Tensor]:
        """What a training step sees of the samples [n]: images [n, channels, *box] and target [n, *box] on the CPU."""

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """Logits [n, out_channels, *spatial] of whole images, once for each view."""


def make_patches(config: PatchConfig) -> Patches:
    """The kind that a suite asks for."""
    if config.kind == "whole":
        return Whole()
    if config.kind == "box":
        return Box(config.size, config.foreground)
    return Slab(config.size, config.depth, config.planes, config.foreground)


class Whole:
    """Whole images."""

    def draw(self, samples: Samples, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images themselves."""
        return samples.images[index], samples.target[index]

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """One view."""
        return [network(images)]


class Box:
    """Random boxes in training; sliding windows that overlap by half in prediction (MONAI's, Gaussian weights).

    Nothing of an image is read in training but its box. Some boxes have a labelled pixel in their middle, or as near to
    it as the image's border lets them: the last of each batch, n times `foreground` of n rounded up or down by chance,
    so that the share is right on average. (nnU-Net rounds to the nearest number: with 0.33 and two boxes to one of
    them, which is 0.5 here.) `Foreground` says which pixel. MONAI's RandCropByPosNegLabel would do for volumes in
    memory; it takes one of all labelled pixels, so small structures are as rare as they are, and reads whole volumes.

    Random numbers are drawn of torch's generator, as many for each batch, whatever is in the images: all strategies of
    a seed see boxes of the same samples at the same random places, and the same labelled pixels if they are trained on
    the same labels. `full`, which has more of them, may see others. Label dropout comes afterwards and changes nothing.

    Args:
        size: of the box, one number per axis.
        foreground: share of the boxes that are centred on a labelled pixel.
    """

    def __init__(self, size: tuple[int, ...], foreground: float) -> None:
        self.size, self.centred = size, Centred(foreground)

    def draw(self, samples: Samples, index: Tensor) -> tuple[Tensor, Tensor]:
        """A box of each image, at a place of its own; what lies outside the image is 0 and ignored."""
        have = samples.images.shape[2:]
        corners = _corners(have, self.size, len(index))
        pixels = self.centred.draw(samples, index)
        images, target = [], []
        for i, corner, pixel in zip(index.tolist(), corners, pixels, strict=True):
            place = _box(corner if pixel is None else _around(pixel, have, self.size), self.size)
            images.append(_filled(samples.images.box(i, place), self.size, 0))
            target.append(_filled(samples.target.box(i, place), self.size, IGNORED))
        return torch.stack(images), torch.stack(target)

    def views(self, network: Forward, images: Tensor) -> list[Tensor]:
        """One view."""
        at_once = min(4, max(1, BOX_PIXELS_AT_ONCE // math.prod(self.size)))
        # MONAI weighs a window's logits in their own type: bf16 would lose digits there
        logits = sliding_window_inference(
            images, self.size, at_once, lambda windows: network(windows).float(), overlap=0.5, mode="gaussian"
        )
        assert isinstance(logits, Tensor)  # noqa: S101 - for the type checker: a network here gives one tensor
        return [logits]


class Slab:
    """Some slices of a volume, of which the network labels the middle one (McKinley et al. 2019, section 3).

    Beyond its first and last slice a volume repeats them; within a slice what lies outside is 0 and ignored.

    Args:
        size: height and width in training; prediction takes whole slices.
        depth: slices, an odd number.
        planes: axes of the volume that a slab may lie across; each gives one view.
        foreground: share of the slabs with a labelled pixel in the middle of their middle slice, as for `Box`.
    """

    def __init__(self, size: tuple[int, ...], depth: int, planes: tuple[int, ...], foreground: float) -> None:
        self.size, self.depth, self.planes, self.centred = size, depth, planes, Centred(foreground)

    def draw(self, samples: Samples, index: Tensor) -> tuple[Tensor, Tensor]:
        """A slab [n, channels, depth, *size] of each volume across one random axis, and its middle slice's target."""
        plane = self.planes[int(torch.randint(len(self.planes), ()))]
        have = list(samples.images.shape[2:])
        slices = have.pop(plane)
        middles = torch.randint(slices, (len(index),)).tolist()
        corners = _corners(have, self.size, len(index))
        images, target = [], []
        for i, middle, corner, pixel in zip(
            index.tolist(), middles, corners, self.centred.draw(samples, index), strict=True
        ):
            if pixel is not None:
                middle = pixel[plane]
                corner = _around(pixel[:plane] + pixel[plane + 1 :], have, self.size)
            first, last = max(middle - self.depth // 2, 0), min(middle + self.depth // 2, slices - 1)
            place, flat = _box(corner, self.size), slice(middle, middle + 1)
            labels = samples.target.box(i, (*place[:plane], flat, *place[plane:])).squeeze(plane)
            slab = samples.images.box(i, (*place[:plane], slice(first, last + 1), *place[plane:]))
            images.append(_filled(self._slab(slab.movedim(1 + plane, 1), middle - first), self.size, 0))
            target.append(_filled(labels, self.size, IGNORED))
        return torch.stack(images), torch.stack(target)

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


class Centred:
    """Which boxes of a batch have a labelled pixel in their middle, and which pixel.

    Args:
        share: of the boxes; 0 draws nothing.
    """

    def __init__(self, share: float) -> None:
        self.share, self.foreground = share, Foreground()

    def draw(self, samples: Samples, index: Tensor) -> list[tuple[int, ...] | None]:
        """A pixel for each of the samples [n]; None for a box that lies anywhere."""
        n = len(index)
        if self.share == 0:
            return [None] * n
        anywhere = n - math.floor(n * self.share + float(torch.rand(())))
        chance = torch.rand(n, 2).tolist()  # for all: how many are drawn must not hang on what there is
        return [
            None if number < anywhere else self.foreground.draw(samples, i, *chance[number])
            for number, i in enumerate(index.tolist())
        ]


def _corners(have: Sequence[int], size: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """A random first index along every axis for each of n boxes; 0 where the image is no larger than the box."""
    axes = [torch.randint(max(h - s, 0) + 1, (n,)).tolist() for h, s in zip(have, size, strict=True)]
    return list(zip(*axes, strict=True))


def _around(pixel: Sequence[int], have: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """The first indices of a box about a pixel, within the image."""
    return tuple(max(0, min(p - s // 2, h - s)) for p, h, s in zip(pixel, have, size, strict=True))


def _box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(first, first + length) for first, length in zip(corner, size, strict=True))


def _filled(values: Tensor, size: Sequence[int], value: int) -> Tensor:
    """[..., *have] padded with a value at the far ends of the last axes, to [..., *size]."""
    missing = [wanted - have for wanted, have in zip(size, values.shape[-len(size) :], strict=True)]
    padding = [amount for axis in reversed(missing) for amount in (0, axis)]
    return F.pad(values, padding, value=value) if any(padding) else values
