"""MONAI's DynUNet: nnU-Net's plain convolutional U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.dynunet import DynUNet
from torch import nn


def dynunet(*, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> nn.Module:
    """Two convolutions per level at full resolution, instance norm, leaky ReLU (Isensee et al. 2021).

    Three to five times the work of `unet` with the same widths. Image sizes must be divisible by 2^(levels - 1).

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: of the logits.
        channels: width of each level, from the finest to the coarsest.
    """
    down = (2,) * (len(channels) - 1)
    return DynUNet(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=(3,) * len(channels),
        strides=(1, *down),
        upsample_kernel_size=down,
        filters=channels,
        norm_name="instance",
    )
