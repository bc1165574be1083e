"""Image-mask folders: `images/` and `masks/` with the same file names but for their endings.

Images are PNG, BMP, TIFF or JPEG files; masks are not JPEG, which changes label values. How a picture becomes a sample:
grey by ITU-R 601 luma (Pillow's "L") or, with `channels = "rgb"`, red, green and blue; resized (image: bilinear,
averaging over the pixels that shrink into one; mask: nearest) without keeping the aspect ratio, each channel
standardised on its own. Scores of a model refer to the resized masks.

A folder says nothing about who annotated what, so every label counts as annotated; `[data] annotated` says otherwise.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from labeldrop_bench.data._files import list_files, not_taken
from labeldrop_bench.data._options import GroupOptions
from labeldrop_bench.data._pictures import PICTURES, grey
from labeldrop_bench.data._resample import resize_image, resize_labels
from labeldrop_bench.data._survey import MULTIPLE, readable, typical_size
from labeldrop_bench.data.base import VARIABLE, Dataset, DatasetInfo, Grid, Size, find_folder, user_path
from labeldrop_bench.data.case_file import Kept, Prepared
from labeldrop_bench.data.decode import check_same_grid, finite, look_up, read, read_size
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare
from labeldrop_bench.data.split import grouped_split, report_lacking
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import SomeNames

_PIXEL_SIZE = re.compile(r"\d+x\d+")

Value = Annotated[int, Field(ge=1, le=255)]


class FolderOptions(GroupOptions):
    """Keys of the `[data]` table, besides those of `GroupOptions`.

    Attributes:
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        labels: name -> value in the masks (1 ... 255), in the order of the classes; background is 0.
        size: (height, width) of the samples in pixels, or one number for both. None means the median of the images,
            rounded to multiples of 16.
        channels: "grey" (one channel), or "rgb" (three) where colour tells something.
        domains: name -> selectors, each an image size "WIDTHxHEIGHT" as stored or a glob pattern on the file name.
            Files that no domain selects are left out.
        together: lists of file names without their endings that also stay in one split, with their groups.
        validation, test: fractions of each domain's images; training takes the rest.
    """

    folder: str | None = None
    labels: dict[str, Value] = Field(min_length=1)
    size: Size | None = None
    channels: Literal["grey", "rgb"] = "grey"
    domains: dict[str, SomeNames] = Field(default={"all": ("*",)}, min_length=1)
    together: tuple[tuple[str, ...], ...] = ()
    validation: float = Field(0.15, gt=0, lt=1)
    test: float = Field(0.3, gt=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> FolderOptions:
        values = list(self.labels.values())
        if len(set(values)) != len(values) or "background" in self.labels:
            raise ValueError(f"labels must have different values and leave background out, got {self.labels}")
        return self

    def find_root(self) -> Path:
        """The folder that holds `images/` and `masks/`.

        Raises:
            ValueError: neither `root` nor `folder` is set, or `folder` is and the environment variable is not.
            FileNotFoundError: the folder, or one of the two in it, is not there.
        """
        if self.root is None and self.folder is None:
            raise ValueError(
                f"folder: set root to the folder that holds images/ and masks/, or folder to its name inside the "
                f"folder that the environment variable {VARIABLE} names"
            )
        root = find_folder("folder", self.root, self.folder or "")
        missing = [str(path) for path in (root / "images", root / "masks") if not path.is_dir()]
        if missing:
            raise FileNotFoundError(
                f"folder: root must hold the folders images/ and masks/; not there: {', '.join(missing)}"
            )
        return root


@dataclass(frozen=True)
class Read:
    """Reads an image and its mask.

    Attributes:
        labels: names and values in the masks, in the order of the classes.
        size: (height, width) of the result in pixels.
        channels: "grey" or "rgb".
    """

    labels: tuple[tuple[str, int], ...]
    size: tuple[int, ...]
    channels: Literal["grey", "rgb"] = "grey"

    def __call__(self, case: Case) -> Prepared:
        """Reads one; raises DataProblem."""
        image_path, mask_path = case.inputs
        image, mask = read(image_path), read(mask_path, labels=True)
        check_same_grid(mask_path, mask, image_path, image)
        value_of = {0: 0, **{value: number for number, (_, value) in enumerate(self.labels, start=1)}}
        labels = look_up(mask_path, mask.values[0, 0], value_of)
        picture = image.values[:, 0]
        colour = np.broadcast_to(picture, (3, *picture.shape[1:])) if self.channels == "rgb" else grey(picture)[None]
        kept = colour if colour.dtype == np.uint8 else finite([image_path], list(colour))
        annotated = (True,) * (len(self.labels) + 1)
        return Prepared(resize_image(kept, self.size), resize_labels(labels, self.size), annotated)


def load(options: FolderOptions) -> Dataset:
    """Reads the folder.

    Raises:
        ValueError: no data folder given, or files that do not fit, all of them listed: image without mask or mask
            without image, unreadable file, pixel format that is not read, mask of another size, label value that
            `labels` lacks, file in two domains or without a group, a domain without files; or else same pixels in two
            groups, or a domain with too few groups for three splits.
        FileNotFoundError: a folder that is not there.
    """
    root = options.find_root()
    domains = tuple(options.domains)
    found = list_data(root, options)
    grids = [] if options.size else grids_of(found.cases)
    size = options.size or typical_size([grid.shape for grid in grids] or [(MULTIPLE, MULTIPLE)])
    reader = Read(tuple(options.labels.items()), size, options.channels)
    cases, prepared, skipped = prepare(
        found.cases, reader, name="folder", settings=asdict(reader),
        skip_bad=options.skip_bad, problems=found.problems, not_taken=found.not_taken,
    )  # fmt: skip
    cases, prepared, copies = _without_copies(cases, prepared, options.skip_bad)
    domain = [case.domain for case in cases]
    fractions = (1 - options.validation - options.test, options.validation, options.test)
    part = grouped_split([case.patient for case in cases], domain, fractions, options.seed).tolist() if cases else []
    report_lacking(f"folder: {root}", domain, part, domains, [case.patient for case in cases])
    part_of = {case.patient: p for case, p in zip(cases, part, strict=True)}
    space = LabelSpace.of_classes(("background", *options.labels))
    return assemble(space, domains, cases, prepared, part_of, (*skipped, *copies, *found.unselected))


def survey(options: FolderOptions) -> list[Grid]:
    """The grids of its images.

    Raises:
        ValueError, FileNotFoundError: as `load`, as far as no file has to be read.
    """
    return grids_of(list_data(options.find_root(), options).cases)


def grids_of(cases: Sequence[Case]) -> list[Grid]:
    """The grids of images, from their headers."""
    sizes = readable((case.inputs[0] for case in cases), partial(read_size, shown=True))
    return [Grid((height, width)) for width, height in sizes]


def _short_name(options: FolderOptions) -> str:
    return Path(options.folder or "folder").name if options.root is None else user_path(options.root).resolve().name


@dataclass(frozen=True)
class Listing:
    """What lies in the two folders; `not_taken` and `unselected` are lines on what is no case's."""

    cases: list[Case]
    problems: list[DataProblem]
    not_taken: tuple[str, ...]
    unselected: tuple[str, ...]


