"""What the network for slabs sees, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labeldrop_bench import models


def _slab_net(channels: tuple[int, ...] = (8, 16, 8)) -> nn.Module:
    torch.manual_seed(0)
    return models.create("slab_net", spatial_dims=3, in_channels=1, out_channels=2, channels=channels)


def _without_norm(network: nn.Module) -> nn.Module:
    """Instance norm sees the whole image, and would hide what the convolutions see."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d | nn.InstanceNorm3d):
                setattr(module, name, nn.Identity())
    return network


def _seen_by_the_middle_pixel(height: int, width: int) -> torch.Tensor:
    """Which pixels `[7, H, W]` of a slab change the logits of the middle pixel of the middle slice."""
    slab = torch.randn(1, 1, 7, height, width, requires_grad=True)
    _without_norm(_slab_net())(slab)[0, :, height // 2, width // 2].sum().backward()
    assert slab.grad is not None
    return slab.grad[0, 0] != 0


@pytest.mark.parametrize(("height", "width"), [(400, 8), (8, 400)])
def test_a_pixel_sees_the_whole_patch_of_the_paper(height: int, width: int) -> None:
    seen = _seen_by_the_middle_pixel(height, width).any(dim=0)
    along = seen.any(dim=int(height > width)).nonzero()
    middle = 200
    assert middle - along.min() >= 98  # the paper's patches have 196 x 196 pixels: 98 to either side
    assert along.max() - middle >= 98
    # and no further than dilations 1 + 2 + 4 + 8 + 16 at stride 4 explain, with the few convolutions around them
    assert along.max() - along.min() < 2 * 31 * 4 + 64


def test_every_slice_counts() -> None:
    assert _seen_by_the_middle_pixel(16, 16).flatten(1).any(dim=1).all()


def test_it_says_how_many_slices_it_takes() -> None:
    assert _slab_net().depth == 7


@pytest.mark.parametrize(
    "shape", [(1, 1, 5, 16, 16), (1, 1, 7, 16, 18), (1, 1, 7, 18, 16), (1, 1, 7, 4, 4), (1, 7, 8, 8)]
)
def test_slabs_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"slabs \[N, C, 7, H, W\] with H and W divisible by 4 and not both 4, got \["):
        _slab_net()(torch.zeros(shape))


def test_it_has_three_widths() -> None:
    with pytest.raises(ValueError, match=r"three widths in channels.*got \[8, 16\]; write for example \[32, 64, 12\]"):
        _slab_net((8, 16))
