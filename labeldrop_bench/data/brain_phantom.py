"""Brain phantom for experiments with label noise: 28 structures, most of them small and in pairs, in made-up MRI.

Why: McKinley et al. (Few-shot brain segmentation from weakly labeled data with deep heteroscedastic multi-task
networks, 2019) train on nine T1-weighted volumes of the ABCD study, which may not be redistributed, with automatic
labels that hold errors. The phantom has their 28 labels, in proportion, and as many volumes; the errors are put in by
`label_noise`, so how many there are, and where, is known. `_brain` says how a subject is made.

The paper's labels of the left and the right half differ. So an augmentation that mirrors images must swap them.

Noise goes into `target` of the training and validation splits, as in the paper, where both have automatic labels.
`truth` is without errors everywhere, and so is `target` of the test split. Images do not depend on it.

Each subject has random numbers of its own, from the seed, the split and its number: more subjects leave those there
were.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from labeldrop_bench.data._brain import NAMES, draw_subject
from labeldrop_bench.data.base import Dataset, DatasetInfo, Samples, Side, make_samples, standardise
from labeldrop_bench.data.label_noise import NoiseOptions, add_noise
from labeldrop_bench.label_space import LabelSpace

LABEL_SPACE = LabelSpace.of_classes(("background", *NAMES))
_SPLITS = ("train", "validation", "test")


class BrainPhantomOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        size: voxels from left to right, back to front, and below to above, of a volume of 160 x 192 x 160 mm. The
            default has voxels of 4 mm, about ten of them in the smallest structure; with fewer some are missing.
        train, validation, test: subjects.
        noise: label errors of training and validation; none by default.
        seed: of the subjects; nothing to do with a run's seed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: tuple[Side, Side, Side] = (40, 48, 40)
    train: PositiveInt = 9
    validation: PositiveInt = 6
    test: PositiveInt = 20
    noise: NoiseOptions = NoiseOptions()
    seed: NonNegativeInt = 0


def load(options: BrainPhantomOptions) -> Dataset:
    """Makes the phantom; all structures are annotated.

    Raises:
        ValueError: `noise.structures` names a label that does not exist, or one twice.
    """
    train, validation, test = (_samples(options, split) for split in range(len(_SPLITS)))
    train, validation = (add_noise(samples, options.noise, NAMES) for samples in (train, validation))
    return Dataset(LABEL_SPACE, ("T1",), train, validation, test)


def _samples(options: BrainPhantomOptions, split: int) -> Samples:
    """Samples of one split, without errors."""
    count: int = getattr(options, _SPLITS[split])
    subjects = [draw_subject(options.size, np.random.SeedSequence([options.seed, split, i])) for i in range(count)]
    images = torch.from_numpy(np.stack([subject.image for subject in subjects])[:, None])
    labels = torch.from_numpy(np.stack([subject.labels for subject in subjects]))
    annotated = torch.ones(count, LABEL_SPACE.num_labels, dtype=torch.bool)
    names = [f"{_SPLITS[split]}-{i:04d}" for i in range(count)]
    domain = torch.zeros(count, dtype=torch.int64)
    return make_samples(LABEL_SPACE, standardise(images), labels, annotated, domain, names, names)


INFO = DatasetInfo(
    name="brain_phantom",
    description="T1 MRI phantom of the brain in 3-D with 28 structures, left and right; `noise` puts errors in labels",
    licence="Apache-2.0",
    source="made by labeldrop_bench from a seed",
    options=BrainPhantomOptions,
    load=load,
)
