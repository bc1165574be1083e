"""Suites and data small enough to train in a fraction of a second, for the tests of the harness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from labeldrop_bench.checkpoints import Fit
from labeldrop_bench.data.base import Dataset, Samples, make_samples
from labeldrop_bench.data.edits import hide
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import HiddenConfig, RunConfig, SuiteConfig

TOML = """
name = "tiny"
title = "Tiny"
seeds = [0]
[data]
name = "phantom"
size = 16
train = 4
validation = 2
test = 3
hidden.B = ["LA"]
[model]
channels = [4, 8]
[training]
epochs = 2
batch_size = 4
precision = "32-true"
[augmentation]
probability = 0.0
[[strategies]]
name = "full"
loss = "ce"
full_labels = true
[[strategies]]
name = "adaptive"
loss = "adaptive_ce"
dropout = 0.5
dropout_classes = ["LA"]
"""


def write_suite(folder: Path, text: str = TOML) -> str:
    """Path of a suite file."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return str(path)


def run_config(strategy: dict[str, Any] | None = None, **tables: dict[str, Any]) -> RunConfig:
    """One run; `tables` change keys of the suite's tables."""
    suite = {
        "name": "tiny",
        "title": "Tiny",
        "data": {"name": "made up"},
        "model": {"channels": [4, 8]},
        "patches": {},
        "training": {"epochs": 3, "batch_size": 4, "precision": "32-true"},
        "augmentation": {"probability": 0.0},
        "scoring": {},
    }
    merged = {
        key: {**value, **tables.get(key, {})} if isinstance(value, dict) else value for key, value in suite.items()
    }
    strategies = [strategy or {"name": "adaptive", "loss": "adaptive_ce"}]
    return SuiteConfig.model_validate({**merged, "strategies": strategies}).runs()[0]


def discs(n: int = 6, size: int = 16, depth: int | None = None) -> Dataset:
    """Two domains, bright discs of class 1 and dark ones of class 2, which is hidden in domain B.

    Args:
        n: images of each domain in each split.
        size: height and width.
        depth: makes volumes of so many slices, all alike but for their noise; None makes images.
    """
    space, domains = LabelSpace.of_classes(("background", "bright", "dark")), ("A", "B")
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    generator = torch.Generator().manual_seed(1)

    def split(name: str) -> Samples:
        truth = torch.zeros(2 * n, size, size, dtype=torch.uint8)
        for image in truth:
            for label in (1, 2):
                row, column = torch.randint(4, size - 4, (2,), generator=generator)
                image[(y - row) ** 2 + (x - column) ** 2 <= 9] = label
        if depth is not None:
            truth = truth[:, None].repeat(1, depth, 1, 1)
        level = torch.tensor([0.0, 2.0, -2.0])[truth.long()]
        images = (level + 0.3 * torch.randn(level.shape, generator=generator))[:, None]
        everything = torch.ones(2 * n, 3, dtype=torch.bool)
        cases = [f"{name}-{i}" for i in range(2 * n)]
        return make_samples(space, images, truth, everything, torch.arange(2).repeat_interleave(n), cases, cases)

    dataset = Dataset(space, domains, split("train"), split("validation"), split("test"))
    return hide(dataset, HiddenConfig(labels=("dark",), domains=("B",)))


def same_weights(one: Fit, other: Fit) -> bool:
    """Whether two fits chose the very same weights, bit for bit."""
    return one.weights.keys() == other.weights.keys() and all(
        torch.equal(weight, other.weights[name]) for name, weight in one.weights.items()
    )
