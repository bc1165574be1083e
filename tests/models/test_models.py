from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch

from labeldrop_bench import models


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_networks_keep_the_image_size_and_reach_every_weight(name: str, spatial_dims: int) -> None:
    network = models.create(name, spatial_dims=spatial_dims, in_channels=2, out_channels=5, channels=(4, 8, 12))
    images = torch.randn(2, 2, *(16, 8, 8)[:spatial_dims])
    logits = network(images)
    assert logits.shape == (2, 5, *images.shape[2:])
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_seed_decides_the_weights() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        network = models.create("unet", spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8))
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_an_unknown_network_names_the_closest_one() -> None:
    with pytest.raises(ValueError, match="no network 'unnet'; did you mean 'unet'"):
        models.create("unnet", spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8))


def test_one_level_is_no_unet() -> None:
    with pytest.raises(ValueError, match=r"at least two levels in channels, got \[4\]"):
        models.create("unet", spatial_dims=2, in_channels=1, out_channels=2, channels=(4,))


def test_outside_packages_register_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "torch.nn:Identity", models.GROUP)
    monkeypatch.setattr(models, "entry_points", lambda group: [point] if group == models.GROUP else [])
    assert "theirs" in models.names()
    assert isinstance(
        models.create("theirs", spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8)), torch.nn.Identity
    )
