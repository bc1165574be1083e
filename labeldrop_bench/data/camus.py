"""CAMUS: apical echo views of 500 patients with left ventricle, myocardium and left atrium.

Two releases are read. In the one of NIfTI files 500 patients have masks, and three lists in `database_split/` say who
is for training, validation and testing; where the lists are not there, the patients are split by chance. In the older
one of MHD files the patients in `testing/` have no masks, so those in `training/` are split by chance.

How a file becomes a sample: end-diastolic and end-systolic frame as stored (NIfTI arrays are [width, height]), its mask
turned to it if their headers differ,
resized to `size` (image: bilinear, averaging over the pixels that shrink into one; mask: nearest), standardised on its
own. Resizing keeps neither the aspect ratio nor square pixels: so do Islam et al. (2024), whose numbers these samples
are meant to be compared with. Scores of a model refer to the resized masks.

Source: Leclerc et al., Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D Echocardiography, IEEE
Transactions on Medical Imaging 38 (2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from labeldrop_bench.data._files import check_not_empty, list_folders, not_taken
from labeldrop_bench.data._options import SplitOptions
from labeldrop_bench.data._resample import new_spacing, resize_image, resize_labels
from labeldrop_bench.data._volumes import one_slice
from labeldrop_bench.data.base import Dataset, DatasetInfo, Size, find_folder
from labeldrop_bench.data.case_file import Prepared
from labeldrop_bench.data.decode import check_same_grid, finite, look_up, read
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare
from labeldrop_bench.extras import require
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.text import TextError, read_text

LABEL_SPACE = LabelSpace.of_classes(("background", "LV", "LVM", "LA"))
_QUALITIES = ("Poor", "Medium", "Good")
_NIFTI, _SPLIT, _MHD = "database_nifti", "database_split", "training"

Quality = Literal["Good", "Medium", "Poor"]
View = Literal["2CH", "4CH"]
Instant = Literal["ED", "ES"]


class CamusOptions(SplitOptions):
    """Keys of the `[data]` table, besides those of `SplitOptions`.

    Attributes:
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        size: (height, width) of the samples in pixels, or one number for both.
        release: "nifti", "mhd", or "auto": the one whose folders are there.
        views: apical two- and four-chamber view.
        instants: end-diastole and end-systole.
        min_quality: leave out views whose `ImageQuality` is lower; by default all are taken.
    """

    folder: str = "CAMUS_public"
    size: Size = (256, 256)
    release: Literal["auto", "nifti", "mhd"] = "auto"
    views: tuple[View, ...] = Field(("2CH", "4CH"), min_length=1)
    instants: tuple[Instant, ...] = Field(("ED", "ES"), min_length=1)
    min_quality: Quality | None = None

    @field_validator("views", "instants")
    @classmethod
    def _differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"the names must all differ, got {list(names)}")
        return names


def load(options: CamusOptions) -> Dataset:
    """Reads the folder.

    Raises:
        ValueError: no data folder given; two releases in one folder; or bad files, all of them listed: missing or
            truncated file, mask of another size than its image, empty mask, unknown label value, view without a known
            quality, patient in two split files, in none, or without a folder.
        FileNotFoundError: a folder that is not there, or one without a release of CAMUS or with half of its split.
        MissingPackageError: nibabel or SimpleITK is not installed.
    """
    root = find_folder("camus", options.root, options.folder)
    release = _release(root, options.release)
    require("camus", "nibabel", *(["SimpleITK"] if release == "mhd" else []))
    patients = root / (_NIFTI if release == "nifti" else _MHD)
    names = [path.name for path in list_folders(patients) if path.name.startswith("patient")]
    others = [path.name for path in list_folders(patients) if path.name not in names]
    problems: list[DataProblem] = []
    if release == "nifti" and (root / _SPLIT).is_dir():
        part_of = _official_split(root / _SPLIT, patients, names, problems)
    else:
        part_of = options.split(names)
    cases = list(_cases(patients, sorted(part_of), release, options, problems))
    kept, prepared, skipped = prepare(
        cases,
        _Read(options.size),
        name="camus",
        settings={"size": options.size},
        skip_bad=options.skip_bad,
        problems=problems,
        not_taken=[*not_taken(patients, {"their names do not begin with patient": others})],
    )
    return assemble(LABEL_SPACE, ("CAMUS",), kept, prepared, part_of, skipped)


def _release(root: Path, wanted: str) -> str:
    there = [name for name, folder in (("nifti", _NIFTI), ("mhd", _MHD)) if (root / folder).is_dir()]
    if wanted != "auto":
        there = [name for name in there if name == wanted]
    if len(there) > 1:
        raise ValueError(f'camus: {root} holds {_NIFTI}/ and {_MHD}/; set release to "nifti" or "mhd"')
    if not there:
        asked = {"auto": f"{_NIFTI}/ or {_MHD}/", "nifti": f"{_NIFTI}/", "mhd": f"{_MHD}/"}[wanted]
        raise FileNotFoundError(f"camus: root must hold {asked}, with a folder for each patient, and {root} does not")
    return there[0]


def _official_split(folder: Path, patients: Path, names: Sequence[str], problems: list[DataProblem]) -> dict[str, int]:
    """Patient -> 0 (training), 1 (validation) or 2 (test), from the three lists; without patients with problems."""
    lists = [folder / f"subgroup_{name}.txt" for name in ("training", "validation", "testing")]
    missing = [path.name for path in lists if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"camus: {folder} must hold three lists of patients, and {', '.join(missing)} is not there; without the "
            f"whole folder patients are split by chance"
        )
    listed = [(name, part) for part, path in enumerate(lists) for name in read_text(path).split()]
    times = Counter(name for name, _ in listed)
    for name, number in times.items():
        where = ", ".join(lists[part].name for other, part in listed if other == name)
        if number > 1:
            problems.append(DataProblem(folder, f"patient {name} is listed {number} times ({where}); leave it in one"))
        if name not in names:
            problems.append(DataProblem(patients / name, f"no such folder, but {where} lists it; download it again"))
    unlisted = [patients / name for name in names if name not in times]
    problems += [DataProblem(path, f"in none of the lists in {folder}; add it to one") for path in unlisted]
    return {name: part for name, part in listed if times[name] == 1 and name in names}


def _cases(
    folder: Path, patients: Sequence[str], release: str, options: CamusOptions, problems: list[DataProblem]
) -> Iterator[Case]:
    ending = ".nii.gz" if release == "nifti" else ".mhd"
    for patient in patients:
        for view in options.views:
            try:
                if not _good_enough(folder / patient / f"Info_{view}.cfg", options.min_quality):
                    continue
            except DataProblem as problem:
                problems.append(problem)
                continue
            for instant in options.instants:
                stem = f"{patient}_{view}_{instant}"
                files = [folder / patient / f"{stem}{part}{ending}" for part in ("", "_gt")]
                yield Case(f"{patient}-{view}-{instant}", patient, 0, tuple(files))


def _good_enough(path: Path, wanted: Quality | None) -> bool:
    """Whether a view's `ImageQuality` is as wanted or better."""
    if wanted is None:
        return True
    try:
        lines = read_text(path).splitlines()
    except (OSError, TextError) as error:
        raise DataProblem(path, f"cannot be read, and min_quality needs it ({error}); download it again") from error
    found = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key == "ImageQuality"]
    if len(found) != 1 or found[0] not in _QUALITIES:
        raise DataProblem(path, f"ImageQuality must be one of {', '.join(_QUALITIES)}, got {found}; correct the line")
    return _QUALITIES.index(found[0]) >= _QUALITIES.index(wanted)


