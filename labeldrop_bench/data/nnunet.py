"""nnU-Net's raw format, 2-D and 3-D: the way in for anybody's own data.

    <root>/<dataset>/dataset.json       channel_names, labels, numTraining, file_ending
                     imagesTr/          <case>_<channel, four digits><ending>
                     labelsTr/          <case><ending>
                     imagesTs/ labelsTs/    the same; where labels are there, they are the test split

Format: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md. Labels that are lists of values are regions; what
each stored value may be then is told by `_regions.label_space_of_regions`. The label named `ignore` says nothing.

One key of dataset.json is not nnU-Net's, which leaves it alone: `annotated_labels`, case -> names of the labels that
were annotated in it. A case that it does not name has all of them.

A volume is turned to [D, H, W] = (superior, anterior, right), cut to what is not zero, resampled to one spacing, and
its middle cut out or filled up (`_resample.to_grid`). A picture is resized without keeping its aspect ratio, as
`folder` does it. Slices stored as volumes are turned to the direction that most images of the data set are stored in.
Each channel of each case then gets mean 0 and standard deviation 1, whatever its name says. Scores refer to
these arrays: what lies outside of `size` is neither trained on nor scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from labeldrop_bench.data._files import list_files, not_taken
from labeldrop_bench.data._options import GroupOptions
from labeldrop_bench.data._pictures import PICTURES
from labeldrop_bench.data._regions import annotated_labels, label_space_of_regions
from labeldrop_bench.data._volumes import ReadPictures, ReadVolumes
from labeldrop_bench.data.base import IGNORED, Dataset, DatasetInfo, Side, find_folder, hint
from labeldrop_bench.data.decode import read_place
from labeldrop_bench.data.edits import annotated_only, check_cases
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare, require
from labeldrop_bench.data.split import grouped_split, report_lacking
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.text import TextError, read_text

_TRAIN, _TEST = "Tr", "Ts"
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v), Field(min_length=1)]


class NnunetOptions(GroupOptions):
    """Keys of the `[data]` table, besides those of `GroupOptions`.

    Attributes:
        root: folder that holds the data sets, as the variable nnUNet_raw of nnU-Net.
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        dataset: its folder in root, such as "Dataset501_Heart".
        classes_of: label name of dataset.json -> class or classes that it stands for; by default its own name.
        channels: names of the channels to use, or their numbers where several have one name; None means all.
        size: of the samples: (height, width) in pixels, or (D, H, W) in voxels for volumes.
        spacing: of volumes along D, H, W in millimetres; None means the median of the data set.
        domains: name -> glob patterns on the case name. Cases that no domain selects are left out.
        validation, test: fractions of each domain's cases; training takes the rest. Where labelsTs is there, it is the
            test split and `test` is not used.
    """

    folder: str = "nnUNet_raw"
    dataset: str
    classes_of: dict[str, Names] = Field(default_factory=dict)
    channels: tuple[NonNegativeInt | str, ...] | None = Field(None, min_length=1)
    size: tuple[Side, Side] | tuple[Side, Side, Side]
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    domains: dict[str, Names] = Field(default={"all": ("*",)}, min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> NnunetOptions:
        if self.spacing and len(self.size) == 2:
            raise ValueError(f"spacing is for volumes, but size has two numbers: {list(self.size)}")
        return self

    def find(self) -> Path:
        """The data set's folder.

        Raises:
            ValueError: neither `root` nor the environment variable is set.
            FileNotFoundError: it is not there, or has no dataset.json.
        """
        root = find_folder("nnunet", self.root, self.folder)
        if not (root / self.dataset / "dataset.json").is_file():
            there = sorted(path.parent.name for path in root.glob("*/dataset.json"))
            raise FileNotFoundError(
                f"nnunet: dataset must be a folder with dataset.json in {root}, and there is no "
                f"{self.dataset!r}{hint(self.dataset, there)}"
            )
        return root / self.dataset


class _Description(BaseModel):
    """What counts of dataset.json."""

    channel_names: dict[str, str] = Field(min_length=1)
    labels: dict[str, int | tuple[int, ...]]
    num_training: int = Field(alias="numTraining")
    file_ending: str
    annotated_labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("channel_names")
    @classmethod
    def _numbered(cls, names: dict[str, str]) -> dict[str, str]:
        if set(names) != {str(n) for n in range(len(names))}:
            raise ValueError(f"channel_names must give 0, 1, ... names, got {names}")
        return {key: names[key] for key in sorted(names, key=int)}

    @field_validator("labels")
    @classmethod
    def _has_background(cls, labels: dict[str, int | tuple[int, ...]]) -> dict[str, int | tuple[int, ...]]:
        if labels.get("background") != 0 or len(labels) - ("ignore" in labels) < 2:
            raise ValueError(f"labels must name background = 0 and at least one more, got {labels}")
        if not isinstance(labels.get("ignore", 0), int):
            raise ValueError(f"label ignore must be one value, got {labels['ignore']}")
        stored = [v for name, value in labels.items() if name != "background" for v in _values(value)]
        if min(stored) < 1 or any(not _values(value) for value in labels.values()):
            raise ValueError(f"labels but background must have values from 1 on, got {labels}")
        return labels

    @property
    def regions(self) -> dict[str, tuple[int, ...]]:
        """Foreground label -> its stored values."""
        return {name: _values(value) for name, value in self.labels.items() if name not in ("background", "ignore")}


def _values(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def _describe(folder: Path) -> _Description:
    path = folder / "dataset.json"
    try:
        return _Description.model_validate_json(read_text(path))
    except TextError as error:
        raise ValueError(f"nnunet: {error}") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, detail['loc'])) or 'file'}: {detail['msg']}" for detail in error.errors()]
        raise ValueError(f"nnunet: {path} is not in the format of nnU-Net 2: " + "; ".join(lines)) from error


def load(options: NnunetOptions) -> Dataset:
    """Reads the data set.

    Raises:
        ValueError: no data folder given, dataset.json that does not fit the options, or bad files, all of them listed:
            number of cases other than numTraining, image without label map or the other way round, missing channel,
            unreadable file, image and labels on different voxels, unknown label value, case in two domains; or
            `annotated_labels` with a case or label that is not there, or against the label maps.
        FileNotFoundError: a folder that is not there.
        ModuleNotFoundError: a library that reads the files is not installed.
    """
    folder = options.find()
    description = _describe(folder)
    space, value_of = _space(folder, description, options)
    channels = _channels(folder, description, options)
    kept = channels if len(options.size) == 3 else None
    train, test = (_list(folder, part, description, kept) for part in (_TRAIN, _TEST))
    problems = [*train.problems, *test.problems]
    if len(train.cases) != description.num_training:
        problems.append(
            DataProblem(
                folder / "dataset.json",
                f"numTraining is {description.num_training}, but imagesTr and labelsTr have {len(train.cases)} whole "
                f"cases",
            )
        )
    chosen = {}
    unselected: list[str] = []
    for part, found in ((_TRAIN, train), (_TEST, test)):
        chosen[part], more, rest = _in_domains(folder, part, found.cases, options)
        problems += more
        unselected += rest
    test_names = {case.name for case in chosen[_TEST]}
    listed = [*chosen[_TRAIN], *chosen[_TEST]]
    read = _reader(listed, space, value_of, description, channels, options)
    cases, prepared, skipped = prepare(
        listed, read, name="nnunet", settings=asdict(read), skip_bad=options.skip_bad, problems=problems,
        not_taken=(*train.not_taken, *test.not_taken),
    )  # fmt: skip
    part_of = _split(folder, cases, test_names, options)
    dataset = assemble(space, tuple(options.domains), cases, prepared, part_of, (*skipped, *unselected))
    names = [case.name for case in (*train.cases, *test.cases)]
    return _annotated(folder, description, dict(value_of), dataset, names)


def _space(
    folder: Path, description: _Description, options: NnunetOptions
) -> tuple[LabelSpace, tuple[tuple[int, int], ...]]:
    """The label space, and (stored value, label value) pairs."""
    known = [*description.regions]
    for name in options.classes_of:
        if name not in known:
            raise ValueError(f"nnunet: classes_of: {folder / 'dataset.json'} has no label {name!r}{hint(name, known)}")
    try:
        space, value_of = label_space_of_regions(description.regions, options.classes_of)
    except ValueError as error:
        raise ValueError(f"nnunet: {folder / 'dataset.json'}: {error}") from error
    ignore = description.labels.get("ignore")
    if isinstance(ignore, int):
        value_of[ignore] = IGNORED
    return space, tuple(value_of.items())


def _annotated(
    folder: Path, description: _Description, value_of: dict[int, int], dataset: Dataset, listed: Sequence[str]
) -> Dataset:
    """The data set with what `annotated_labels` says; `listed` are all cases, those in no domain too."""
    key = f"nnunet: {folder / 'dataset.json'}: annotated_labels"
    check_cases(key, description.annotated_labels, listed, dataset.skipped)
    space, regions = dataset.label_space, description.regions
    cases = {
        case: annotated_labels(f"{key}: case {case!r}", named, regions, space, value_of)
        for case, named in description.annotated_labels.items()
    }
    return annotated_only(dataset, {}, cases, key)


@dataclass(frozen=True)
class _Found:
    """What lies in images.. and labels..; `not_taken` has lines on what is no case's."""

    cases: list[Case]
    problems: list[DataProblem]
    not_taken: tuple[str, ...]


