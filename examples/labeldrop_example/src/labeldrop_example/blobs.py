"""Bright and dark blobs on a noisy ground; domain B is lighter and noisier than domain A."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from labeldrop_bench import LabelSpace
from labeldrop_bench.data.base import Dataset, DatasetInfo, Samples, make_samples, standardise

SPACE = LabelSpace.of_classes(("background", "bright", "dark"))
DOMAINS = {"A": (0.0, 0.3), "B": (1.0, 0.6)}  # name -> what is added to every pixel, standard deviation of the noise
LEVELS = torch.tensor([0.0, 2.0, -2.0])  # of each class


class BlobOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        size: height and width in pixels.
        train, validation, test: images per domain.
        seed: of the data; nothing to do with a run's seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(32, ge=16)
    train: PositiveInt = 32
    validation: PositiveInt = 8
    test: PositiveInt = 12
    seed: int = 0


def load(options: BlobOptions) -> Dataset:
    """Everything is annotated; a suite hides labels with `hidden`."""
    generator = torch.Generator().manual_seed(options.seed)
    counts = {"train": options.train, "validation": options.validation, "test": options.test}
    splits = {split: _samples(split, count, options.size, generator) for split, count in counts.items()}
    return Dataset(SPACE, tuple(DOMAINS), **splits)


def _samples(split: str, count: int, size: int, generator: torch.Generator) -> Samples:
    labels = torch.stack([_labels(size, generator) for _ in range(count * len(DOMAINS))])  # [n, H, W]
    shift, noise = torch.tensor(list(DOMAINS.values())).repeat_interleave(count, dim=0).T[:, :, None, None]
    images = LEVELS[labels.long()] + shift + noise * torch.randn(labels.shape, generator=generator)
    domain = torch.arange(len(DOMAINS)).repeat_interleave(count)
    cases = [f"{name}-{split}-{i:03}" for name in DOMAINS for i in range(count)]
    annotated = torch.ones(len(cases), SPACE.num_labels, dtype=torch.bool)
    return make_samples(SPACE, standardise(images[:, None]), labels, annotated, domain, cases, cases)


def _labels(size: int, generator: torch.Generator) -> Tensor:
    """[H, W] uint8: a disc of each class, the later one on top."""
    labels = torch.zeros(size, size, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for value in range(1, SPACE.num_labels):
        radius = size // 8 + int(torch.randint(0, size // 8, (), generator=generator))
        row, column = torch.randint(radius, size - radius, (2,), generator=generator)
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = value
    return labels


INFO = DatasetInfo(
    name="blobs",
    description="Bright and dark blobs in two domains of different brightness and noise",
    licence="Apache-2.0",
    source="made by labeldrop_example from a seed",
    options=BlobOptions,
    load=load,
)
