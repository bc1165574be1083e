"""A network without pooling: dilated convolutions see further and further."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def dilated(
    *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float = 0.0
) -> nn.Module:
    """A plain network whose n-th convolution is dilated by 2^n; images of any size, after Yu and Koltun 2016.

    Args:
        spatial_dims: 2.
        in_channels: of the images.
        out_channels: of the logits, what the loss asks for.
        channels: widths of the layers.
        dropout: probability that a feature is set to zero; logits are never dropped.

    Raises:
        ValueError: other dimensions.
    """
    if spatial_dims != 2:
        raise ValueError(f"models: dilated needs spatial_dims to be 2, got {spatial_dims}")
    layers: list[nn.Module] = []
    for level, width in enumerate(channels):
        layers += [
            nn.Conv2d(in_channels, width, kernel_size=3, padding=2**level, dilation=2**level, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        ]
        in_channels = width
    return nn.Sequential(*layers, nn.Conv2d(in_channels, out_channels, kernel_size=1))
