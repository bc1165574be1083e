from __future__ import annotations

import io
from typing import NamedTuple

import pytest
import torch
from torch import nn

from labeldrop_bench import models


class Case(NamedTuple):
    """A network, small, and images that it takes."""

    name: str
    channels: tuple[int, ...]
    dropouts: int  # nn.Dropout modules with p > 0, counted by hand from the network's description
    images: tuple[int, ...]  # [N, C, *spatial]
    logits: tuple[int, ...]  # [N, K, *spatial]

    def make(self, dropout: float = 0.0) -> nn.Module:
        torch.manual_seed(0)
        return models.create(
            self.name,
            spatial_dims=len(self.images) - 2,
            in_channels=self.images[1],
            out_channels=self.logits[1],
            channels=self.channels,
            dropout=dropout,
        )

    def draw(self) -> torch.Tensor:
        return torch.randn(self.images, generator=torch.Generator().manual_seed(1))


LEVELS = (4, 8, 12)
WIDTHS = (12, 24, 48, 96, 192)  # the smallest
CASES = [
    # Three residual units on the way down, two modules in the one on the way up, none in the last
    Case("unet", LEVELS, 5, (2, 2, 16), (2, 5, 16)),
    Case("unet", LEVELS, 5, (2, 2, 16, 8), (2, 5, 16, 8)),
    Case("unet", LEVELS, 5, (2, 2, 16, 8, 8), (2, 5, 16, 8, 8)),
    # Two convolutions in each of five blocks, and one before each of the two blocks on the way up
    Case("dynunet", LEVELS, 12, (2, 2, 16, 8), (2, 5, 16, 8)),
    Case("dynunet", LEVELS, 12, (2, 2, 16, 8, 8), (2, 5, 16, 8, 8)),
    # One behind the embedding; in each of eight blocks, one behind the attention and one that the MLP uses twice
    Case("swin_unetr", WIDTHS, 17, (1, 2, 64, 32), (1, 5, 64, 32)),
    Case("swin_unetr", WIDTHS, 17, (1, 2, 64, 32, 32), (1, 5, 64, 32, 32)),
    # Three 3-D convolutions, two on each of four levels up or down, five dense layers
    Case("slab_net", (8, 16, 8), 16, (2, 2, 7, 16, 8), (2, 5, 16, 8)),
]


def _with(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: f"{case.name}-{len(case.images) - 2}d")


every_network = _with(CASES)
# The smallest images that Swin UNETR takes in three dimensions cost a second a step: not where two dimensions will do
every_quick_network = _with([case for case in CASES if case.images != (1, 2, 64, 32, 32)])


def _dropouts(network: nn.Module) -> list[nn.Dropout]:
    return [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p > 0]


def test_every_network_is_tested() -> None:
    assert {case.name for case in CASES} == set(models.names())


@every_network
def test_logits_have_their_shape_and_every_weight_gets_a_gradient(case: Case) -> None:
    network = case.make()
    logits = network(case.draw())
    assert logits.shape == case.logits
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@every_network
def test_dropout_is_real_and_stops_in_eval_mode(case: Case) -> None:
    network = case.make(dropout=0.5)
    assert [module.p for module in _dropouts(network)] == [0.5] * case.dropouts
    images = case.draw()
    with torch.no_grad():
        logits = network.train()(images)
        assert not torch.equal(logits, network(images))
        assert (logits != 0).all()  # half of them would be zero if the logits themselves were dropped
        network.eval()
        assert torch.equal(network(images), network(images))


@every_quick_network
def test_without_dropout_nothing_is_random_and_the_weights_are_the_same(case: Case) -> None:
    network = case.make()
    assert _dropouts(network) == []
    images = case.draw()
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
    dropping = case.make(dropout=0.5).state_dict()
    # Batch norm has seen images by now
    assert all(torch.equal(p, dropping[name]) for name, p in network.named_parameters())


@every_quick_network
def test_weights_survive_a_file(case: Case) -> None:
    network = case.make(dropout=0.5).eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = case.make()
    for weight in other.parameters():
        nn.init.zeros_(weight)
    other.load_state_dict(torch.load(file, weights_only=True))
    images = case.draw()
    with torch.no_grad():
        assert torch.equal(network(images), other.eval()(images))


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
    with pytest.raises(ValueError, match=r"dynunet needs the widths of at least three levels .* got \[4, 8\]"):
        models.create("dynunet", spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_is_one(p: float) -> None:
    with pytest.raises(ValueError, match=f"unet needs dropout to be at least 0 and below 1, got {p}"):
        models.create("unet", spatial_dims=2, in_channels=1, out_channels=2, channels=(4, 8), dropout=p)


@pytest.mark.parametrize(
    ("name", "spatial_dims", "message"),
    [
        ("unet", 4, "unet needs spatial_dims to be 1 or 2 or 3, got 4"),
        ("dynunet", 1, "dynunet needs spatial_dims to be 2 or 3, got 1"),
        ("swin_unetr", 1, "swin_unetr needs spatial_dims to be 2 or 3, got 1"),
        ("slab_net", 2, "slab_net needs spatial_dims to be 3, got 2"),
    ],
)
def test_dimensions_that_a_network_is_not_made_for(name: str, spatial_dims: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create(name, spatial_dims=spatial_dims, in_channels=1, out_channels=2, channels=(4, 8, 12))


@pytest.mark.parametrize(
    ("name", "channels", "size", "message"),
    [
        ("unet", LEVELS, (18, 16), r"unet needs image sizes that are divisible by 4, got \(18, 16\)"),
        ("dynunet", LEVELS, (16, 18), r"dynunet needs image sizes that are divisible by 4, got \(16, 18\)"),
        (
            "dynunet",
            LEVELS,
            (4, 4),
            r"dynunet needs image sizes of which one is at least 8, got \(4, 4\): a single",
        ),
        ("swin_unetr", WIDTHS, (64, 48), r"swin_unetr needs image sizes that are divisible by 32, got \(64, 48\)"),
        ("swin_unetr", WIDTHS, (32, 32), r"swin_unetr needs image sizes of which one is at least 64, got \(32, 32\)"),
    ],
)
def test_sizes_that_would_fail_deep_inside(
    name: str, channels: tuple[int, ...], size: tuple[int, ...], message: str
) -> None:
    network = models.create(name, spatial_dims=2, in_channels=1, out_channels=2, channels=channels)
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(
    ("channels", "proposed"),
    [
        ((16, 32, 64), [24, 48, 96, 192, 384]),  # 24 is the next multiple of 12
        ((24, 48, 96, 192, 300), [24, 48, 96, 192, 384]),
        ((0, 0, 0, 0, 0), [12, 24, 48, 96, 192]),
    ],
)
def test_swin_unetr_says_which_widths_to_write(channels: tuple[int, ...], proposed: list[int]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the whole message is compared
        models.create("swin_unetr", spatial_dims=2, in_channels=1, out_channels=2, channels=channels)
    assert str(caught.value).endswith(f"got {list(channels)}; write {proposed}")
