"""The embedded default: apical echo views made by a generator, in two domains that one number moves apart.

Why: no real multi-centre echo data may be redistributed. The phantom shows the problem that partial labels make across
domains: domain B looks different, lacks a label, and a network may learn "looks like B: there is no LA".

Each image is an anatomy (`_anatomy.RANGES`: every parameter with its range) seen by a scanner of some style
(`_ultrasound.STYLE`: gain, dynamic range, attenuation, haze, resolution, sector angle). Anatomy has one distribution in
all domains. Each style number is sigmoid(shift + N(0, 1)) with shift = -gap in domain A and +gap in domain B, so
`gap` is the only difference between the domains: at 0 there is none, at 1 each style number has two overlapping
distributions (means .30 and .70, standard deviation .18). `domains` names other domains and their shifts in units of
the gap.

Random numbers come from numpy's PCG64, one stream for each of anatomy, style and speckle in each domain and split. So
the hearts stay the same when the gap changes, and the data are the same on every machine (to floating-point rounding).
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator

from labeldrop_bench.data._anatomy import draw_views
from labeldrop_bench.data._ultrasound import STYLE, draw_style, scan
from labeldrop_bench.data.base import Dataset, DatasetInfo, Samples, Size, make_samples, standardise
from labeldrop_bench.label_space import LabelSpace

LABEL_SPACE = LabelSpace.of_classes(("background", "LV", "LVM", "LA"))
_SPLITS = ("train", "validation", "test")


class PhantomOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        size: (height, width) in pixels, or one number for both.
        gap: how far apart the domains are.
        domains: name -> shift of its style numbers in units of `gap`, one for all of them or one for each (in the order
            of `_ultrasound.STYLE`: gain, dynamic range, attenuation, haze, resolution, sector angle).
        train, validation, test: images per domain.
        seed: of the data; nothing to do with a run's seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: Size = (64, 64)
    gap: float = Field(1.0, ge=0, allow_inf_nan=False)
    domains: dict[str, float | tuple[float, ...]] = Field(default={"A": -1.0, "B": 1.0}, min_length=1)
    train: PositiveInt = 160
    validation: PositiveInt = 40
    test: PositiveInt = 60
    seed: NonNegativeInt = 0

    @field_validator("domains")
    @classmethod
    def _one_or_all(cls, domains: dict[str, float | tuple[float, ...]]) -> dict[str, float | tuple[float, ...]]:
        for name, shift in domains.items():
            if isinstance(shift, tuple) and len(shift) != len(STYLE):
                raise ValueError(f"{name} needs one shift, or a list of {len(STYLE)}, got {list(shift)}")
        return domains


def load(options: PhantomOptions) -> Dataset:
    """Makes the phantom; all labels are annotated."""
    train, validation, test = (_split(options, split) for split in range(len(_SPLITS)))
    return Dataset(LABEL_SPACE, tuple(options.domains), train, validation, test)


def _split(options: PhantomOptions, split: int) -> Samples:
    """Samples of one split, domain after domain."""
    count: int = getattr(options, _SPLITS[split])
    images, labels, cases = [], [], []
    for domain, (name, shift) in enumerate(options.domains.items()):
        streams = np.random.SeedSequence([options.seed, split, domain]).spawn(3)
        for_anatomy, for_style, for_speckle = (np.random.default_rng(stream) for stream in streams)
        views = draw_views(count, options.size, for_anatomy)
        style = draw_style(count, np.asarray(shift) * options.gap, for_style)
        images.append(torch.from_numpy(scan(views.echo, style, for_speckle)))
        labels.append(torch.from_numpy(views.labels))
        cases += [f"{name}-{_SPLITS[split]}-{i:04d}" for i in range(count)]
    domain_index = torch.arange(len(options.domains)).repeat_interleave(count)
    pictures, values = standardise(torch.cat(images)[:, None]), torch.cat(labels)
    annotated = torch.ones(len(cases), LABEL_SPACE.num_labels, dtype=torch.bool)
    return make_samples(LABEL_SPACE, pictures, values, annotated, domain_index, cases, cases)


INFO = DatasetInfo(
    name="phantom",
    description="Echo phantom: apical views with LV, LVM and LA in two or more domains; `gap` moves them apart",
    licence="Apache-2.0",
    source="made by labeldrop_bench from a seed",
    options=PhantomOptions,
    load=load,
)