def list_data(root: Path, options: FolderOptions) -> Listing:
    """Every picture that a domain selects, in the order of the file names, with its group as patient."""
    images, masks = (list_files(root / part, PICTURES) for part in ("images", "masks"))
    problems = [*images.problems, *masks.problems]
    problems += [DataProblem(path, "no mask of that name") for n, path in images.files.items() if n not in masks.files]
    problems += [DataProblem(path, "no image of that name") for n, path in masks.files.items() if n not in images.files]
    domain_of: dict[str, int] = {}
    unselected = []
    for name in sorted(images.files.keys() & masks.files.keys()):
        try:
            domain = _domain(images.files[name], options.domains)
        except DataProblem as problem:  # noqa: PERF203 - all problems are listed at once
            problems.append(problem)
        else:
            domain_of |= {} if domain is None else {name: domain}
            unselected += [images.files[name].name] if domain is None else []
    if not problems:  # an unreadable file may be the one that a domain lacks
        empty = set(range(len(options.domains))) - set(domain_of.values())
        selectors = list(options.domains.items())
        problems = [
            DataProblem(root / "images", f"no file for domain {selectors[i][0]!r} = {list(selectors[i][1])}")
            for i in sorted(empty)
        ]
    group_of, more = _groups(images.files, list(domain_of), options)
    cases = [
        Case(name, group, domain_of[name], (images.files[name], masks.files[name])) for name, group in group_of.items()
    ]
    rest = tuple(not_taken(root / "images", {"no domain selects them": unselected}))
    return Listing(cases, [*problems, *more], (*images.not_taken, *masks.not_taken), rest)


