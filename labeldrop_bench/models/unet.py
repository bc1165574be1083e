"""MONAI's U-Net with residual units: the network of the suites."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.unet import UNet
from torch import nn


def unet(*, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> nn.Module:
    """Residual U-Net (Kerfoot et al. 2018): each level begins with a strided convolution; one residual unit a level.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        out_channels: of the logits.
        channels: width of each level, from the finest to the coarsest. Image sizes must be divisible by
            2^(levels - 1).
    """
    return UNet(
        spatial_dims,
        in_channels,
        out_channels,
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=1,
        act=("relu", {"inplace": True}),
        norm="batch",
    )
