"""What every data set gives: samples, with what is annotated and everything that is known."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, Field
from torch import Tensor

from labeldrop_bench.data.arrays import Images, LabelMaps
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import Said
from labeldrop_bench.text import storable

IGNORED = 255
"""Value of pixels of `target` and `truth` about which nothing is known; they count for nothing."""
VARIABLE = "LABELDROP_DATA"
"""Environment variable: the folder that holds the folders of data sets."""


def _pair(size: object) -> object:
    return (size, size) if isinstance(size, int) else size


Side = Annotated[int, Field(ge=16)]
Size = Annotated[
    tuple[Side, Side],
    BeforeValidator(_pair),
    Said("a list of two whole numbers from 16 up, or one alone for both"),
]
"""Option type of an image size in pixels: (height, width), or one number for both; 16 or more."""


_UNKNOWN = torch.empty(0)


@dataclass(frozen=True)
class Samples:
    """Images with their label maps, which are read when they are asked for, and what is said of them, as CPU tensors.

    Attributes:
        images: [n, channels, *spatial] float32, each channel of each image with mean 0 and standard deviation 1
            (`standardise`), unless the data set says otherwise.
        target: [n, *spatial] uint8, label values as annotated, mistakes included; a label that was not reads
            background (0), and IGNORED pixels say nothing.
        annotated: [n, L] bool, was label value l annotated in this sample? Column 0 is True.
        truth: [n, *spatial] uint8, the class of each pixel as far as anyone knows; IGNORED where nobody does.
        known: [n, K] bool, does `truth` show all of class c? Column 0 is True.
        domain: [n] int64, index into `Dataset.domains`.
        cases: n names, all different in a data set.
        patients: n names; samples of one patient lie in one split.
        spacing: [n, d] float64, millimetres between pixels along each of the d axes of `*spatial`, after whatever
            resizing made the sample; NaN where the files do not say it, which is what leaving it out means.

    Raises:
        TypeError: something of another type, or a tensor of another dtype.
        ValueError: shapes or lengths that do not fit together, or background that is not annotated or known.
    """

    images: Images
    target: LabelMaps
    annotated: Tensor
    truth: LabelMaps
    known: Tensor
    domain: Tensor
    cases: tuple[str, ...]
    patients: tuple[str, ...]
    spacing: Tensor = field(default=_UNKNOWN)

    def __post_init__(self) -> None:
        for name, kind in _READ.items():
            if not isinstance(found := getattr(self, name), kind):
                got = type(found).__name__
                raise TypeError(
                    f"Samples: {name} must be {kind.__name__}, got {got}; {kind.__name__}.of takes a tensor"
                )
        if self.spacing is _UNKNOWN:
            unknown = torch.full((len(self.images), self.images.ndim - 2), torch.nan, dtype=torch.float64)
            object.__setattr__(self, "spacing", unknown)
        for name, dtype in _DTYPES.items():
            if (found := getattr(self, name).dtype) != dtype:
                raise TypeError(f"Samples: {name} must be {dtype}, got {found}")
        n = len(self.images)
        image_shape = (n, *self.images.shape[2:])
        expected = {
            "target": image_shape,
            "truth": image_shape,
            "annotated": (n, self.annotated.shape[-1]),
            "known": (n, self.known.shape[-1]),
            "domain": (n,),
            "spacing": (n, self.images.ndim - 2),
        }
        for name, shape in expected.items():
            if (found := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(
                    f"Samples: {name} must have shape {shape} to fit images of shape {tuple(self.images.shape)}, "
                    f"got {found}"
                )
        for name in ("annotated", "known"):
            if not bool(getattr(self, name)[:, 0].all()):
                raise ValueError(f"Samples: column 0 (background) of {name} must be True in every sample")
        for name in ("cases", "patients"):
            if len(getattr(self, name)) != n:
                raise ValueError(
                    f"Samples: {name} must have one name for each of {n} images, got {len(getattr(self, name))}"
                )
            object.__setattr__(self, name, tuple(map(storable, getattr(self, name))))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> Samples:
        """The samples at some places, `index` being [m] int64."""
        chosen = index.tolist()
        return replace(
            self,
            **{name: getattr(self, name).take(index) for name in _READ},
            **{name: getattr(self, name)[index] for name in _DTYPES},
            cases=tuple(self.cases[i] for i in chosen),
            patients=tuple(self.patients[i] for i in chosen),
        )


_READ = {"images": Images, "target": LabelMaps, "truth": LabelMaps}
_DTYPES = {
    "annotated": torch.bool,
    "known": torch.bool,
    "domain": torch.int64,
    "spacing": torch.float64,
}


@dataclass(frozen=True)
class Dataset:
    """Three splits of one data set. In the test split too, `target` says what was annotated, `truth` all that is known.

    Attributes:
        label_space: K classes and L label values.
        domains: names; `Samples.domain` indexes them.
        train, validation, test: the splits.
        skipped: one sentence for each case that was left out because its files are bad (`skip_bad`), and for files that
            are no case's.

    Raises:
        ValueError: a split that is empty or whose labels, classes or domains are not those of `label_space` and
            `domains`; a case in two places; a patient in two splits.
    """

    label_space: LabelSpace
    domains: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        space = self.label_space
        sizes = {"annotated": space.num_labels, "known": space.num_classes}
        limits = {"target": space.num_labels, "truth": space.num_classes}
        for name, split in self.splits().items():
            if len(split) == 0:
                raise ValueError(f"Dataset: split {name!r} must hold at least one sample, got none")
            for what, columns in sizes.items():
                if (got := getattr(split, what).shape[1]) != columns:
                    raise ValueError(f"Dataset: {what} of split {name!r} must have {columns} columns, got {got}")
            values = {what: getattr(split, what).unique() for what in limits}
            for what, found in {**{k: v[v != IGNORED] for k, v in values.items()}, "domain": split.domain}.items():
                limit = limits.get(what, len(self.domains))
                if found.numel() and (int(found.min()) < 0 or int(found.max()) >= limit):
                    raise ValueError(
                        f"Dataset: {what} of split {name!r} must lie in 0 ... {limit - 1}, "
                        f"got values from {int(found.min())} to {int(found.max())}"
                    )
        _check_names(self)

    def splits(self) -> dict[str, Samples]:
        """The splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def map(self, change: Callable[[Samples], Samples], label_space: LabelSpace | None = None) -> Dataset:
        """A copy with every split changed, and with another label space if one is given."""
        return replace(
            self,
            label_space=label_space or self.label_space,
            train=change(self.train),
            validation=change(self.validation),
            test=change(self.test),
        )


