"""MONAI's Swin UNETR: a transformer with shifted windows as encoder, convolutions as decoder."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from monai.networks.nets.swin_unetr import SwinUNETR
from torch import nn

from labeldrop_bench.models._checks import check_dims, check_sizes

LEVELS = 5  # resolutions of the tokens: 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's
HEADS = 12  # 3, 6, 12 and 24 attention heads divide the widths of the four stages if this divides the first


def swin_unetr(
    *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float = 0.0
) -> nn.Module:
    """Swin UNETR (Hatamizadeh et al. 2022, arXiv:2201.01266) with the paper's four stages of two blocks each.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the images.
        out_channels: of the logits.
        channels: widths of the tokens at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's resolution. The first is also that
            of the convolutions at full resolution; it must be a multiple of 12, and merging patches doubles it each
            time: (48, 96, 192, 384, 768) is the paper's, (12, 24, 48, 96, 192) the smallest. Image sizes must be
            divisible by 32, and must not all be 32.
        dropout: probability that a feature is set to zero in the transformer: behind the embedding of the patches, the
            attention and both layers of each MLP. The convolutions have none.

    Returns:
        A module from images `[N, in_channels, *spatial]` to logits `[N, out_channels, *spatial]`.

    Raises:
        ValueError: other dimensions, or widths that are not of this form; in the module's calls, sizes that do not fit.
    """
    check_dims("swin_unetr", spatial_dims, (2, 3))
    _check_widths(channels)
    network = SwinUNETR(
        in_channels=in_channels,
        out_channels=out_channels,
        feature_size=channels[0],
        drop_rate=dropout,
        spatial_dims=spatial_dims,
    )
    return check_sizes(network, "swin_unetr", 2**LEVELS, instance_norm=True)


def _check_widths(channels: Sequence[int]) -> None:
    first = max(1, ceil(channels[0] / HEADS)) * HEADS
    expected = [first * 2**level for level in range(LEVELS)]
    if list(channels) != expected:
        raise ValueError(
            f"models: swin_unetr needs {LEVELS} widths in channels, the first a multiple of {HEADS} and each twice the "
            f"one before, got {list(channels)}; write {expected}"
        )
