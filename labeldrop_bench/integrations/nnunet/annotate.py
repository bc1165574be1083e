"""Write into dataset.json which labels were annotated in which case, after a look at the label files."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.configuration import default_num_processes
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from tqdm import tqdm

from labeldrop_bench.errors import UserError, storage_error
from labeldrop_bench.text import read_text

from .annotations import KEY, AnnotationError, Annotations, label_names, listed

POOL_FROM = 32  # label files; fewer are read sooner than processes are started


@dataclass(frozen=True)
class RawDataset:
    """A data set in nnU-Net's raw format.

    Attributes:
        folder: where it lies.
        description: the content of its dataset.json.
        labels: names, in the order of their values.
        files: case -> its images and its label file.
    """

    folder: Path
    description: dict[str, Any]
    labels: tuple[str, ...]
    files: Mapping[str, Mapping[str, Any]]

    @property
    def copies(self) -> list[Path]:
        """Every dataset.json: this one, and the one that nnU-Net trains with, if it has been planned already."""
        found = [self.folder / "dataset.json"]
        if nnUNet_preprocessed.is_set():
            planned = Path(nnUNet_preprocessed.get()) / self.folder.name / "dataset.json"
            found += [planned] if planned.is_file() else []
        return found


def find_dataset(dataset: str) -> RawDataset:
    """A data set by its number, name or folder, as nnU-Net finds it.

    Raises:
        UserError: there is none, or its dataset.json cannot be used.
    """
    folder = Path(dataset)
    if not (folder / "dataset.json").is_file():
        folder = Path(_raw_root()) / name_of(dataset)
    path = folder / "dataset.json"
    if not path.is_file():
        raise UserError(f"there is no {path}: give the number, the name or the folder of a data set in nnUNet_raw")
    folder = folder.resolve()
    description = read_json(path)
    labels = label_names(description, path)
    files = get_filenames_of_train_images_and_targets(os.fspath(folder), json.loads(json.dumps(description)))
    return RawDataset(folder, description, labels, {str(case): entry for case, entry in files.items()})


def _raw_root() -> str:
    if not nnUNet_raw.is_set():
        raise UserError("nnUNet_raw is not set: export nnUNet_raw=FOLDER, or give the folder of the data set")
    return str(nnUNet_raw.get())


def name_of(dataset: str) -> str:
    """The name of a data set by its number or name.

    Raises:
        UserError: nnU-Net finds none, or more than one.
    """
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{dataset}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of a dataset.json.

    Raises:
        AnnotationError: it is none.
    """
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict) or "file_ending" not in content:
        raise AnnotationError(f"{path} is no dataset.json of nnU-Net 2: it must have the keys labels and file_ending")
    return content


def pixels_of(dataset: RawDataset) -> dict[str, dict[int, int]]:
    """Case -> value -> how many pixels of its label file have it; shows progress where stderr is a terminal.

    Raises:
        AnnotationError: lists the files that cannot be read.
    """
    files = {case: str(entry["label"]) for case, entry in dataset.files.items()}
    missing = [f"{path} is not there" for path in files.values() if not Path(path).is_file()]
    if missing:
        raise AnnotationError(listed("label files:", missing))
    images = next(iter(dataset.files.values()))["images"]
    reader = determine_reader_writer_from_dataset_json(dataset.description, images[0], verbose=False)()
    bar = tqdm(_each(partial(_count, reader), list(files.values())), "label files", len(files), disable=None)
    found = dict(zip(files, bar, strict=True))
    problems = [f"{files[case]}: {result}" for case, result in found.items() if isinstance(result, str)]
    if problems:
        raise AnnotationError(listed("label files that nnU-Net cannot read:", problems))
    return {case: result for case, result in found.items() if isinstance(result, dict)}


def _each(count: partial[dict[int, int] | str], paths: list[str]) -> Iterator[dict[int, int] | str]:
    """What it says about each file, in order."""
    if len(paths) < POOL_FROM or default_num_processes < 2:
        yield from map(count, paths)
        return
    with multiprocessing.get_context("spawn").Pool(min(default_num_processes, os.cpu_count() or 1)) as pool:
        yield from pool.imap(count, paths)


def _count(reader: BaseReaderWriter, path: str) -> dict[int, int] | str:
    """Value -> pixels of a label file, or why it cannot be read."""
    try:
        values, counts = np.unique(np.asarray(reader.read_seg(path)[0]), return_counts=True)
    except Exception as error:  # whatever a reader raises is this file's problem
        return f"{type(error).__name__}: {error}"
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def contradictions(annotations: Annotations, pixels: Mapping[str, Mapping[int, int]]) -> list[str]:
    """A line for each label that a file shows although it was not annotated in that case."""
    return [
        f"{case}: {annotations.labels[value]!r} is not among its annotated labels, but {found[value]} pixels have it"
        for case, found in pixels.items()
        for value in annotations.missing(case)
        if found.get(value)
    ]


def overview(
    annotations: Annotations, pixels: Mapping[str, Mapping[int, int]], source_of: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Lines on what was annotated together and how many cases show it, and warnings of labels that none shows.

    Args:
        annotations: what was annotated.
        pixels: of `pixels_of`.
        source_of: case -> what tells its source apart, if anything does.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for case in pixels:
        missing = annotations.missing(case)
        names = tuple(name for value, name in enumerate(annotations.labels) if value and value not in missing)
        groups[source_of.get(case, ""), names].append(case)
    lines, warnings = [], []
    for (source, names), cases in groups.items():
        shown = {name: sum(annotations.labels.index(name) in pixels[case] for case in cases) for name in names}
        found = ", ".join(f"{name} in {count}" for name, count in shown.items())
        which = f"{len(cases)} cases{f' {source}' if source else ''}"
        lines.append(f"{which}: {', '.join(names) or 'no label'} annotated; pixels of {found or 'none'}")
        warnings += [
            f"{name} counts as annotated in {which}, and none of them has a pixel of it: if nobody annotated it there, "
            f"say so"
            for name, count in shown.items()
            if count == 0
        ]
    return lines, warnings


def write(dataset: RawDataset, annotations: Annotations) -> list[Path]:
    """Write the key into every copy of dataset.json, whole or not at all; all else in them stays. Returns the files."""
    table = {case: [name for name in annotations.labels if name in of] for case, of in annotations.of_case.items()}
    for path in dataset.copies:
        _replace(path.resolve(), json.dumps({**read_json(path), KEY: table}, indent=4, ensure_ascii=False) + "\n")
    return dataset.copies


def _replace(path: Path, text: str) -> None:
    """Another name, then renamed: the file is the old one or the new one."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(path.stat().st_mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path) or error from error