@dataclass(frozen=True)
class _Read:
    """Reads image and mask."""

    size: tuple[int, int]

    def __call__(self, case: Case) -> Prepared:
        image_path, mask_path = case.inputs
        image = read(image_path)
        mask = read(mask_path, image.axes, labels=True)
        (frame,), spacing = one_slice(image_path, image)
        check_same_grid(mask_path, mask, image_path, image)
        (drawn,), _ = one_slice(mask_path, mask)
        labels = look_up(mask_path, drawn, {value: value for value in range(LABEL_SPACE.num_labels)})
        check_not_empty(mask_path, labels)
        kept = frame if frame.dtype == np.uint8 else finite([image_path], [frame])[0]
        return Prepared(
            resize_image(kept, self.size)[None],
            resize_labels(labels, self.size),
            (True,) * LABEL_SPACE.num_labels,
            new_spacing(spacing, labels.shape, self.size),
        )


INFO = DatasetInfo(
    name="camus",
    description="CAMUS: 2-D apical echo of 500 patients, both views, end-diastole and end-systole; LV, LVM and LA",
    licence="the owners' terms, no redistribution; cite Leclerc et al. 2019",
    source="https://www.creatis.insa-lyon.fr/Challenge/camus/databases.html",
    options=CamusOptions,
    load=load,
)
