"""nnU-Net's raw format, 2-D and 3-D: the way in for anybody's own data.

    <root>/<dataset>/dataset.json       channel_names, labels, numTraining, file_ending
                     imagesTr/          <case>_<channel, four digits><ending>
                     labelsTr/          <case><ending>
                     imagesTs/ labelsTs/    the same; where labels are there, they are the test split

Format: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md. Labels that are lists of values are regions; what
each stored value may be then is told by `_regions.label_space_of_regions`. The label named `ignore` says nothing.

Where dataset.json has nnU-Net's key `dataset`, case -> {"images": [one for each channel], "label": file}, the training
cases are those, wherever their files lie; a relative path begins at the data set's folder.

One key of dataset.json is not nnU-Net's, which leaves it alone: `annotated_labels`, case -> names of the labels that
were annotated in it. A case that it does not name has all of them.

A volume is turned to [D, H, W] = (superior, anterior, right), cut to what is not zero, resampled to one spacing, and
its middle cut out or filled up (`_resample.to_grid`). A picture is resized without keeping its aspect ratio, as
`folder` does it. By default spacing and size are the medians of the cases (`_survey`); what is zero counts as a part of
them, since no header tells it. Slices stored as volumes are turned to the direction that most images of the data set
are stored in. Intensities are scaled by the scheme that the channel's name stands for in nnU-Net (`intensities`).
Scores refer to these arrays: what lies outside of `size` is neither trained on nor scored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from labeldrop_bench.data._files import not_taken
from labeldrop_bench.data._nnunet_raw import TEST, TRAIN, Description, describe, list_cases
from labeldrop_bench.data._options import AnySize, GroupOptions
from labeldrop_bench.data._regions import annotated_labels, label_space_of_regions
from labeldrop_bench.data._survey import MULTIPLE, readable, shape_at, typical_size, typical_spacing
from labeldrop_bench.data._volumes import ReadPictures, ReadVolumes
from labeldrop_bench.data.base import IGNORED, Dataset, DatasetInfo, Grid, find_folder, hint
from labeldrop_bench.data.case_file import Scheme
from labeldrop_bench.data.decode import Place, read_place, read_size
from labeldrop_bench.data.edits import annotated_only, check_cases
from labeldrop_bench.data.intensities import pool, scheme_of
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare
from labeldrop_bench.data.split import grouped_split, report_lacking
from labeldrop_bench.extras import require
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import SomeNames


class NnunetOptions(GroupOptions):
    """Keys of the `[data]` table, besides those of `GroupOptions`.

    Attributes:
        root: folder that holds the data sets, as the variable nnUNet_raw of nnU-Net.
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        dataset: its folder in root, such as "Dataset501_Heart".
        classes_of: label name of dataset.json -> class or classes that it stands for; by default its own name.
        channels: names of the channels to use, or their numbers where several have one name; None means all.
        normalisation: scheme of the intensities, for all channels or one for each; None means by their names.
        size: of the samples: (height, width) in pixels, or (D, H, W) in voxels for volumes, or one number for all axes.
            None means the median of the cases (of volumes, resampled to `spacing`), rounded to multiples of 16.
        spacing: of volumes along D, H, W in millimetres; None means the median of the cases.
        domains: name -> glob patterns on the case name. Cases that no domain selects are left out.
        validation, test: fractions of each domain's cases; training takes the rest. Where labelsTs is there, it is the
            test split and `test` is not used.
    """

    folder: str = "nnUNet_raw"
    dataset: str
    classes_of: dict[str, SomeNames] = Field(default_factory=dict)
    channels: tuple[NonNegativeInt | str, ...] | None = Field(None, min_length=1)
    normalisation: Scheme | tuple[Scheme, ...] | None = None
    size: AnySize = None
    spacing: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    domains: dict[str, SomeNames] = Field(default={"all": ("*",)}, min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> NnunetOptions:
        if self.spacing and isinstance(self.size, tuple) and len(self.size) == 2:
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


def load(options: NnunetOptions) -> Dataset:
    """Reads the data set.

    Raises:
        ValueError: no data folder given, dataset.json that does not fit the options, or bad files, all of them listed:
            number of cases other than numTraining, image without label map or the other way round, missing channel,
            unreadable file, image and labels on different voxels, unknown label value, case in two domains; or
            `annotated_labels` with a case or label that is not there, or against the label maps.
        FileNotFoundError: a folder that is not there.
        MissingPackageError: a library that reads the files is not installed.
    """
    folder = options.find()
    description = describe(folder)
    space, value_of = label_space_of(folder, description, options)
    channels = _channels(folder, description, options)
    found = list_data(folder, description, options)
    read = _reader(found.cases, space, value_of, description, channels, options)
    listed = found.cases if isinstance(read, ReadPictures) else [_only(case, channels) for case in found.cases]
    cases, prepared, skipped = prepare(
        listed, read, name="nnunet", settings=asdict(read), skip_bad=options.skip_bad, problems=found.problems,
        not_taken=found.not_taken,
    )  # fmt: skip
    part_of = _split(folder, cases, found.test_names, options)
    dataset = assemble(space, tuple(options.domains), cases, prepared, part_of, (*skipped, *found.unselected))
    return pool(_annotated(folder, description, dict(value_of), dataset, found.names))


def survey(options: NnunetOptions) -> list[Grid]:
    """The grids of its cases.

    Raises:
        ValueError, FileNotFoundError: as `load`, as far as no case has to be read.
    """
    folder = options.find()
    description = describe(folder)
    return grids_of(list_data(folder, description, options).cases, description, options)[0]


@dataclass(frozen=True)
class Listing:
    """What lies in a data set's folder.

    Attributes:
        cases: those that a domain selects, with domain and patient, and files of all channels.
        test_names: which of them are of labelsTs.
        names: of all cases, those that no domain selects too.
        problems: what is wrong with cases.
        not_taken, unselected: lines on files that are no case's, and on cases of no domain.
    """

    cases: list[Case]
    test_names: set[str]
    names: list[str]
    problems: list[DataProblem]
    not_taken: tuple[str, ...]
    unselected: list[str]


def list_data(folder: Path, description: Description, options: NnunetOptions) -> Listing:
    """The cases of a data set; nothing is read."""
    train, test = (list_cases(folder, part, description) for part in (TRAIN, TEST))
    problems = [*train.problems, *test.problems]
    if len(train.cases) != description.num_training:
        where = "imagesTr and labelsTr have" if description.dataset is None else "`dataset` names"
        text = f"numTraining is {description.num_training}, but {where} {len(train.cases)} whole cases"
        problems.append(DataProblem(folder / "dataset.json", text))
    chosen = {}
    unselected: list[str] = []
    for part, found in ((TRAIN, train), (TEST, test)):
        chosen[part], more, rest = _in_domains(folder, part, found.cases, options)
        problems += more
        unselected += rest
    return Listing(
        [*chosen[TRAIN], *chosen[TEST]],
        {case.name for case in chosen[TEST]},
        [case.name for case in (*train.cases, *test.cases)],
        problems,
        (*train.not_taken, *test.not_taken),
        unselected,
    )


def _only(case: Case, channels: Sequence[int]) -> Case:
    """A case with the files of some channels, in this order, and of its labels."""
    *images, labels = case.inputs
    return replace(case, inputs=(*(images[n] for n in channels), labels))


def label_space_of(
    folder: Path, description: Description, options: NnunetOptions
) -> tuple[LabelSpace, tuple[tuple[int, int], ...]]:
    """The label space, and (stored value, label value) pairs."""
    known = [*description.regions]
    for name in options.classes_of:
        if name not in known:
            raise ValueError(
                f"nnunet: classes_of: {folder / 'dataset.json'} has no label {name!r}{hint(name, known)}. It says "
                f"which classes a label stands for: classes_of = {{ label = ['class', 'class'] }}"
            )
    try:
        space, value_of = label_space_of_regions(description.regions, options.classes_of)
    except ValueError as error:
        raise ValueError(f"nnunet: {folder / 'dataset.json'}: {error}") from error
    ignore = description.labels.get("ignore")
    if isinstance(ignore, int):
        value_of[ignore] = IGNORED
    return space, tuple(value_of.items())


def _annotated(
    folder: Path, description: Description, value_of: dict[int, int], dataset: Dataset, listed: Sequence[str]
) -> Dataset:
    """The data set with what `annotated_labels` says; `listed` are all cases, those in no domain too."""
    key = _annotated_key(folder)
    check_cases(key, description.annotated_labels, listed, dataset.skipped)
    return annotated_only(dataset, {}, annotated_of(folder, description, dataset.label_space, value_of), key)


def annotated_of(
    folder: Path, description: Description, space: LabelSpace, value_of: dict[int, int]
) -> dict[str, list[str]]:
    """Case -> labels of the label space that were annotated in it, of the cases that `annotated_labels` names.

    Raises:
        ValueError: a label that is not there, or one whose pixels may be another's.
    """
    return {
        case: annotated_labels(f"{_annotated_key(folder)}: case {case!r}", named, description.regions, space, value_of)
        for case, named in description.annotated_labels.items()
    }


def _annotated_key(folder: Path) -> str:
    return f"nnunet: {folder / 'dataset.json'}: annotated_labels"


def _channels(folder: Path, description: Description, options: NnunetOptions) -> tuple[int, ...]:
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
    description: Description,
    channels: tuple[int, ...],
    options: NnunetOptions,
) -> ReadVolumes | ReadPictures:
    if not description.pictures:
        require("nnunet", "nibabel", "SimpleITK", "skimage")
    schemes = _schemes(description, channels, options)
    size, spacing, axes = _goal(cases, description, options)
    if len(size) == 2:
        return ReadPictures(value_of, space.num_labels, channels, len(description.channel_names), size, axes, schemes)
    return ReadVolumes(value_of, space.num_labels, spacing or (1.0, 1.0, 1.0), size, schemes)


def _schemes(description: Description, channels: Sequence[int], options: NnunetOptions) -> tuple[Scheme, ...]:
    """How the intensities of each of the channels are scaled."""
    given, names = options.normalisation, list(description.channel_names.values())
    if given is None:
        return tuple(scheme_of(names[n]) for n in channels)
    schemes = (given,) * len(channels) if isinstance(given, str) else given
    if len(schemes) != len(channels):
        used = ", ".join(names[n] for n in channels)
        raise ValueError(f"nnunet: normalisation must be one for each channel ({used}), got {list(schemes)}")
    return schemes


def _goal(
    cases: Sequence[Case], description: Description, options: NnunetOptions
) -> tuple[tuple[int, ...], tuple[float, ...] | None, str | None]:
    """Size, spacing of volumes, and the direction of the axes that most slices have; what is not given, by the files.

    Raises:
        ValueError: what is given does not fit the files.
    """
    size = options.size
    spacing: tuple[float, ...] | None = options.spacing
    number = len(size) if isinstance(size, tuple) else 3 if spacing else None
    if description.pictures and number == 3:
        raise ValueError(
            f"nnunet: size must be two numbers for pictures ({description.file_ending}), and spacing left out, got "
            f"size = {size} and spacing = {spacing}"
        )
    if isinstance(size, tuple) and (description.pictures or spacing):
        return size, spacing, None
    grids, axes = grids_of(cases, description, options)
    number = len(grids[0].shape) if grids else number or (2 if description.pictures else 3)
    spacing = (spacing or typical_spacing(grids)) if number == 3 else None
    if size is None:  # without any file that can be read, reading them says why
        size = typical_size([shape_at(grid, spacing) for grid in grids]) if grids else (MULTIPLE,) * number
    return size if isinstance(size, tuple) else (size,) * number, spacing, axes


def grids_of(cases: Sequence[Case], description: Description, options: NnunetOptions) -> tuple[list[Grid], str | None]:
    """Grids of the cases, of volumes along D, H, W; and the direction of the axes that most are stored in."""
    paths = [case.inputs[0] for case in cases]
    if description.pictures:
        sizes = readable(paths, partial(read_size, shown=True))
        return [Grid((height, width)) for width, height in sizes], None
    places = readable(paths, read_place)
    if not places:
        return [], None
    axes = Counter(place.axes for place in places).most_common(1)[0][0]
    slices = sum(1 in place.shape for place in places)
    flat = slices == len(places)
    if isinstance(options.size, tuple):
        flat = len(options.size) == 2
    elif options.spacing:
        flat = False
    elif slices and not flat:
        raise ValueError(
            f"nnunet: {options.dataset}: size must be given, [height, width] or [D, H, W]: {slices} of {len(places)} "
            f"cases are single slices, the others volumes; leave one kind out by the patterns of domains"
        )
    return [_slice(place, axes) if flat else Grid(*place.turned()) for place in places], axes


def _slice(place: Place, axes: str) -> Grid:
    """Of a file with an axis of length 1, without this axis."""
    shape, spacing = place.turned(axes)
    axis = shape.index(1) if 1 in shape else 0  # it has none: reading it says so
    return Grid(shape[:axis] + shape[axis + 1 :], spacing[:axis] + spacing[axis + 1 :])


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
    where = f"nnunet: {folder}" + (", whose test split is labelsTs" if test_names else "")
    report_lacking(where, domain, part, [*options.domains], [case.patient for case in cases])
    return part_of


INFO = DatasetInfo(
    name="nnunet",
    description="Anybody's data in nnU-Net's raw format, 2-D or 3-D, with regions; domains by case name",
    licence="that of the files",
    source="the folder `dataset` in `root`, or in `folder` inside LABELDROP_DATA",
    options=NnunetOptions,
    load=load,
    short_name=lambda options: re.sub(r"^Dataset\d{3}_(?=.)", "", options.dataset),
    survey=survey,
)
