"""Image-mask folders: `images/` and `masks/` with the same PNG file names.

How a picture becomes a sample: grey by ITU-R 601 luma (Pillow's "L"), resized (image: bilinear, averaging over the
pixels that shrink into one; mask: nearest) without keeping the aspect ratio, scaled to [0, 1], standardised on its own.
Scores of a model refer to the resized masks.

A folder says nothing about who drew what, so every label counts as drawn by its owners, and `drawn` hides labels.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, field_validator, model_validator

from labeldrop_bench.data.base import Dataset, DatasetInfo, Drawn, Size, draw, drawn_table, standardise
from labeldrop_bench.data.split import grouped_split
from labeldrop_bench.label_space import LabelSpace

VARIABLE = "LABELDROP_DATA"
_PIXEL_SIZE = re.compile(r"\d+x\d+")
_IMAGE_MODES = ("1", "L", "P", "RGB", "RGBA")
_MASK_MODES = ("1", "L", "P")
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on broken files

Value = Annotated[int, Field(ge=1, le=255)]
Selectors = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class FolderOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        root: folder that holds `images/` and `masks/`.
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        labels: name -> value in the masks (1 ... 255), in the order of the classes; background is 0.
        size: (height, width) of the samples in pixels, or one number for both.
        domains: name -> selectors, each an image size "WIDTHxHEIGHT" as stored or a glob pattern on the file name.
            Files that no domain selects are left out.
        group: regular expression on the file name; files for which its first group (the whole match if it has none)
            is the same stay in one split. By default each file is a group of its own.
        together: lists of file names without ".png" that also stay in one split, with their groups.
        validation, test: fractions of each domain's images; training takes the rest.
        seed: of the split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    root: Path | None = None
    folder: str | None = None
    labels: dict[str, Value] = Field(min_length=1)
    size: Size = (128, 128)
    domains: dict[str, Selectors] = Field(default={"all": ("*",)}, min_length=1)
    group: str | None = None
    together: tuple[tuple[str, ...], ...] = ()
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.3, gt=0, lt=1)
    seed: NonNegativeInt = 0

    @field_validator("group")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"group must be a regular expression, got {pattern!r}: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _fits(self) -> FolderOptions:
        values = list(self.labels.values())
        if len(set(values)) != len(values) or "background" in self.labels:
            raise ValueError(f"labels must have different values and leave background out, got {self.labels}")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must leave something to training (be below 1), got {self.validation} + {self.test}"
            )
        return self

    def find_root(self) -> Path:
        """The folder that holds `images/` and `masks/`.

        Raises:
            ValueError: neither `root` nor the environment variable is set.
            FileNotFoundError: the folder, or one of the two in it, is not there.
        """
        root = self.root
        if root is None:
            parent = os.environ.get(VARIABLE)
            if not parent:
                raise ValueError(
                    f"folder: no data folder given. Set data.root to the folder that holds images/ and masks/, "
                    f"or the environment variable {VARIABLE} to the folder that holds {self.folder or 'these two'}"
                )
            root = Path(parent) / (self.folder or "")
        missing = [str(path) for path in (root / "images", root / "masks") if not path.is_dir()]
        if missing:
            raise FileNotFoundError(
                f"folder: root must hold the folders images/ and masks/; not there: {', '.join(missing)}"
            )
        return root


@dataclass(frozen=True)
class _Picture:
    """One image with its mask, as read: grey [H, W] and label values [H, W], both uint8."""

    name: str
    domain: int
    grey: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load(options: FolderOptions, drawn: Drawn) -> Dataset:
    """Reads the folder.

    Raises:
        ValueError: no data folder given; `drawn` names a domain or label that does not exist; or files that do not fit,
            all of them listed: image without mask or mask without image, unreadable file, other pixel format,
            mask of another size, label value that `labels` lacks, file in two domains or without a group, same pixels
            in two groups, a domain without files or with too few groups for three splits.
        FileNotFoundError: a folder that is not there.
    """
    label_space = LabelSpace.of_classes(("background", *options.labels))
    domains = tuple(options.domains)
    table = drawn_table(label_space, domains, drawn)
    root = options.find_root()
    pictures = _read_all(root, options)
    groups = _groups(root, pictures, options)
    domain = [picture.domain for picture in pictures]
    fractions = (1 - options.validation - options.test, options.validation, options.test)
    part = grouped_split(groups, domain, fractions, options.seed)
    _check_split(root, np.asarray(domain), part, domains)

    images = standardise(torch.stack([_image(p.grey, options.size) for p in pictures]))
    truth = torch.stack([_labels(p.labels, options) for p in pictures])
    domain_index = torch.tensor(domain)
    chosen = [torch.from_numpy(np.flatnonzero(part == i)) for i in range(3)]
    train, validation, test = (draw(images[i], truth[i], domain_index[i], table) for i in chosen)
    return Dataset(label_space, domains, train, validation, test)


def _read_all(root: Path, options: FolderOptions) -> list[_Picture]:
    """Every picture that a domain selects, in the order of the file names."""
    files = {part: {path.name for path in (root / part).glob("*.png")} for part in ("images", "masks")}
    problems = [f"{root / 'images' / name}: no mask of that name" for name in files["images"] - files["masks"]]
    problems += [f"{root / 'masks' / name}: no image of that name" for name in files["masks"] - files["images"]]
    pictures = []
    for name in sorted(files["images"] & files["masks"]):
        try:
            picture = _read(root, name, options)
        except _ProblemError as problem:  # noqa: PERF203 - all problems are listed at once
            problems.append(str(problem))
        else:
            pictures += [picture] if picture else []
    empty = set(range(len(options.domains))) - {picture.domain for picture in pictures}
    if not problems:  # an unreadable file may be the one that a domain lacks
        names = list(options.domains.items())
        problems = [f"{root / 'images'}: no file for domain {names[i][0]!r} = {list(names[i][1])}" for i in empty]
    _report(root, problems)
    return pictures


class _ProblemError(Exception):
    """One thing wrong with one file; collected, not shown on its own."""


def _read(root: Path, name: str, options: FolderOptions) -> _Picture | None:
    image_path, mask_path = root / "images" / name, root / "masks" / name
    image = _open(image_path, _IMAGE_MODES)
    domain = _domain(image_path, image.size, options.domains)
    if domain is None:
        return None
    mask = _open(mask_path, _MASK_MODES)
    if mask.size != image.size:
        raise _ProblemError(
            f"{mask_path}: mask of {_size_name(mask.size)} pixels, but its image has {_size_name(image.size)}"
        )
    labels = np.asarray(mask).astype(np.uint8)
    unknown = sorted(set(np.unique(labels).tolist()) - {0, *options.labels.values()})
    if unknown:
        raise _ProblemError(f"{mask_path}: label values {unknown} are not in labels = {options.labels}")
    return _Picture(name, domain, np.asarray(image.convert("L")), labels)


def _open(path: Path, modes: tuple[str, ...]) -> Image.Image:
    """The picture, wholly decoded."""
    try:
        image = Image.open(path)
        image.load()
    except _UNREADABLE as error:
        raise _ProblemError(f"{path}: cannot be read as an image ({error})") from error
    if image.mode not in modes:
        raise _ProblemError(f"{path}: pixel format must be one of {', '.join(modes)}, got {image.mode}")
    return image


def _domain(path: Path, size: tuple[int, int], domains: dict[str, tuple[str, ...]]) -> int | None:
    def selects(selector: str) -> bool:
        is_size = _PIXEL_SIZE.fullmatch(selector)
        return selector == _size_name(size) if is_size else fnmatchcase(path.name, selector)

    found = [i for i, selectors in enumerate(domains.values()) if any(selects(s) for s in selectors)]
    if len(found) > 1:
        raise _ProblemError(f"{path}: in more than one domain: {', '.join(list(domains)[i] for i in found)}")
    return found[0] if found else None


def _size_name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _groups(root: Path, pictures: Sequence[_Picture], options: FolderOptions) -> list[str]:
    """Group of each picture: by `group`, then joined by `together`; the same pixels in two groups are an error."""
    problems, group_of = [], {}
    for picture in pictures:
        match = re.search(options.group or ".*", picture.name)
        if match is None:
            problems.append(f"{root / 'images' / picture.name}: group = {options.group!r} does not match the file name")
        else:
            group_of[picture.name] = match.group(1) if match.re.groups else match.group(0)
    existing = {path.name for path in (root / "images").glob("*.png")}
    for stems in options.together:
        names = [f"{stem}.png" for stem in stems]
        problems += [f"{root / 'images' / name}: named in together, but not there" for name in set(names) - existing]
        joined = {group_of[name] for name in names if name in group_of}
        group_of = {name: min(joined) if group in joined else group for name, group in group_of.items()}
    _report(root, problems)
    _report(root, _copies(root, pictures, group_of))
    return [group_of[picture.name] for picture in pictures]


def _copies(root: Path, pictures: Sequence[_Picture], group_of: dict[str, str]) -> Iterable[str]:
    """Pictures with the same pixels as an earlier one of another group: they would leak from training to test."""
    first: dict[tuple[str, tuple[int, ...]], str] = {}
    for picture in pictures:
        key = (hashlib.sha256(picture.grey.tobytes()).hexdigest(), picture.grey.shape)
        original = first.setdefault(key, picture.name)
        if group_of[original] != group_of[picture.name]:
            yield (
                f"{root / 'images' / picture.name}: duplicate, the same pixels as {original}, which is in another "
                f"group; name both in together"
            )


def _check_split(root: Path, domain: NDArray[np.int64], part: NDArray[np.int64], domains: Sequence[str]) -> None:
    names = ("train", "validation", "test")
    problems = [
        f"split {names[i]!r} has no image of domain {domains[d]!r} (it has {int((domain == d).sum())} images in all); "
        f"raise the split's fraction, or use smaller groups or more images"
        for d in range(len(domains))
        for i in range(3)
        if not ((domain == d) & (part == i)).any()
    ]
    _report(root, problems)


def _report(root: Path, problems: Iterable[str]) -> None:
    problems = sorted(problems)
    if problems:
        raise ValueError("\n  ".join([f"folder: {len(problems)} problem(s) in {root}:", *problems]))


def _image(grey: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    """[1, height, width] float32 in [0, 1]."""
    resized = Image.fromarray(grey).resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized, dtype=np.float32) / 255)[None]


def _labels(values: NDArray[np.uint8], options: FolderOptions) -> torch.Tensor:
    """[height, width] uint8 label values: class 1 is the first of `labels`, and so on."""
    lookup = np.zeros(256, np.uint8)
    lookup[list(options.labels.values())] = np.arange(1, len(options.labels) + 1)
    resized = Image.fromarray(lookup[values]).resize(options.size[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized))


INFO = DatasetInfo(
    name="folder",
    description="Any folder of PNG images and masks; domains by image size or file name, splits by group",
    licence="that of the files",
    source="the folder in `root`, or `folder` inside LABELDROP_DATA",
    options=FolderOptions,
    load=load,
)
