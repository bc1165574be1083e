"""MONAI's U-Net with residual units: the network of the suites."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.unet import UNet
from torch import nn

from labeldrop_bench.models._checks import check_dims, check_sizes, never_drop


def unet(
    *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float = 0.0
) -> nn.Module:
    """Residual U-Net (Kerfoot et al. 2018): each level begins with a strided convolution; one residual unit a level.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        out_channels: of the logits.
        channels: width of each level, from the finest to the coarsest. Image sizes must be divisible by
            2^(levels - 1).
        dropout: probability that a feature is set to zero, behind every normalisation but the last.

    Returns:
        A module from images `[N, in_channels, *spatial]` to logits `[N, out_channels, *spatial]`.

    Raises:
        ValueError: other dimensions; in the module's calls, sizes that are not divisible.
    """
    check_dims("unet", spatial_dims, (1, 2, 3))
    network = UNet(
        spatial_dims,
        in_channels,
        out_channels,
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=1,
        act=("relu", {"inplace": True}),
        norm="batch",
        dropout=dropout,
    )
    # The last unit is as wide as the logits and adds its input to them: dropout there would set logits to zero
    *_, last = network.model.children()
    never_drop(last)
    return check_sizes(network, "unet", 2 ** (len(channels) - 1))
