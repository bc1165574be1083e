"""EchoNet-Dynamic: apical four-chamber videos of 10 030 patients, the left ventricle traced in two frames of each.

How a traced frame becomes a sample: the frame is decoded to RGB and made grey by ITU-R 601 luma (Pillow's "L": one
fixed rule, as decoders differ otherwise); the tracing becomes a mask by the rule of the data set's authors: its first
line is the long axis and left out, the others' left ends followed by their right ends in reverse are a polygon, rounded
to whole pixels and filled. Image and mask are resized to `size` (bilinear, averaging over pixels that shrink into one;
nearest). The videos are masked by their owners, so `crop_cone` is off by default.

The first frame traced in the list is end-systole (small), the last one end-diastole (large). Videos with fewer than two
traced frames are left out, and listed in a warning; tracings of videos that FileList.csv does not list are not used.

Source: Ouyang et al., Video-based AI for beat-to-beat assessment of cardiac function, Nature 580 (2020).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.data._files import masked_to_cone, not_taken
from labeldrop_bench.data._options import FileOptions
from labeldrop_bench.data._pictures import grey
from labeldrop_bench.data._resample import resize_image, resize_labels
from labeldrop_bench.data.base import Dataset, DatasetInfo, Size, find_folder
from labeldrop_bench.data.case_file import Prepared
from labeldrop_bench.data.decode import told
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare
from labeldrop_bench.extras import require
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.text import read_rows

LABEL_SPACE = LabelSpace.of_classes(("background", "LV"))
_LIST, _TRACINGS = "FileList.csv", "VolumeTracings.csv"
_SPLITS = {"TRAIN": 0, "VAL": 1, "TEST": 2}
_CORNERS = ("X1", "Y1", "X2", "Y2")
_BACK = 0.02  # of the long axis; neighbouring chords of 20 are .05 apart

Line = tuple[float, ...]  # x1, y1, x2, y2
Tracings = dict[str, dict[int, list[Line]]]  # video -> frame -> lines, in the order of the file


class EchonetDynamicOptions(FileOptions):
    """Keys of the `[data]` table, besides those of `FileOptions`.

    Attributes:
        folder: where `root` is not given, root is this folder inside the one that LABELDROP_DATA names.
        size: (height, width) of the samples in pixels, or one number for both.
        crop_cone: make everything outside of the ultrasound sector black.
    """

    folder: str = "EchoNet-Dynamic"
    size: Size = (112, 112)
    crop_cone: bool = False


def load(options: EchonetDynamicOptions) -> Dataset:
    """Reads the folder.

    Raises:
        ValueError: no data folder given; a list without its columns; or bad files, all of them listed: missing or
            truncated video, frame beyond the end of its video, tracing that is no number or encloses nothing, video
            listed twice or in no known split.
        FileNotFoundError: a folder or one of its two lists is not there.
        MissingPackageError: PyAV or scikit-image is not installed.
    """
    root = find_folder("echonet_dynamic", options.root, options.folder)
    require("echonet_dynamic", "av", "skimage")
    problems: list[DataProblem] = []
    part_of = _listed(root / _LIST, problems)
    tracings, bad = _traced(root / _TRACINGS, problems)
    videos = sorted(set(part_of) - bad)
    untraced = [video for video in videos if len(tracings.get(video, ())) < 2]
    cases = list(_cases(root, sorted(set(videos) - set(untraced)), tracings))
    kept, prepared, skipped = prepare(
        cases,
        _Read(root / _TRACINGS, options.size, options.crop_cone),
        name="echonet_dynamic",
        settings={"size": options.size, "crop_cone": options.crop_cone},
        skip_bad=options.skip_bad,
        problems=problems,
        not_taken=[*not_taken(root / "Videos", {"fewer than two of their frames are traced": untraced})],
    )
    return assemble(LABEL_SPACE, ("EchoNet-Dynamic",), kept, prepared, part_of, skipped)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row of a table with its place, as in "FileList.csv, line 7"."""
    if not path.is_file():
        raise FileNotFoundError(f"echonet_dynamic: root must hold {_LIST}, {_TRACINGS} and Videos/; not there: {path}")
    table = read_rows(path)
    try:
        missing = [name for name in columns if name not in (table.fieldnames or ())]
        rows = [(f"{path}, line {table.line_num}", row) for row in table]
    except csv.Error as error:
        raise ValueError(f"echonet_dynamic: {path} is no table ({error}); download it again") from error
    if missing:
        raise ValueError(f"echonet_dynamic: {path} must have the columns {', '.join(missing)}; download it again")
    yield from rows


def _listed(path: Path, problems: list[DataProblem]) -> dict[str, int]:
    """Video without its ending -> 0 (training), 1 (validation) or 2 (test)."""
    part_of: dict[str, int] = {}
    twice = set()
    for place, row in _rows(path, ("FileName", "Split")):
        video, split = (row["FileName"] or "").removesuffix(".avi"), (row["Split"] or "").upper()
        if video in part_of:
            problems.append(DataProblem(place, f"video {video} is listed twice; leave one line"))
            twice.add(video)
        elif split not in _SPLITS or not video:
            problems.append(DataProblem(place, f"Split must be one of {', '.join(_SPLITS)}, got {split!r} ({video!r})"))
        else:
            part_of[video] = _SPLITS[split]
    return {video: part for video, part in part_of.items() if video not in twice}


