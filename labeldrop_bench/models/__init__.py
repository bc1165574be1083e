"""Networks by name. Nothing heavy is imported before one is asked for.

Another package registers its own through the entry-point group `labeldrop_bench.models`; each entry point names a
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
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Protocol, cast

from labeldrop_bench.plugins import Registry, ours

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GROUP", "REGISTRY", "create", "names"]


class Maker(Protocol):
    """A function that makes a network with fresh weights."""

    def __call__(
        self, *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int], dropout: float
    ) -> nn.Module:
        """As `create`."""


def _accept(point: EntryPoint, found: object) -> Maker:
    if not callable(found):
        raise TypeError(f"must name a function with the signature of labeldrop_bench.models.unet.unet, got {found!r}")
    return cast(Maker, found)


GROUP = "labeldrop_bench.models"
_BUILT_IN = {
    "unet": "labeldrop_bench.models.unet:unet",
    "dynunet": "labeldrop_bench.models.dynunet:dynunet",
    "swin_unetr": "labeldrop_bench.models.swin_unetr:swin_unetr",
    "slab_net": "labeldrop_bench.models.slab_net:slab_net",
}
REGISTRY = Registry[Maker]("network", GROUP, {name: ours(value) for name, value in _BUILT_IN.items()}, _accept)


def names() -> tuple[str, ...]:
    """Names of all networks: ours, then those of other packages."""
    return REGISTRY.names()


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
        PluginError: a network of another package that cannot be used.
    """
    make = REGISTRY.get(name)
    if len(channels) < 2:
        raise ValueError(f"models: {name} needs the widths of at least two levels in channels, got {list(channels)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"models: {name} needs dropout to be at least 0 and below 1, got {dropout}")
    return make(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=tuple(channels),
        dropout=dropout,
    )
