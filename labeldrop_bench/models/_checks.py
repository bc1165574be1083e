"""What several networks share: refused dimensions and image sizes, and a head without dropout."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

__all__ = ["check_dims", "check_sizes", "never_drop"]


def check_dims(name: str, spatial_dims: int, possible: tuple[int, ...]) -> None:
    """Raise ValueError if the network is not made for images of `spatial_dims` dimensions."""
    if spatial_dims not in possible:
        choice = " or ".join(map(str, possible))
        raise ValueError(f"models: {name} needs spatial_dims to be {choice}, got {spatial_dims}")


def check_sizes(network: nn.Module, name: str, stride: int, instance_norm: bool = False) -> nn.Module:
    """Let a network refuse, before its first layer, image sizes at which it would fail somewhere inside.

    Args:
        network: takes images `[N, C, *spatial]`; it gets a hook, and no parameter or name changes.
        name: of the network, for the message.
        stride: of the coarsest features: each size must be divisible by it.
        instance_norm: there is one behind these features, which cannot normalise a single pixel.

    Returns:
        The network, whose calls raise ValueError.
    """
    network.register_forward_pre_hook(partial(_refuse, name=name, stride=stride, instance_norm=instance_norm))
    return network


def _refuse(_: nn.Module, inputs: tuple[torch.Tensor], *, name: str, stride: int, instance_norm: bool) -> None:
    sizes = inputs[0].shape[2:]
    if any(size % stride for size in sizes):
        raise ValueError(
            f"models: {name} needs image sizes that are divisible by {stride}, got {tuple(sizes)}; crop or pad the "
            "images"
        )
    if instance_norm and all(size == stride for size in sizes):
        raise ValueError(
            f"models: {name} needs image sizes of which one is at least {2 * stride}, got {tuple(sizes)}: a "
            "single pixel is left at the coarsest level, which instance norm cannot normalise; take larger images"
        )


def never_drop(module: nn.Module) -> None:
    """Switch off the dropout in a part of a network, for good: p = 0 in every `nn.Dropout`."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
