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

    Quick for a few classes. Its last unit, a convolution at full resolution, is as wide as the logits: with a hundred
    classes nearly all of the work lies there, and `dynunet` takes a quarter of the time. A step on two boxes of 48^3,
    widths 16 to 128, one core: 0.3 s (dynunet 1.7) with 4 classes, 0.6 (3.1) with 14, and 15.5 (4.3) with 118.

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
