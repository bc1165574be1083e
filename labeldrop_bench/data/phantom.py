"""The embedded default: apical echo views made by a generator, in two domains that one number moves apart.

Why: no real multi-centre echo data may be redistributed. The phantom shows the problem that partial labels make across
domains: domain B looks different, lacks a label, and a network may learn "looks like B: there is no LA".

Each image is an anatomy (`_anatomy.RANGES`: every parameter with its range) seen by a scanner of some style
(`_ultrasound.STYLE`: gain, dynamic range, attenuation, haze, resolution, sector angle). Anatomy has one distribution in
both domains. Each style number is sigmoid(shift + N(0, 1)) with shift = -gap in domain A and +gap in domain B, so
`gap` is the only difference between the domains: at 0 there is none, at 1 each style number has two overlapping
distributions (means .30 and .70, standard deviation .18).

Random numbers come from numpy's PCG64, one stream for each of anatomy, style and speckle in each domain and split. So
the hearts stay the same when the gap changes, and the data are the same on every machine (to floating-point rounding).
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from labeldrop_bench.data._anatomy import draw_views
from labeldrop_bench.data._ultrasound import draw_style, scan
from labeldrop_bench.data.base import Dataset, DatasetInfo, Drawn, Samples, Size, draw, drawn_table, standardise
from labeldrop_bench.label_space import LabelSpace

LABEL_SPACE = LabelSpace.of_classes(("background", "LV", "LVM", "LA"))
DOMAINS = ("A", "B")
_SPLITS = ("train", "validation", "test")


class PhantomOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        size: (height, width) in pixels, or one number for both.
        gap: how far apart the domains are.
        train, validation, test: images per domain.
        seed: of the data; nothing to do with a run's seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: Size = (64, 64)
    gap: float = Field(1.0, ge=0, allow_inf_nan=False)
    train: PositiveInt = 160
    validation: PositiveInt = 40
    test: PositiveInt = 60
    seed: NonNegativeInt = 0


def load(options: PhantomOptions, drawn: Drawn) -> Dataset:
    """Makes the phantom. All labels have ground truth; `drawn` decides what `target` shows.

    Raises:
        ValueError: `drawn` names a domain or a label that does not exist.
    """
    table = drawn_table(LABEL_SPACE, DOMAINS, drawn)
    train, validation, test = (_split(options, split, table) for split in range(len(_SPLITS)))
    return Dataset(LABEL_SPACE, DOMAINS, train, validation, test)


def _split(options: PhantomOptions, split: int, drawn: torch.Tensor) -> Samples:
    """Samples of one split: those of domain A, then those of domain B."""
    count: int = getattr(options, _SPLITS[split])
    images, truth = [], []
    for domain, sign in enumerate((-1, 1)):
        streams = np.random.SeedSequence([options.seed, split, domain]).spawn(3)
        for_anatomy, for_style, for_speckle = (np.random.default_rng(stream) for stream in streams)
        views = draw_views(count, options.size, for_anatomy)
        style = draw_style(count, sign * options.gap, for_style)
        images.append(torch.from_numpy(scan(views.echo, style, for_speckle)))
        truth.append(torch.from_numpy(views.labels))
    domain_index = torch.arange(len(DOMAINS)).repeat_interleave(count)
    return draw(standardise(torch.cat(images)[:, None]), torch.cat(truth), domain_index, drawn)


INFO = DatasetInfo(
    name="phantom",
    description="Echo phantom: apical views with LV, LVM and LA in two domains; `gap` moves them apart",
    licence="Apache-2.0",
    source="made by labeldrop_bench from a seed",
    options=PhantomOptions,
    load=load,
)