def _list(folder: Path, part: str, description: _Description, kept: Sequence[int] | None) -> _Found:
    """Whole cases of imagesTr or imagesTs, their domain not told yet; without any label map, imagesTs has none.

    Args:
        folder: of the data set.
        part: "Tr" or "Ts".
        description: dataset.json.
        kept: channels to read, in order; None means all, of which a reader of pictures takes some.
    """
    ending, numbers = description.file_ending, range(len(description.channel_names))
    in_images, in_labels = (list_files(folder / f"{kind}{part}", (ending,)) for kind in ("images", "labels"))
    if part == _TEST and not in_labels.files:
        return _Found([], [], in_labels.not_taken)
    images: dict[str, dict[int, Path]] = {}
    nameless = []
    for stem, path in in_images.files.items():
        if match := re.fullmatch(r"(.+)_(\d{4})", stem):
            images.setdefault(match[1], {})[int(match[2])] = path
        else:
            nameless.append(path.name)
    cases, problems = [], [*in_images.problems, *in_labels.problems]
    for name in sorted({*images, *in_labels.files}):
        channels = images.get(name, {})
        whole = ending.lower() in PICTURES and set(channels) == {0}  # one colour picture may hold all channels
        missing = [] if whole else [n for n in numbers if n not in channels]
        problems += [
            DataProblem(folder / f"images{part}" / f"{name}_{n:04d}{ending}", f"not there, but {name} needs it")
            for n in missing
        ]
        problems += [
            DataProblem(path, f"channel {n} is not in channel_names of dataset.json; name it there or take it away")
            for n, path in channels.items()
            if n not in numbers
        ]
        if name not in in_labels.files:
            problems.append(DataProblem(folder / f"labels{part}" / f"{name}{ending}", "not there, but its image is"))
        elif not missing:
            files = [channels[n] for n in kept or numbers if n in channels]
            cases.append(Case(name, name, 0, (*files, in_labels.files[name])))
    reasons = {"no channel number such as _0000 stands before their ending": nameless}
    rest = not_taken(folder / f"images{part}", reasons)
    return _Found(cases, problems, (*in_images.not_taken, *in_labels.not_taken, *rest))


