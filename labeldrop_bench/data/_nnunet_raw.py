"""The files of a data set in nnU-Net's raw format: what dataset.json says, and which cases lie in the folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, field_validator

from labeldrop_bench.data._files import list_files, not_taken
from labeldrop_bench.data._pictures import PICTURES
from labeldrop_bench.data.prepare import Case, DataProblem
from labeldrop_bench.records import explain
from labeldrop_bench.text import TextError, read_text

TRAIN, TEST = "Tr", "Ts"


class Files(BaseModel):
    """One entry of `dataset` in dataset.json: the images of a case, one for each channel, and its label map."""

    images: tuple[str, ...] = Field(min_length=1)
    label: str


class Description(BaseModel):
    """What counts of dataset.json."""

    channel_names: dict[str, str] = Field(min_length=1)
    labels: dict[str, int | tuple[int, ...]]
    num_training: int = Field(alias="numTraining")
    file_ending: str
    dataset: dict[str, Files] | None = None
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

    @property
    def pictures(self) -> bool:
        """Whether the files are pictures, which are never volumes."""
        return self.file_ending.lower() in PICTURES


def _values(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else value


def describe(folder: Path) -> Description:
    """What dataset.json says.

    Raises:
        ValueError: it is not in the format of nnU-Net 2.
    """
    path = folder / "dataset.json"
    try:
        table = json.loads(read_text(path))
        return Description.model_validate(table)
    except TextError as error:
        raise ValueError(f"nnunet: {error}") from error
    except ValidationError as error:
        lines = explain(error, Description, table)
        raise ValueError(f"nnunet: {path} is not in the format of nnU-Net 2:\n  {lines}") from error
    except ValueError as error:
        raise ValueError(f"nnunet: {path} is not in the format of nnU-Net 2: it is no JSON: {error}") from error


@dataclass(frozen=True)
class Found:
    """What lies in images.. and labels..; `not_taken` has lines on what is no case's."""

    cases: list[Case]
    problems: list[DataProblem]
    not_taken: tuple[str, ...]


def list_cases(folder: Path, part: str, description: Description) -> Found:
    """Whole cases of the training or the test part, with all their channels; their domain is not told yet.

    Those of training are what `dataset` in dataset.json names, or lie in imagesTr and labelsTr. Without any label map,
    imagesTs has none.
    """
    if part == TRAIN and description.dataset is not None:
        return _named(folder, description, description.dataset)
    ending = description.file_ending
    in_images, in_labels = (list_files(folder / f"{kind}{part}", (ending,)) for kind in ("images", "labels"))
    if part == TEST and not in_labels.files:
        return Found([], [], in_labels.not_taken)
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
        wrong = _wrong_channels(folder / f"images{part}", name, channels, description)
        problems += wrong
        if name not in in_labels.files:
            problems.append(DataProblem(folder / f"labels{part}" / f"{name}{ending}", "not there, but its image is"))
        elif not any(number not in channels for number in _needed(channels, description)):
            files = [channels[n] for n in _needed(channels, description)]
            cases.append(Case(name, name, 0, (*files, in_labels.files[name])))
    reasons = {"no channel number such as _0000 stands before their ending": nameless}
    rest = not_taken(folder / f"images{part}", reasons)
    return Found(cases, problems, (*in_images.not_taken, *in_labels.not_taken, *rest))


def _needed(channels: Collection[int], description: Description) -> range:
    """Numbers of the files that a case needs: one for each channel, but one colour picture may hold all."""
    whole = description.pictures and set(channels) == {0}
    return range(1 if whole else len(description.channel_names))


def _wrong_channels(
    place: Path, name: str, channels: Mapping[int, Path], description: Description
) -> list[DataProblem]:
    missing = [n for n in _needed(channels, description) if n not in channels]
    return [
        *(
            DataProblem(place / f"{name}_{n:04d}{description.file_ending}", f"not there, but {name} needs it")
            for n in missing
        ),
        *(
            DataProblem(path, f"channel {n} is not in channel_names of dataset.json; name it there or take it away")
            for n, path in channels.items()
            if n not in range(len(description.channel_names))
        ),
    ]


def _named(folder: Path, description: Description, named: Mapping[str, Files]) -> Found:
    """The cases that `dataset` names; paths are relative to the folder, and may hold variables of the environment."""
    cases, problems = [], []
    where, ending = folder / "dataset.json", description.file_ending
    for name, files in sorted(named.items()):
        paths = [folder / os.path.expandvars(file) for file in (*files.images, files.label)]
        needed = _needed(range(len(files.images)), description)
        bad = [
            DataProblem(path, f"must end in {ending}, the file_ending of dataset.json, which names it for {name}")
            for path in paths
            if not path.name.lower().endswith(ending.lower())
        ]
        bad += [DataProblem(p, f"not there, but dataset.json names it for {name}") for p in paths if not p.is_file()]
        if len(files.images) != len(needed):
            text = f"dataset: {name} must name {len(needed)} image(s), one for each channel, got {len(files.images)}"
            bad.append(DataProblem(where, text))
        problems += bad
        cases += [] if bad else [Case(name, name, 0, tuple(paths))]
    return Found(cases, problems, ())
