"""MONAI's DynUNet: nnU-Net's plain convolutional U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.dynunet import DynUNet
from torch import nn

from labeldrop_bench.models._checks import check_dims, check_sizes, never_drop


def dynunet(
    *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float = 0.0
) -> nn.Module:
    """Two convolutions per level at full resolution, instance norm, leaky ReLU (Isensee et al. 2021).

    The network to compare with nnU-Net, with `augmentation.preset = "nnunet"`, and with its widths: channels =
    [32, 64, 128, 256, 320, 320] in volumes, [32, 64, 128, 256, 512, 512, 512] in images. As in nnU-Net's plain U-Net
    there are two convolutions on each level on the way down and up, transposed convolutions, a 1 x 1 convolution for
    the logits, and its initial weights. What nnU-Net has besides: kernels and strides that follow the spacing (here 3
    and 2 along every axis), scale and shift in its norms, and the loss on coarser levels too (deep supervision).

    Three to five times the work of `unet` with the same widths for a few classes, a quarter for a hundred.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: of the logits.
        channels: width of each level, from the finest to the coarsest. Image sizes must be divisible by
            2^(levels - 1), and must not all be equal to it.
        dropout: probability that a feature is set to zero, behind every convolution but the last.

    Returns:
        A module from images `[N, in_channels, *spatial]` to logits `[N, out_channels, *spatial]`.

    Raises:
        ValueError: other dimensions; in the module's calls, sizes that do not fit.
    """
    check_dims("dynunet", spatial_dims, (2, 3))
    if len(channels) < 3:
        raise ValueError(f"models: dynunet needs the widths of at least three levels in channels, got {list(channels)}")
    down = (2,) * (len(channels) - 1)
    network = DynUNet(
        spatial_dims,
        in_channels,
        out_channels,
        kernel_size=(3,) * len(channels),
        strides=(1, *down),
        upsample_kernel_size=down,
        filters=channels,
        norm_name="instance",
        dropout=dropout,
    )
    never_drop(network.output_block)  # MONAI has dropout there too, which would set logits to zero
    return check_sizes(network, "dynunet", 2 ** (len(channels) - 1), instance_norm=True)