def _channels(folder: Path, description: _Description, options: NnunetOptions) -> tuple[int, ...]:
    """Numbers of the channels to use."""
    names = list(description.channel_names.values())
    where = f"nnunet: channels: {folder / 'dataset.json'}"
    found = []
    for wanted in range(len(names)) if options.channels is None else options.channels:
        numbers = [n for n, name in enumerate(names) if wanted in (n, name)]
        if not numbers:
            raise ValueError(f"{where} has no channel {wanted!r}{hint(str(wanted), names)}")
        if len(numbers) > 1:
            raise ValueError(
                f"{where} has {len(numbers)} channels named {wanted!r}; say their numbers: channels = {numbers}"
            )
        found += numbers
    return tuple(found)


def _in_domains(
    folder: Path, part: str, cases: Sequence[Case], options: NnunetOptions
) -> tuple[list[Case], list[DataProblem], list[str]]:
    """Cases that a domain selects, with domain and patient; problems; and a line on those that none selects."""
    chosen, problems, unselected = [], [], []
    for case in cases:
        path = folder / f"images{part}" / case.name
        found = [i for i, globs in enumerate(options.domains.values()) if any(fnmatchcase(case.name, g) for g in globs)]
        if len(found) > 1:
            names = ", ".join([*options.domains][i] for i in found)
            problems.append(DataProblem(path, f"in more than one domain: {names}; change their patterns"))
        match = re.search(options.group or ".*", case.name)
        if match is None:
            problems.append(DataProblem(path, f"group = {options.group!r} does not match the case name"))
        if len(found) == 1 and match is not None:
            patient = match.group(1) if match.re.groups else match.group(0)
            chosen.append(replace(case, patient=patient, domain=found[0]))
        unselected += [] if found else [case.name]
    return chosen, problems, list(not_taken(folder / f"images{part}", {"no domain selects them": unselected}))


