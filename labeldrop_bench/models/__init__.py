"""Networks by name. Nothing heavy is imported before one is asked for.

A package outside registers its own through the entry-point group `labeldrop_bench.models`; each entry point names a
function with the signature of `labeldrop_bench.models.unet.unet`:

    [project.entry-points."labeldrop_bench.models"]
    my_network = "my_package.networks:my_network"

DeepLab v3+, the kind of network behind SMILE's results, is not built in. The maintained one, of
segmentation_models_pytorch, needs torchvision, and PyPI's (0.28.0 for torch 2.13.0) does not import beside a torch that
is built for the CPU alone: "operator torchvision::nms does not exist". Where the two match, it is such a function (2-D,
image sizes divisible by 16, two images or more a step):

    def deeplab(*, spatial_dims, in_channels, out_channels, channels, dropout=0.0):
        return segmentation_models_pytorch.DeepLabV3Plus(
            "resnet50", encoder_weights=None, in_channels=in_channels, classes=out_channels,
            decoder_channels=channels[-1], decoder_aspp_dropout=dropout,
        )
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GROUP", "create", "names"]

GROUP = "labeldrop_bench.models"
_BUILT_IN = {
    "unet": "labeldrop_bench.models.unet:unet",
    "dynunet": "labeldrop_bench.models.dynunet:dynunet",
    "swin_unetr": "labeldrop_bench.models.swin_unetr:swin_unetr",
    "slab_net": "labeldrop_bench.models.slab_net:slab_net",
}


def _registered() -> dict[str, EntryPoint]:
    ours = {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}
    return {**{entry.name: entry for entry in entry_points(group=GROUP)}, **ours}


def names() -> tuple[str, ...]:
    """Names of all networks, built in and registered from outside, in alphabetical order."""
    return tuple(sorted(_registered()))


def create(
    name: str,
    *,
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    channels: Sequence[int],
    dropout: float = 0.0,
) -> nn.Module:
    """Make a network with fresh weights, drawn from torch's default generator.

    Args:
        name: one of `names()`.
        spatial_dims: of the images: 1, 2 or 3, as far as the network is made for them.
        in_channels: of the images.
        out_channels: what the loss asks for (`loss.out_channels`).
        channels: widths, from the finest resolution to the coarsest. The network says how many it needs and of what.
        dropout: probability that a feature is set to zero while the `nn.Dropout` modules are in training mode, at least
            0 and below 1. The weights that are drawn do not depend on it. Logits are never dropped.

    Returns:
        A module from images `[N, in_channels, *spatial]` to logits `[N, out_channels, *spatial]`; from slabs of slices
        `[N, in_channels, 7, H, W]` to logits `[N, out_channels, H, W]` for `slab_net`.

    Raises:
        ValueError: no such network (names the closest one), or dimensions, widths or a probability that it refuses.
    """
    registered = _registered()
    if name not in registered:
        close = get_close_matches(name, registered, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"models: there is no network {name!r}{hint} Known: {', '.join(names())}")
    if len(channels) < 2:
        raise ValueError(f"models: {name} needs the widths of at least two levels in channels, got {list(channels)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"models: {name} needs dropout to be at least 0 and below 1, got {dropout}")
    module: nn.Module = registered[name].load()(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=tuple(channels),
        dropout=dropout,
    )
    return module
