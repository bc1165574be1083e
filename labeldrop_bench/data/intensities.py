"""From stored intensities to those that a network sees, by nnU-Net's schemes.

| scheme | a value x of a channel becomes |
|---|---|
| zscore | (x - mean) / sd of the channel in this image; 0 where it is constant |
| ct | (clip(x, p0.5, p99.5) - mean) / sd, percentiles, mean and sd of the labelled voxels of all training images |
| nonorm | x |
| rescale_to_0_1 | (x - min) / (max - min) of the channel in this image |
| rgb_to_0_1 | x / 255 |

nnU-Net chooses by the channel's name (github.com/MIC-DKFZ/nnUNet, documentation/explanation_normalization.md); a name
that is none of these is `zscore`. What differs here:

- `ct` looks at the training split alone, where nnU-Net looks at all of imagesTr, its validation cases among them; and
  at voxels of labels that training sees, so that hidden labels tell nothing. Ignored voxels are left out.
- It looks at voxels after resampling and cutting to size, `case_file.SAMPLED` of each case, evenly spaced; nnU-Net
  draws them at random before resampling. As there, each case counts alike.
- `zscore` is over the whole image. nnU-Net leaves out what is zero around a brain, where that is a lot.

Of a `combined` data set the statistics of `ct` are those of all sources together. Were they each source's own, one
Hounsfield unit would mean something else in each: a domain shift that the benchmark itself would make.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from labeldrop_bench.data.base import IGNORED, Dataset, Samples
from labeldrop_bench.data.case_file import SAMPLED, SCHEMES, Scheme

MOST = 10_000_000
"""Voxels that the statistics of a channel are taken from; of more, as many of each case."""


def scheme_of(channel_name: str) -> Scheme:
    """The scheme that nnU-Net takes for a channel; capitals and small letters are the same to it."""
    name = channel_name.casefold()
    by_name: dict[str, Scheme] = {**{scheme: scheme for scheme in SCHEMES}, "rescale_0_1": "rescale_to_0_1"}
    return by_name.get(name, "zscore")


def pool(dataset: Dataset) -> Dataset:
    """The data set with the intensities of its `ct` channels scaled by the statistics of its training split.

    Raises:
        ValueError: an image has such a channel, and no training image with one shows a label there.
    """
    splits = dataset.splits().values()
    channels = torch.stack([samples.images.pooled.any(0) for samples in splits]).any(0)
    rows = {c: _statistics(dataset.train, c) for c in channels.nonzero().flatten().tolist()}

    def of(samples: Samples) -> Samples:
        scaling = samples.images.scaling.clone()
        for c, row in rows.items():
            scaling[samples.images.pooled[:, c], c] = row
        return replace(samples, images=samples.images.scaled(scaling))

    return dataset.map(of) if rows else dataset


def _statistics(train: Samples, channel: int) -> Tensor:
    """[4]: low, high, shift and divisor of a channel, from labelled voxels of the training images that have it."""
    cases = train.images.pooled[:, channel].nonzero().flatten().tolist()
    every = math.ceil(len(cases) * SAMPLED / MOST)
    found = [np.empty(0, np.float32)]
    for i in cases:
        values, labels = train.images.foreground(i)
        seen = train.target.table[i].numpy()[labels]
        found.append(values[channel, (seen > 0) & (seen != IGNORED)][::every])
    voxels = np.concatenate(found)
    if not len(voxels):
        raise ValueError(
            f"normalisation: channel {channel} is CT, which is scaled by the labelled voxels of the training images "
            f"that have it, and {f'none of {len(cases)} shows a label' if cases else 'there is none'}; train on images "
            f'that have one, or set normalisation = "zscore"'
        )
    low, high = np.percentile(voxels, (0.5, 99.5))
    mean, sd = voxels.mean(dtype=np.float64), voxels.std(dtype=np.float64)
    return torch.tensor([low, high, mean, max(sd, 1e-8)], dtype=torch.float32)
