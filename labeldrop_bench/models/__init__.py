"""Networks by name. Nothing heavy is imported before one is asked for.

A package outside registers its own through the entry-point group `labeldrop_bench.models`; each entry point names a
function with the signature of `labeldrop_bench.models.unet.unet`:

    [project.entry-points."labeldrop_bench.models"]
    my_network = "my_package.networks:my_network"
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
}


def _registered() -> dict[str, EntryPoint]:
    ours = {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}
    return {**{entry.name: entry for entry in entry_points(group=GROUP)}, **ours}


def names() -> tuple[str, ...]:
    """Names of all networks, built in and registered from outside, in alphabetical order."""
    return tuple(sorted(_registered()))


def create(name: str, *, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int]) -> nn.Module:
    """Make a network with fresh weights, drawn from torch's default generator.

    Args:
        name: one of `names()`.
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        out_channels: what the loss asks for (`loss.out_channels`).
        channels: width of each resolution level, from the finest to the coarsest.

    Returns:
        A module from images `[N, in_channels, *spatial]` to logits `[N, out_channels, *spatial]`.

    Raises:
        ValueError: no such network (names the closest one), or widths that it refuses.
    """
    registered = _registered()
    if name not in registered:
        close = get_close_matches(name, registered, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"models: there is no network {name!r}{hint} Known: {', '.join(names())}")
    if len(channels) < 2:
        raise ValueError(f"models: {name} needs the widths of at least two levels in channels, got {list(channels)}")
    module: nn.Module = registered[name].load()(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, channels=tuple(channels)
    )
    return module
