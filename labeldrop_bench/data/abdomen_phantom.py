"""Abdomen phantom for experiments with missing organs, as in SMILE: liver, pancreas and stomach in made-up CT.

Why: Petit, Thome, Charnoz, Hostettler and Soler (Handling missing annotations for semantic segmentation with deep
ConvNets, DLMIA 2018) measured SMILE on 72 CT volumes that are not public. The phantom has their three organs, in
proportion (one large, one middling, one small that is hard to find), among others that look alike and are background.
`_abdomen` says how a patient is made and where the proportions come from.

Patients are made one by one from the seed and their number: the same patient is the same in every split, and for any
number of patients. With two numbers in `size` a sample is one slice of a patient, with three a volume. All organs are
annotated; `[data] hidden` hides some (with `independently`, as the paper does).

The paper averages over five splits of 80 % for training and 20 % for test. `split` goes through them: the pool of train
+ validation + test patients stays, and another part of it is the test split. With `test` a fifth of the pool (the
default), splits 0 to 4 test on every patient once.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt

from labeldrop_bench.data._abdomen import draw_patient
from labeldrop_bench.data.base import Dataset, DatasetInfo, Samples, Side, make_samples, standardise
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import Said

LABEL_SPACE = LabelSpace.of_classes(("background", "liver", "pancreas", "stomach"))


def _listed(size: object) -> object:
    return (size, size) if isinstance(size, int) else size


class AbdomenPhantomOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        size: (height, width) in pixels for slices, or one number for both; (slices, height, width) for volumes. The
            shorter side of a slice is 400 mm, all slices together are 200 mm high.
        train, validation, test: patients, one sample of each.
        split: which part of the patients is the test split; 0 to 4 go through all of them, if `test` is a fifth.
        seed: of the patients; nothing to do with a run's seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: Annotated[
        tuple[Side, ...],
        Field(min_length=2, max_length=3),
        BeforeValidator(_listed),
        Said("a list of two or three whole numbers from 16 up, or one alone for two"),
    ] = (96, 96)
    train: PositiveInt = 200
    validation: PositiveInt = 40
    test: PositiveInt = 60
    split: NonNegativeInt = 0
    seed: NonNegativeInt = 0


def load(options: AbdomenPhantomOptions) -> Dataset:
    """Makes the phantom; all organs are annotated."""
    sizes = (options.test, options.validation, options.train)
    pool = np.roll(np.arange(sum(sizes)), -options.split * options.test)
    test, validation, train = np.split(pool, np.cumsum(sizes)[:-1])
    return Dataset(
        LABEL_SPACE, ("CT",), _samples(options, train), _samples(options, validation), _samples(options, test)
    )


def _samples(options: AbdomenPhantomOptions, numbers: np.ndarray) -> Samples:
    """The patients of these numbers."""
    flat = len(options.size) == 2
    slices, height, width = (1, *options.size) if flat else options.size
    patients = [draw_patient((slices, height, width), np.random.SeedSequence([options.seed, int(i)])) for i in numbers]
    images = torch.from_numpy(np.stack([patient.image for patient in patients]))
    labels = torch.from_numpy(np.stack([patient.labels for patient in patients]))
    if flat:
        images, labels = images[:, 0], labels[:, 0]
    names = [f"patient{i:04d}" for i in numbers]
    annotated = torch.ones(len(names), LABEL_SPACE.num_labels, dtype=torch.bool)
    domain = torch.zeros(len(names), dtype=torch.int64)
    return make_samples(LABEL_SPACE, standardise(images[:, None]), labels, annotated, domain, names, names)


INFO = DatasetInfo(
    name="abdomen_phantom",
    description="CT phantom of the upper abdomen in 2-D or 3-D: liver, pancreas and stomach among similar organs",
    licence="Apache-2.0",
    source="made by labeldrop_bench from a seed",
    options=AbdomenPhantomOptions,
    load=load,
)
