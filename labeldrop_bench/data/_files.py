"""What readers share that list the files of a folder or cut the sector out of an echo picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.data._beside import side_files
from labeldrop_bench.data.cone import crop_cone
from labeldrop_bench.data.prepare import DataProblem


@dataclass(frozen=True)
class Listed:
    """The files of one folder.

    Attributes:
        files: name without the ending -> file.
        problems: files of the same name.
        not_taken: a line for each reason why others are no data.
    """

    files: Mapping[str, Path]
    problems: tuple[DataProblem, ...]
    not_taken: tuple[str, ...]


def list_files(folder: Path, endings: Sequence[str]) -> Listed:
    """The data files in a folder; nothing in it is passed over in silence but hidden files, as the shell does it.

    Args:
        folder: need not be there.
        endings: of data files, such as (".nii.gz",), the longest one first; capitals do not count.
    """
    files: dict[str, Path] = {}
    problems, others, folders = [], [], []
    visible = [path for path in sorted(folder.glob("*")) if not path.name.startswith(".")]
    for path in visible:
        ending = next((e for e in endings if path.name.lower().endswith(e.lower())), None)
        if path.is_dir():
            folders.append(path.name)
        elif ending is None:
            others.append(path)
        elif (other := files.setdefault(path.name[: -len(ending)], path)) != path:
            problems.append(DataProblem(path, f"has the same name as {other.name}; leave one of them"))
    beside = {side for path in files.values() for side in side_files(path)}
    reasons = {
        f"the ending is not {' or '.join(endings)}": [path.name for path in others if path not in beside],
        "they are folders": folders,
    }
    return Listed(files, tuple(problems), tuple(not_taken(folder, reasons)))


def list_folders(place: Path) -> list[Path]:
    """The folders in a folder, without hidden ones."""
    return [path for path in sorted(place.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def not_taken(folder: Path, reasons: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """A line for each reason that applies to any name."""
    for reason, names in reasons.items():
        if names:
            yield f"{folder}: {len(names)} not taken, since {reason}: {', '.join(names)}"


def check_not_empty(path: Path, labels: NDArray[np.uint8]) -> None:
    """Raises DataProblem for a mask without any label."""
    if not labels.any():
        raise DataProblem(path, "mask is empty: no pixel has a label; draw it or leave the case out")


def masked_to_cone(path: Path, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`cone.crop_cone`, whose errors become problems of the file."""
    try:
        return crop_cone(image)
    except ValueError as error:
        text = f"no ultrasound sector found ({error}); leave it out, or set crop_cone to false"
        raise DataProblem(path, text) from error
