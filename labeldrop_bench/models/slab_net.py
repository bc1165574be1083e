"""A network from a slab of slices to the labels of its middle slice (McKinley et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.blocks.denseblock import ConvDenseBlock
from monai.networks.nets.basic_unet import Down, UpCat
from torch import nn

from labeldrop_bench.models._checks import check_dims

DEPTH = 7
DILATIONS = (1, 2, 4, 8, 16)
NORM = ("instance", {"affine": True})
ACT = ("relu", {"inplace": True})


def slab_net(
    *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float = 0.0
) -> SlabNet:
    """3-D convolutions from seven slices to one, then a shallow 2-D encoder-decoder with a dense, dilated bottleneck.

    From McKinley et al. 2019 ("Few-shot brain segmentation from weakly labeled data with deep heteroscedastic
    multi-task networks", section 3): slabs of 7 slices, of 196 x 196 pixels there, whose spacing may differ from that
    of the slices; 3-D convolutions that reduce them to two dimensions; a shallow encoder and decoder; and densely
    connected dilated convolutions between these. The text gives no numbers for the layers, so these are ours: the
    widths, two resolutions below the full one, a dense layer for each of the dilations 1, 2, 4, 8 and 16 (enough for
    the middle pixel to see all of the paper's patch), MONAI's blocks, instance norm, and ReLU.

    Args:
        spatial_dims: 3, those of the slab.
        in_channels: of the images.
        out_channels: of the logits.
        channels: three widths: of all features at full resolution, the 3-D convolutions' among them; of the features
            below; and of what each dense layer adds (its growth). (32, 64, 12) suits slabs of the paper's size,
            (8, 16, 8) is quick on a CPU.
        dropout: probability that a feature is set to zero, behind every normalisation.

    Returns:
        A module from slabs `[N, in_channels, 7, H, W]` to logits `[N, out_channels, H, W]` of the middle slice, with H
        and W divisible by 4 and not both 4. Its attribute `depth` is the 7.

    Raises:
        ValueError: other dimensions, or not three widths; in the module's calls, slabs of another shape.
    """
    check_dims("slab_net", spatial_dims, (3,))
    if len(channels) != 3:
        raise ValueError(
            "models: slab_net needs three widths in channels, at full resolution, below, and the growth of the dense "
            f"block, got {list(channels)}; write for example [32, 64, 12]"
        )
    return SlabNet(in_channels, out_channels, channels, dropout)


class SlabNet(nn.Module):
    """The network that `slab_net` makes.

    Attributes:
        depth: how many slices a slab has.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float) -> None:
        super().__init__()
        fine, coarse, growth = channels
        dense = coarse + growth * len(DILATIONS)
        self.depth = DEPTH
        self.stem = _stem(in_channels, fine, dropout)
        self.down_1 = Down(2, fine, coarse, ACT, NORM, bias=False, dropout=dropout)
        self.down_2 = Down(2, coarse, coarse, ACT, NORM, bias=False, dropout=dropout)
        self.dense = ConvDenseBlock(
            2, coarse, [growth] * len(DILATIONS), DILATIONS, act=ACT, norm=NORM, dropout=dropout, bias=False
        )
        self.up_2 = UpCat(2, dense, coarse, coarse, ACT, NORM, bias=False, dropout=dropout)
        self.up_1 = UpCat(2, coarse, fine, fine, ACT, NORM, bias=False, dropout=dropout)
        self.head = nn.Conv2d(fine, out_channels, 1)

    def forward(self, slab: torch.Tensor) -> torch.Tensor:
        """Logits `[N, out_channels, H, W]` of the middle slice of a slab `[N, in_channels, 7, H, W]`."""
        _check_slab(slab)
        full = self.stem(slab).squeeze(2)  # [N, fine, H, W]
        half = self.down_1(full)  # [N, coarse, H/2, W/2]
        quarter = self.dense(self.down_2(half))  # [N, dense, H/4, W/4]
        logits: torch.Tensor = self.head(self.up_1(self.up_2(quarter, half), full))
        return logits


def _stem(in_channels: int, width: int, dropout: float) -> nn.Sequential:
    """Convolutions `[N, in_channels, 7, H, W]` -> `[N, width, 1, H, W]`, each of which takes a slice off both ends."""
    return nn.Sequential(
        *(
            Convolution(
                3,
                width if layer else in_channels,
                width,
                kernel_size=3,
                padding=(0, 1, 1),
                act=ACT,
                norm=NORM,
                dropout=dropout,
                bias=False,
            )
            for layer in range(DEPTH // 2)
        )
    )


def _check_slab(slab: torch.Tensor) -> None:
    *_, height, width = slab.shape
    # Instance norm needs two pixels at a quarter of the resolution
    if slab.ndim != 5 or slab.shape[2] != DEPTH or height % 4 or width % 4 or height == width == 4:
        raise ValueError(
            f"models: slab_net needs slabs [N, C, {DEPTH}, H, W] with H and W divisible by 4 and not both 4, got "
            f"{list(slab.shape)}"
        )