def _traced(path: Path, problems: list[DataProblem]) -> tuple[Tracings, set[str]]:
    """The lines of every traced frame; and the videos of which a line is bad."""
    tracings: Tracings = {}
    bad = set()
    for place, row in _rows(path, ("FileName", *_CORNERS, "Frame")):
        video = (row["FileName"] or "").removesuffix(".avi")
        try:
            number, line = float(row["Frame"]), tuple(float(row[name]) for name in _CORNERS)  # "46.0" is a number too
            frame = int(number)
            if frame != number or frame < 0 or not all(map(math.isfinite, line)):
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            values = [row[name] for name in (*_CORNERS, "Frame")]
            text = f"{', '.join(_CORNERS)} must be numbers and Frame a whole number, got {values}; correct the line"
            problems.append(DataProblem(place, text))
            bad.add(video)
        else:
            tracings.setdefault(video, {}).setdefault(frame, []).append(line)
    return tracings, bad


def _cases(root: Path, videos: Sequence[str], tracings: Tracings) -> Iterator[Case]:
    for video in videos:
        frames = list(tracings[video])
        for instant, frame in (("ED", frames[-1]), ("ES", frames[0])):
            details = {"frame": frame, "lines": tracings[video][frame]}
            yield Case(f"{video}-{instant}", video, 0, (root / "Videos" / f"{video}.avi",), details)


@dataclass(frozen=True)
class _Read:
    """Reads the frame `case.details["frame"]` of a video; its mask from `case.details["lines"]`."""

    tracings: Path
    size: tuple[int, int]
    crop_cone: bool

    def __call__(self, case: Case) -> Prepared:
        (path,) = case.inputs
        frame, lines = case.details["frame"], case.details["lines"]
        image = read_frame(path, frame)
        labels = tracing_mask(lines, image.shape)
        place = f"the tracing of {path.name}, frame {frame}"
        if not labels.any():
            raise DataProblem(
                self.tracings, f"{place} is empty: its {len(lines)} line(s) enclose no pixel; correct them"
            )
        if not in_order(lines):
            raise DataProblem(
                self.tracings,
                f"{place} is no long axis followed by chords from one of its ends to the other ({len(lines)} lines): "
                f"was it traced twice, or the table sorted? Leave one tracing, in the order it was drawn",
            )
        if self.crop_cone:
            image = masked_to_cone(path, image)
        return Prepared(resize_image(image, self.size)[None], resize_labels(labels, self.size), (True, True))


def read_frame(path: Path, number: int) -> NDArray[np.uint8]:
    """[H, W] grey values of one frame of a video; the first is number 0.

    Raises:
        DataProblem: a video that cannot be read or ends before that frame.
    """
    import av

    decoded = 0
    with told(path), av.open(str(path)) as container:
        for picture in container.decode(video=0):
            if decoded == number:
                shown: NDArray[np.uint8] = grey(np.moveaxis(picture.to_ndarray(format="rgb24"), -1, 0))
                return shown
            decoded += 1
    raise DataProblem(
        path,
        f"frame {number} was traced, but the video ends after {decoded} frames; download it again, or correct Frame in "
        f"{_TRACINGS}",
    )


def tracing_mask(lines: list[Line], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """[H, W] uint8, 1 inside of a tracing: by the rule of the data set's authors.

    Args:
        lines: x1, y1, x2, y2 in pixels; the first is the long axis.
        shape: of the image, (height, width).
    """
    from skimage import draw

    mask = np.zeros(shape, np.uint8)
    x1, y1, x2, y2 = np.array(lines[1:], np.float64).reshape(-1, 4).T
    x, y = np.rint(np.concatenate([x1, x2[::-1]])), np.rint(np.concatenate([y1, y2[::-1]]))
    rows, columns = draw.polygon(y, x, shape)
    mask[rows, columns] = 1
    return mask


def in_order(lines: list[Line]) -> bool:
    """Whether chords follow each other along the long axis, so that their ends are a polygon.

    The middles of the chords are measured along the first line, in its lengths. They have to run one way, but for
    rounding (_BACK), and over more than half of it: a tracing that stands twice in the table runs there and back, and
    in a sorted one the first line is no long axis.

    Args:
        lines: x1, y1, x2, y2 in pixels; the first is the long axis.
    """
    ends = np.array(lines, np.float64).reshape(-1, 2, 2)  # [n, end, (x, y)]
    axis = ends[0, 1] - ends[0, 0]
    along = (ends[1:].mean(1) - ends[0, 0]) @ axis / max(float(axis @ axis), 1e-12)
    steps = np.diff(along)
    one_way = (steps > -_BACK).all() or (steps < _BACK).all()
    return bool(one_way and abs(along[-1] - along[0]) > 0.5)


INFO = DatasetInfo(
    name="echonet_dynamic",
    description="EchoNet-Dynamic: apical four-chamber videos of 10 030 patients, LV traced in two frames of each",
    licence="Stanford University Dataset Research Use Agreement: no redistribution, no commercial use",
    source="https://echonet.github.io/dynamic/",
    options=EchonetDynamicOptions,
    load=load,
)