def _reader(
    cases: Sequence[Case],
    space: LabelSpace,
    value_of: tuple[tuple[int, int], ...],
    description: _Description,
    channels: tuple[int, ...],
    options: NnunetOptions,
) -> ReadVolumes | ReadPictures:
    ending = description.file_ending
    pictures = ending.lower() in PICTURES
    if not pictures:
        require("nnunet", "nibabel", "SimpleITK", "skimage")
    if len(options.size) == 3 and pictures:
        raise ValueError(f"nnunet: size must be two numbers for pictures ({ending}), got {list(options.size)}")
    spacing, axes = (options.spacing, None) if pictures or options.spacing else _typical(cases)
    if len(options.size) == 2:
        number = len(description.channel_names)
        return ReadPictures(value_of, space.num_labels, channels, number, options.size, axes)
    return ReadVolumes(value_of, space.num_labels, spacing or (1.0, 1.0, 1.0), options.size)


def _typical(cases: Sequence[Case]) -> tuple[tuple[float, ...] | None, str | None]:
    """Median spacing along D, H, W, and the direction of the axes that most images have.

    A file that cannot be read does not count here, and is named when its case is read.
    """
    found = []
    for case in cases:
        try:
            found.append(read_place(case.inputs[0]))
        except DataProblem:  # noqa: PERF203 - any of them may be bad
            continue
    if not found:
        return None, None
    median = np.median([spacing for spacing, _ in found], axis=0)
    return tuple(float(f"{s:.5g}") for s in median), Counter(axes for _, axes in found).most_common(1)[0][0]


def _split(folder: Path, cases: Sequence[Case], test_names: set[str], options: NnunetOptions) -> dict[str, int]:
    """Patient -> 0 (training), 1 (validation) or 2 (test)."""
    rest = [case for case in cases if case.name not in test_names]
    part_of = {case.patient: 2 for case in cases if case.name in test_names}
    for case in rest:
        if case.patient in part_of:
            raise ValueError(
                f"nnunet: {folder}: patient {case.patient!r} must lie in one split, got imagesTr and imagesTs"
            )
    test = 0.0 if test_names else options.test
    if rest:
        fractions = (1 - options.validation - test, options.validation, test)
        parts = grouped_split([c.patient for c in rest], [c.domain for c in rest], fractions, options.seed)
        part_of.update((case.patient, int(part)) for case, part in zip(rest, parts, strict=True))
    domain, part = [case.domain for case in cases], [part_of[case.patient] for case in cases]
    report_lacking(f"nnunet: {folder}", domain, part, [*options.domains])
    return part_of


INFO = DatasetInfo(
    name="nnunet",
    description="Anybody's data in nnU-Net's raw format, 2-D or 3-D, with regions; domains by case name",
    licence="that of the files",
    source="the folder `dataset` in `root`, or in `folder` inside LABELDROP_DATA",
    options=NnunetOptions,
    load=load,
)
