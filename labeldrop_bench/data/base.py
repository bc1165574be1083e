"""What every data set gives: samples in memory, with what was drawn and everything that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, Field
from torch import Tensor

from labeldrop_bench.label_space import LabelSpace

Drawn = Mapping[str, Sequence[str]]
"""Domain -> names of the foreground labels drawn there. A domain that is not named has all of them."""


def _pair(size: object) -> object:
    return (size, size) if isinstance(size, int) else size


Side = Annotated[int, Field(ge=16)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_pair)]
"""Option type of an image size in pixels: (height, width), or one number for both; 16 or more."""


@dataclass(frozen=True)
class Samples:
    """Images with their label maps, as CPU tensors.

    Attributes:
        images: [n, channels, *spatial] float32, each image with mean 0 and standard deviation 1 (`standardise`).
        target: [n, *spatial] uint8, label values as drawn; a label that was not drawn reads background (0).
        annotated: [n, L] bool, was label value l drawn in this sample? Column 0 is True.
        truth: [n, *spatial] uint8, all ground truth there is.
        truth_annotated: [n, L] bool, which labels have ground truth. Column 0 is True.
        domain: [n] int64, index into `Dataset.domains`.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: shapes that do not fit together, or background that is not annotated.
    """

    images: Tensor
    target: Tensor
    annotated: Tensor
    truth: Tensor
    truth_annotated: Tensor
    domain: Tensor

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            if (found := getattr(self, name).dtype) != dtype:
                raise TypeError(f"Samples: {name} must be {dtype}, got {found}")
        if self.images.ndim < 3:
            raise ValueError(f"Samples: images must be [n, channels, *spatial], got shape {tuple(self.images.shape)}")
        n, labels = len(self.images), self.annotated.shape[-1]
        image_shape = (n, *self.images.shape[2:])
        expected = {
            "target": image_shape,
            "truth": image_shape,
            "annotated": (n, labels),
            "truth_annotated": (n, labels),
            "domain": (n,),
        }
        for name, shape in expected.items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(
                    f"Samples: {name} must have shape {shape} to fit images of shape {tuple(self.images.shape)}, "
                    f"got {found}"
                )
        for name in ("annotated", "truth_annotated"):
            if not bool(getattr(self, name)[:, 0].all()):
                raise ValueError(f"Samples: column 0 (background) of {name} must be True in every sample")

    def __len__(self) -> int:
        return len(self.images)


_DTYPES = {
    "images": torch.float32,
    "target": torch.uint8,
    "annotated": torch.bool,
    "truth": torch.uint8,
    "truth_annotated": torch.bool,
    "domain": torch.int64,
}


@dataclass(frozen=True)
class Dataset:
    """Three splits of one data set. In the test split too, `target` says what was drawn and `truth` everything.

    Attributes:
        label_space: K classes and L label values.
        domains: names; `Samples.domain` indexes them.
        train, validation, test: the splits.

    Raises:
        ValueError: a split that is empty or whose labels or domains are not those of `label_space` and `domains`.
    """

    label_space: LabelSpace
    domains: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples

    def __post_init__(self) -> None:
        num_labels = self.label_space.num_labels
        for name in ("train", "validation", "test"):
            split: Samples = getattr(self, name)
            if len(split) == 0:
                raise ValueError(f"Dataset: split {name!r} must hold at least one sample, got none")
            if split.annotated.shape[1] != num_labels:
                raise ValueError(
                    f"Dataset: annotated of split {name!r} must have {num_labels} columns, one for each label, "
                    f"got {split.annotated.shape[1]}"
                )
            for what, limit in (("target", num_labels), ("truth", num_labels), ("domain", len(self.domains))):
                values: Tensor = getattr(split, what)
                if int(values.min()) < 0 or int(values.max()) >= limit:
                    raise ValueError(
                        f"Dataset: {what} of split {name!r} must lie in 0 ... {limit - 1}, "
                        f"got values from {int(values.min())} to {int(values.max())}"
                    )


@dataclass(frozen=True)
class DatasetInfo:
    """One row of the registry.

    Attributes:
        name: what the `[data]` table calls it.
        description: one line.
        licence, source: of the data.
        options: the data set's own keys of the `[data]` table; unknown keys are an error.
        load: makes the data set from checked options and from what is drawn where. It depends on nothing else, so
            two runs with the same `[data]` table see the same samples.
    """

    name: str
    description: str
    licence: str
    source: str
    options: type[BaseModel]
    load: Callable[[Any, Drawn], Dataset]


def standardise(images: Tensor) -> Tensor:
    """Images with mean 0 and standard deviation 1, each on its own.

    Args:
        images: [n, channels, *spatial] floating point.

    Returns:
        The same shape and dtype: (x - mean) / max(sd, 1e-6); a constant image becomes 0.
    """
    axes = tuple(range(1, images.ndim))
    mean = images.mean(dim=axes, keepdim=True)
    sd = images.std(dim=axes, keepdim=True, correction=0)
    return (images - mean) / sd.clamp_min(1e-6)


def hint(name: str, known: Sequence[str]) -> str:
    """End of an error message on an unknown name: the closest known name, if one is close, and all known names."""
    close = get_close_matches(name, known, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ".") + f" Known: {', '.join(known)}"


def drawn_table(label_space: LabelSpace, domains: Sequence[str], drawn: Drawn) -> Tensor:
    """Which labels are drawn in which domain, [domains, L] bool; background always is.

    Raises:
        ValueError: `drawn` names a domain or a foreground label that does not exist, or a label twice.
    """
    names = [label.name for label in label_space.labels]
    table = torch.ones(len(domains), len(names), dtype=torch.bool)
    for domain, labels in drawn.items():
        if domain not in domains:
            raise ValueError(f"drawn: there is no domain {domain!r}{hint(domain, domains)}")
        if len(set(labels)) != len(labels):
            raise ValueError(f"drawn: the labels of domain {domain!r} must all differ, got {list(labels)}")
        for label in labels:
            if label not in names[1:]:
                raise ValueError(f"drawn: domain {domain!r} has no label {label!r}{hint(label, names[1:])}")
        table[domains.index(domain), 1:] = torch.tensor([name in labels for name in names[1:]])
    return table


def draw(images: Tensor, truth: Tensor, domain: Tensor, drawn: Tensor) -> Samples:
    """Samples whose every label has ground truth, of which only some are drawn.

    Args:
        images: [n, channels, *spatial] float32.
        truth: [n, *spatial] uint8 label values.
        domain: [n] int64 index of each sample's domain.
        drawn: [domains, L] bool (`drawn_table`).

    Returns:
        Samples with target = truth where the pixel's label is drawn in the sample's domain, else background.
    """
    annotated = drawn[domain]
    values = truth.flatten(1).long()
    target = (values * annotated.gather(1, values)).to(torch.uint8).view_as(truth)
    return Samples(images, target, annotated, truth, torch.ones_like(annotated), domain)
