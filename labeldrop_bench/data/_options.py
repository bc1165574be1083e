"""Keys of the `[data]` table that the readers of files share, and splits by patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, field_validator, model_validator

from labeldrop_bench.data.split import grouped_split
from labeldrop_bench.records import Said


def _of_any_dimension(size: object) -> object:
    sides = [*size] if isinstance(size, (list, tuple)) else [size]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 16 for side in sides)
    if size is None or (whole and (len(sides) in (2, 3) or isinstance(size, int))):
        return size
    raise ValueError(
        f"size must be [height, width] in pixels, [D, H, W] in voxels, or one number for all axes, each 16 or more, "
        f"got {size!r}; leave it out to take the median of the cases"
    )


AnySize = Annotated[
    int | tuple[int, ...] | None,
    BeforeValidator(_of_any_dimension),
    Said("a list of two or three whole numbers from 16 up, or one alone for all axes"),
]
"""Option type of a size whose number of axes the files tell: as `Size`, or of volumes; None is for the data to say."""


class FileOptions(BaseModel):
    """Keys that all readers have.

    Attributes:
        root: the folder with the data set's files. A relative path begins at the folder of the suite file.
        skip_bad: leave out cases whose files are bad, with a warning, instead of raising an error that lists them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    root: Path | None = None
    skip_bad: bool = False


class SplitOptions(FileOptions):
    """Keys for data sets that may come without an official split.

    Attributes:
        validation, test: fractions of the patients where there is no official split; training takes the rest.
        seed: of that split.
    """

    validation: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitOptions:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation + test must leave something to training (be below 1), got {self.validation} + {self.test}"
            )
        return self

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Of training, validation and test."""
        return 1 - self.validation - self.test, self.validation, self.test

    def split(self, patients: Iterable[str]) -> dict[str, int]:
        """Patient -> 0 (training), 1 (validation) or 2 (test), by chance."""
        return by_chance(patients, self.fractions, self.seed)


class GroupOptions(SplitOptions):
    """Keys for anybody's files, where names may tell who belongs together.

    Attributes:
        group: regular expression on the name; cases for which its first group (the whole match if it has none) is the
            same are of one patient and stay in one split. By default each case is a patient.
    """

    group: str | None = None

    @field_validator("group")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"group must be a regular expression, got {pattern!r}: {error}") from error
        return pattern


def by_chance(patients: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, int]:
    """Patient -> index into `fractions`; the order of the patients does not matter."""
    names = sorted(set(patients))
    if not names:
        return {}
    parts = grouped_split(names, [0] * len(names), fractions, seed)
    return {name: int(part) for name, part in zip(names, parts, strict=True)}
