"""Unity Imaging: echo pictures from many machines, in which experts drew curves.

How a picture becomes a sample: read as grey values, everything outside of the ultrasound sector made black
(`crop_cone`: text and ECG would tell the machine), each curve made a region of label values, both resized to `size`
(image: bilinear, averaging over pixels that shrink into one; labels: nearest) without keeping the aspect ratio, as in
`camus`.

How a curve becomes a region: an open natural cubic spline runs through its nodes, over the length of the chords between
them, and a straight line closes it (for the left ventricle from hinge to hinge). Pixels whose centres lie inside belong
to the region. Where regions overlap, the curve named last in `curves` has the pixel; the myocardium (between
`epicardium` and the curve of LV) is below all others.

Which labels are annotated: a curve that is drawn. One that is blurred or not there is not annotated in that picture;
neither is one that is "off" (out of the picture, or not asked for), unless `off` says otherwise. The myocardium is
annotated where both of its curves are. Pictures in which no label is annotated are left out.

Splits: labels-train, labels-tune and labels-ival (in older releases labels-val) are for training, validation and
testing. Where there is no labels-tune, validation is taken by chance from the videos of labels-train; where only
labels-all is there, all videos are split by chance. The owners tell no patients, so frames of one video stay together.

Source: Unity Imaging Collaborative; Howard et al., Automated left ventricular dimension assessment using artificial
intelligence developed and validated by a UK-wide collaborative, Circulation: Cardiovascular Imaging 14 (2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from labeldrop_bench.data._curves import Curve, Labels, listed_pictures, parse_curve, picture_file, region
from labeldrop_bench.data._files import masked_to_cone
from labeldrop_bench.data._options import SplitOptions, by_chance
from labeldrop_bench.data._resample import resize_image, resize_labels
from labeldrop_bench.data.base import Dataset, DatasetInfo, Size, find_folder, hint
from labeldrop_bench.data.case_file import Prepared
from labeldrop_bench.data.decode import read_grey
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare
from labeldrop_bench.extras import require
from labeldrop_bench.label_space import LabelSpace

_FILES = {
    "train": ("labels-train.json",),
    "tune": ("labels-tune.json",),
    "ival": ("labels-ival.json", "labels-val.json"),
}
_ALL = "labels-all.json"
_WALL = "LVM"
_FAR = 10  # sides of the picture: curves do leave it, but not like this


class UnityOptions(SplitOptions):
    """Keys of the `[data]` table, besides those of `SplitOptions`.

    Attributes:
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names. It holds
            `png-cache/`, and the label files themselves or in `labels/`.
        size: (height, width) of the samples in pixels, or one number for both.
        curves: name of the label -> name of its curve in the label files.
        epicardium: name of the curve around the myocardium; with it there is a label LVM, after LV.
        off: what a curve of type "off" means: "unknown" (not annotated) or "absent" (annotated, with no pixel).
        crop_cone: make everything outside of the ultrasound sector black.
    """

    folder: str = "Unity"
    size: Size = (256, 256)
    curves: dict[str, str] = Field(default={"LV": "curve-lv-endo", "LA": "curve-la-endo"}, min_length=1)
    epicardium: str | None = None
    off: Literal["unknown", "absent"] = "unknown"
    crop_cone: bool = True

    @model_validator(mode="after")
    def _fits(self) -> UnityOptions:
        if "background" in self.curves or (self.epicardium and (_WALL in self.curves or "LV" not in self.curves)):
            raise ValueError(
                f"curves must leave background out, and with epicardium have LV and leave {_WALL} out, "
                f"got {list(self.curves)}"
            )
        return self

    def label_names(self) -> tuple[str, ...]:
        """Of all labels but background, in the order of their values."""
        names = list(self.curves)
        if self.epicardium:
            names.insert(names.index("LV") + 1, _WALL)
        return tuple(names)

    def curve_names(self) -> dict[str, str]:
        """Label -> its curve (the myocardium: the outer one); the myocardium first, since it lies below the others."""
        return {**({_WALL: self.epicardium} if self.epicardium else {}), **self.curves}


def load(options: UnityOptions) -> Dataset:
    """Reads the folder.

    Raises:
        ValueError: no data folder given; a label file that is no JSON; a curve that no picture has; or bad data, all of
            it listed: missing or truncated picture, name of a picture or type of a curve that is none, curve with nodes
            that are no numbers or too few or that encloses nothing, video in two splits, picture listed twice, picture
            without an ultrasound sector.
        FileNotFoundError: a folder or its label files are not there.
        MissingPackageError: scikit-image is not installed.
    """
    root = find_folder("unity", options.root, options.folder)
    require("unity", "skimage")
    files = _label_files(root)
    problems: list[DataProblem] = []
    pictures = {role: listed_pictures(path, problems) for role, path in files.items()}
    _check_names(options, files, pictures)
    cases = {role: list(_cases(root / "png-cache", files[role], pictures[role], options, problems)) for role in files}
    part_of = _parts(options, files, cases, problems)
    kept, prepared, skipped = prepare(
        [case for several in cases.values() for case in several if case.patient in part_of],
        _Read(options.label_names(), options.size, options.crop_cone),
        name="unity",
        settings={"labels": options.label_names(), "size": options.size, "crop_cone": options.crop_cone},
        skip_bad=options.skip_bad,
        problems=problems,
    )
    space = LabelSpace.of_classes(("background", *options.label_names()))
    return assemble(space, ("Unity",), kept, prepared, part_of, skipped)


def _label_files(root: Path) -> dict[str, Path]:
    """Role ("train", "ival", and "tune" if there is one; or "all" alone) -> label file."""
    folders = [folder for folder in (root, root / "labels") if any(folder.glob("labels-*.json"))]
    if len(folders) != 1:
        raise FileNotFoundError(
            f"unity: the files labels-*.json must lie in {root} or in {root / 'labels'}, and are in "
            f"{'both' if folders else 'neither'}"
        )
    (folder,) = folders
    found = {role: [folder / name for name in names if (folder / name).is_file()] for role, names in _FILES.items()}
    if len(found["ival"]) > 1:
        raise ValueError(f"unity: {folder} holds labels-ival.json and labels-val.json; leave that of one release")
    files = {role: paths[0] for role, paths in found.items() if paths}
    if {"train", "ival"} <= set(files):
        return files
    if files or not (folder / _ALL).is_file():
        raise FileNotFoundError(
            f"unity: {folder} must hold labels-train.json and labels-ival.json (or labels-val.json), or {_ALL} "
            f"alone; of the former there is: {', '.join(path.name for path in files.values()) or 'none'}"
        )
    return {"all": folder / _ALL}


def _check_names(
    options: UnityOptions, files: Mapping[str, Path], pictures: Mapping[str, Mapping[str, Labels]]
) -> None:
    """Raises ValueError for a curve that no picture has: its name differs between releases."""
    known = sorted({name for listed in pictures.values() for labels in listed.values() for name in labels})
    for label, curve in options.curve_names().items():
        if curve not in known:
            key = "epicardium" if label == _WALL else f"curves.{label}"
            where = ", ".join(str(path) for path in files.values())
            raise ValueError(f"unity: {key}: no picture has a label {curve!r}{hint(curve, known)}\n(in {where})")


def _cases(
    cache: Path, file: Path, pictures: Mapping[str, Labels], options: UnityOptions, problems: list[DataProblem]
) -> Iterator[Case]:
    """A case for each picture in which a label is annotated."""
    for name, labels in pictures.items():
        curves: dict[str, Curve] = {}
        try:
            for label, curve in options.curve_names().items():
                place = f"{file}, {name}.png, {curve}"
                curves[label] = parse_curve(place, labels.get(curve), options.off == "absent")
        except DataProblem as problem:
            problems.append(problem)
            continue
        if options.epicardium and not _same(curves[_WALL], curves["LV"]):
            curves[_WALL] = {"annotated": False, "nodes": []}  # one of its two borders is not known
        if any(curve["annotated"] for curve in curves.values()):
            yield Case(name, _video(name), 0, (picture_file(cache, name),), {"file": str(file), "curves": curves})


def _same(outer: Curve, inner: Curve) -> bool:
    """Whether both are drawn, or both annotated as absent."""
    return outer["annotated"] and inner["annotated"] and bool(outer["nodes"]) == bool(inner["nodes"])


def _video(name: str) -> str:
    """The name of a picture without the number of its frame."""
    return name.rpartition("-")[0]


def _parts(
    options: UnityOptions, files: Mapping[str, Path], cases: Mapping[str, Sequence[Case]], problems: list[DataProblem]
) -> dict[str, int]:
    """Video -> 0 (training), 1 (validation) or 2 (test). Videos in two files are left out."""
    videos = {role: {case.patient for case in several} for role, several in cases.items()}
    if "all" in videos:
        return options.split(videos["all"])
    part_of = {video: part for part, role in enumerate(_FILES) for video in videos.get(role, ())}
    if "tune" not in videos:
        part_of |= by_chance(videos["train"], (1 - options.validation, options.validation), options.seed)
    for video in list(part_of):
        where = [files[role].name for role in videos if video in videos[role]]
        if len(where) > 1:
            problems.append(
                DataProblem(files["train"].parent, f"video {video} is in {' and '.join(where)}; leave it in one")
            )
            del part_of[video]
    return part_of


@dataclass(frozen=True)
class _Read:
    """Reads a picture and draws the regions of `case.details["curves"]`."""

    labels: tuple[str, ...]
    size: tuple[int, int]
    crop_cone: bool

    def __call__(self, case: Case) -> Prepared:
        (path,) = case.inputs
        image = read_grey(path)
        curves: Mapping[str, Curve] = case.details["curves"]
        _check_places(f"{case.details['file']}, {case.name}.png", curves, max(image.shape))
        regions = {label: region(curve["nodes"], image.shape) for label, curve in curves.items()}
        for label, inside in regions.items():
            if curves[label]["nodes"] and not inside.any():
                raise DataProblem(
                    f"{case.details['file']}, {case.name}.png", f"the curve of {label} encloses no pixel; correct it"
                )
        values = np.zeros(image.shape, np.uint8)
        for label, inside in regions.items():  # the myocardium first, below the others
            values[inside] = self.labels.index(label) + 1
        if self.crop_cone:
            image = masked_to_cone(path, image)
        annotated = (True, *(curves[label]["annotated"] for label in self.labels))
        return Prepared(resize_image(image, self.size)[None], resize_labels(values, self.size), annotated)


def _check_places(place: str, curves: Mapping[str, Curve], side: int) -> None:
    """Raises DataProblem for nodes that lie so far out that they are no pixels: a spline through them has no end."""
    for label, curve in curves.items():
        far = [number for x, y in curve["nodes"] for number in (*x, *y) if abs(number) > _FAR * side]
        if far:
            raise DataProblem(place, f"the curve of {label} must lie in the picture, got a node at {far[0]}")


INFO = DatasetInfo(
    name="unity",
    description="Unity Imaging: echo pictures of many machines with expert curves; LV and LA, and LVM if annotated",
    licence="the owners' terms, no redistribution; cite the Unity Imaging Collaborative",
    source="https://data.unityimaging.net",
    options=UnityOptions,
    load=load,
)
