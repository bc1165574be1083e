"""What the tests of MONAI's door share: two made-up sources, the second of which has no second class."""

import os

import numpy as np
import pytest
import torch

if "CI" not in os.environ:
    pytest.importorskip("ignite", reason="MONAI is not installed: pip install -c constraints.txt '.[monai]'")

from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from labeldrop_bench.integrations.monai import MarkAnnotatedd

K = 4
LABELS = ["background", "disc", "square"]


def sample(seed, *, source="A", size=24, channels=1):
    """A dictionary of a data list: image and label `[1, size, size]` as float32, MONAI's habit."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    label = np.zeros((size, size), np.float32)
    center = rng.uniform(5, size - 6, 2)
    label[(y - center[0]) ** 2 + (x - center[1]) ** 2 < 16] = 1
    row, column = rng.integers(1, size - 7, 2)
    label[row : row + 5, column : column + 5] = 2
    image = (label + rng.normal(0, 0.3, label.shape)).astype(np.float32)
    image = image if source == "A" else 3 - image
    if source == "B":
        label[label == 2] = 0
    found = {"image": np.stack([image] * channels), "label": label[None]}
    return found if source == "A" else {**found, "annotated": ["disc"]}


def samples(count=4):
    """Of both sources, in turn."""
    return [sample(seed, source="AB"[seed % 2]) for seed in range(count)]


def expected(count=4):
    """What was annotated in `samples`."""
    return torch.tensor([[True, True, seed % 2 == 0] for seed in range(count)])


def batches(loader=DataLoader, before=(), after=(), count=4, **options):
    chain = Compose([*before, MarkAnnotatedd("label", LABELS), *after])
    return loader(Dataset(samples(count), chain), **{"batch_size": count, **options})


def example(channels=K, size=8, samples=3):
    """logits, target as MONAI has it, annotated."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, channels, size, size, generator=generator)
    target = torch.randint(0, K, (samples, 1, size, size), generator=generator).float()
    annotated = torch.ones(samples, K, dtype=torch.bool)
    annotated[1, 2:] = False
    return logits, target, annotated


def value_and_gradient(loss, logits, *rest):
    logits = logits.clone().requires_grad_()
    value = loss(logits, *rest)
    value.backward()
    return value.detach(), logits.grad