def _domain(path: Path, domains: dict[str, tuple[str, ...]]) -> int | None:
    """The domain that selects a file; the size of a picture stands in its header."""
    width, height = read_size(path)
    size = f"{width}x{height}"

    def selects(selector: str) -> bool:
        return selector == size if _PIXEL_SIZE.fullmatch(selector) else fnmatchcase(path.name, selector)

    found = [i for i, selectors in enumerate(domains.values()) if any(selects(s) for s in selectors)]
    if len(found) > 1:
        raise DataProblem(path, f"in more than one domain: {', '.join(list(domains)[i] for i in found)}")
    return found[0] if found else None


def _groups(
    files: Mapping[str, Path], names: Sequence[str], options: FolderOptions
) -> tuple[dict[str, str], list[DataProblem]]:
    """Name without ending -> group: by `group` on the file name, then joined by `together`."""
    problems, group_of = [], {}
    for name in names:
        match = re.search(options.group or ".*", files[name].name)
        if match is None:
            problems.append(DataProblem(files[name], f"group = {options.group!r} does not match the file name"))
        else:
            group_of[name] = match.group(1) if match.re.groups else match.group(0)
    folder = next(iter(files.values())).parent if files else Path("images")
    for named in options.together:
        problems += [DataProblem(folder / n, "named in together, but not there") for n in set(named) - files.keys()]
        joined = {group_of[name] for name in named if name in group_of}
        group_of = {name: min(joined) if group in joined else group for name, group in group_of.items()}
    return group_of, problems


def _without_copies(
    cases: Sequence[Case], prepared: Sequence[Kept], skip_bad: bool
) -> tuple[list[Case], list[Kept], tuple[str, ...]]:
    """Leaves out, or raises for, the same pixels as in another group: they would leak from training to test."""
    first: dict[bytes, Case] = {}
    kept, lines = [], []
    for case, item in zip(cases, prepared, strict=True):
        original = first.setdefault(item.digest, case)
        if original.patient == case.patient:
            kept.append((case, item))
        else:
            same = f"duplicate, the same pixels as {original.inputs[0].name}, which is in another group"
            lines.append(f"{case.inputs[0]}: {same}; name both in together")
    if lines:
        summary = f"folder: {len(lines)} problem(s):"
        if not skip_bad:
            raise ValueError("\n  ".join([summary, *lines]))
        warnings.warn(f"{summary} duplicates in different groups, which were left out", stacklevel=3)
    return [case for case, _ in kept], [item for _, item in kept], tuple(lines)


INFO = DatasetInfo(
    name="folder",
    description="Any folder of images and masks, grey or colour; domains by image size or file name, splits by group",
    licence="that of the files",
    source="the folder in `root`, or `folder` inside LABELDROP_DATA",
    options=FolderOptions,
    load=load,
    short_name=_short_name,
    survey=survey,
)