def _check_names(dataset: Dataset) -> None:
    """A case lies in one place, a patient in one split."""
    repeated = [c for c, n in Counter(c for s in dataset.splits().values() for c in s.cases).items() if n > 1]
    if repeated:
        raise ValueError(f"Dataset: cases must have different names, got more than once: {', '.join(repeated[:5])}")
    split_of: dict[str, str] = {}
    for name, split in dataset.splits().items():
        for patient in set(split.patients):
            if (other := split_of.setdefault(patient, name)) != name:
                raise ValueError(f"Dataset: patient {patient!r} must lie in one split, got {other} and {name}")


@dataclass(frozen=True)
class Grid:
    """Of one case as stored: pixels along each axis, millimetres between them (None where its files do not say it)."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """One row of the registry.

    Attributes:
        name: what the `[data]` table calls it.
        description: one line.
        licence, source: of the data, and where to get them.
        options: the data set's own keys of the `[data]` table; unknown keys are an error.
        load: makes the data set from checked options, with all that its owners annotated; `data.edits` hides labels. It
            depends on nothing else, so two runs with the same `[data]` table see the same samples.
        short_name: what a data set with such options is called among others; None: `name`.
        survey: the grids of its cases as their headers tell them, so that data sets which leave `size` (and `spacing`)
            to the files can share one; None if it has none to tell.
    """

    name: str
    description: str
    licence: str
    source: str
    options: type[BaseModel]
    load: Callable[[Any], Dataset]
    short_name: Callable[[Any], str] | None = None
    survey: Callable[[Any], Sequence[Grid]] | None = None


def user_path(path: str | Path) -> Path:
    """A path that somebody wrote into a file or an environment variable, where no shell expands the leading "~"."""
    return Path(path).expanduser()


def find_folder(name: str, root: Path | None, folder: str) -> Path:
    """Where a data set's files are: `root`, or `folder` inside the one that the environment variable names.

    Raises:
        ValueError: neither is given.
        FileNotFoundError: there is no such folder.
    """
    if root is None:
        parent = os.environ.get(VARIABLE)
        if not parent:
            raise ValueError(
                f"{name}: no data folder given. Set {name}'s root to the folder with its files, or the environment "
                f"variable {VARIABLE} to the folder that holds {folder}"
            )
        root = Path(parent) / folder
    root = user_path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: root must be a folder, and there is none at {root}")
    return root


def standardise(images: Tensor) -> Tensor:
    """Images of which each channel has mean 0 and standard deviation 1, each on its own.

    Args:
        images: [n, channels, *spatial] floating point.

    Returns:
        The same shape and dtype: (x - mean) / sd. A constant channel becomes 0; so does one that differs from a
        constant by no more than rounding (sd <= 1e-6 max |x|, eight times float32's resolution): it would be noise.
    """
    axes = tuple(range(2, images.ndim))
    mean = images.mean(dim=axes, keepdim=True)
    sd = images.std(dim=axes, keepdim=True, correction=0)
    constant = sd <= 1e-6 * images.abs().amax(dim=axes, keepdim=True)
    return torch.where(constant, 0, (images - mean) / sd)


def hint(name: str, known: Sequence[str], most: int | None = None) -> str:
    """End of an error message on an unknown name: the closest known name, if one is close, and the known names.

    Args:
        name: the unknown name.
        known: the names that there are.
        most: how many of them to list; None lists all.
    """
    close = get_close_matches(name, known, n=1)
    listed = ", ".join(known[:most]) + (", ..." if most is not None and len(known) > most else "")
    return (f"; did you mean {close[0]!r}?" if close else ".") + f" Known: {listed}"


def make_samples(
    space: LabelSpace,
    images: Images | Tensor,
    labels: LabelMaps | Tensor,
    annotated: Tensor,
    domain: Tensor,
    cases: Sequence[str],
    patients: Sequence[str],
    spacing: Tensor | None = None,
) -> Samples:
    """Samples whose truth is what was annotated.

    Args:
        space: what label values mean.
        images: [n, channels, *spatial] float32; a tensor is taken as it is.
        labels: [n, *spatial] uint8 label values, or IGNORED.
        annotated: [n, L] bool.
        domain: [n] int64 index of each sample's domain.
        cases: n names.
        patients: n names.
        spacing: [n, d] float64 millimetres; None where nobody knows.
    """
    images = Images.of(images) if isinstance(images, Tensor) else images
    labels = LabelMaps.of(labels) if isinstance(labels, Tensor) else labels
    truth, known = labels.mapped(class_lookup(space)), known_classes(space, annotated)
    rest = _UNKNOWN if spacing is None else spacing
    return Samples(images, labels, annotated, truth, known, domain, tuple(cases), tuple(patients), rest)


def class_lookup(space: LabelSpace) -> Tensor:
    """[256] uint8: label value -> its class; IGNORED where a label may be one of several classes."""
    lookup = torch.full((256,), IGNORED, dtype=torch.uint8)
    for value, label in enumerate(space.labels):
        if len(label.classes) == 1:
            (lookup[value],) = label.classes
    return lookup


def known_classes(space: LabelSpace, annotated: Tensor) -> Tensor:
    """[n, K] bool: is all of class c annotated, as a class of its own?

    Args:
        space: what label values mean.
        annotated: [n, L] bool.
    """
    known = torch.zeros(len(annotated), space.num_classes, dtype=torch.bool)
    for value, label in enumerate(space.labels):
        if len(label.classes) == 1 and label.exhaustive:
            known[:, list(label.classes)] |= annotated[:, [value]]
    for value, label in enumerate(space.labels):
        if len(label.classes) > 1:
            known[:, list(label.classes)] &= ~annotated[:, [value]]
    return known
