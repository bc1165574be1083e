"""What lies in a folder: cases, headers, and which labels the label maps show."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from labeldrop_bench.data import folder, nnunet
from labeldrop_bench.data._nnunet_raw import describe
from labeldrop_bench.data._pictures import PICTURES
from labeldrop_bench.data.base import Grid
from labeldrop_bench.data.decode import check_same_grid, label_values, read, read_place
from labeldrop_bench.data.edits import read_annotated
from labeldrop_bench.data.prepare import Case, DataProblem
from labeldrop_bench.errors import UserError
from labeldrop_bench.extras import require

Say = Callable[[str], None]
MOST_PIXELS = 4_000_000_000
"""Pixels of label maps that are read of one source, about a minute's worth; of more, a sample of the cases."""
_LARGE = 50_000_000  # bytes: no table of cases and labels is that long
_MANY = 60  # labels without names: more likely grey values, of masks that were scaled or stored with loss
_COLOURS_LOOKED_AT = 20  # pictures that say whether a folder's have colours


_OTHERS = {"camus": ("database_nifti",), "echonet_dynamic": ("Videos", "FileList.csv"), "unity": ("png-cache",)}
"""Data sets with readers of their own, and what lies in their folders."""


class InitError(UserError, ValueError):
    """A folder that no suite can be written for."""


@dataclass(frozen=True)
class Source:
    """One data set on disk.

    Attributes:
        kind: registered name of its reader.
        folder: absolute path; of nnU-Net's data sets the one with dataset.json.
        name: what it is called among others.
        channels: their names.
        labels: name -> value in the files; of nnU-Net's regions the value that they have in the reader's label space.
        files: case -> name that patterns of `domains` and `group` see.
        told: case -> labels that were annotated in it, where the data set says so itself.
        test: cases of its own test split.
        grids: of the cases whose header can be read.
        shown: case -> labels that its label map shows; the cases whose map was read and is good.
        read: number of label maps that were read, bad ones too.
        copies: names of pictures that are the same file.
        problems: a line for each file that is bad.
        tables: CSV files beside it with the columns case and label.
    """

    kind: Literal["nnunet", "folder"]
    folder: Path
    name: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    files: dict[str, str]
    told: dict[str, frozenset[str]]
    test: frozenset[str]
    grids: tuple[Grid, ...]
    shown: dict[str, frozenset[str]]
    read: int
    copies: tuple[tuple[str, ...], ...]
    problems: tuple[str, ...]
    tables: tuple[Path, ...]

    @property
    def all_read(self) -> bool:
        """Whether no label map was left out to save time, so that what none of those read shows is nowhere."""
        return self.read == len(self.files)

    def count(self, label: str, cases: Sequence[str]) -> int:
        """How many of the cases show a label."""
        return sum(label in self.shown.get(case, ()) for case in cases)


def find(given: Path) -> list[Path]:
    """The data sets that a folder is, or holds.

    Raises:
        InitError: there is none; says what was looked for and what is there.
    """
    place = Path(os.path.abspath(given.expanduser()))  # noqa: PTH100 - links keep the name that the user knows
    if not place.is_dir():
        raise InitError(f"{place}: must be a folder, and {'is a file' if place.exists() else 'is not there'}")
    if _is_data_set(place):
        return [place]
    inside = [path for path in sorted(place.iterdir()) if not path.name.startswith(".") and path.is_dir()]
    if found := [path for path in inside if _is_data_set(path)]:
        return found
    for name, parts in _OTHERS.items():
        if all((place / part).exists() for part in parts):
            raise InitError(
                f"{place}: looks like the files of {name}, which has a reader of its own: in a suite file, [data] with "
                f"name = {name!r} and root = {str(place)!r}; `labeldrop-bench suites` lists suites for it"
            )
    there = [path.name + "/" * path.is_dir() for path in sorted(place.iterdir()) if not path.name.startswith(".")]
    listed = ", ".join(there[:10]) + (", ..." if there[10:] else "")
    raise InitError(
        f"{place}: looked for dataset.json (a data set in nnU-Net's raw format), for images/ with masks/ (pictures "
        f"beside masks of the same names), and for folders with either; found {listed or 'nothing'}"
    )


def _is_data_set(place: Path) -> bool:
    return (place / "dataset.json").is_file() or all((place / part).is_dir() for part in ("images", "masks"))


def look(place: Path, say: Say) -> Source:
    """Everything that a suite needs to know of a data set.

    Args:
        place: of `find`.
        say: takes lines on what takes long.

    Raises:
        InitError: it cannot be a data set, such as a dataset.json of another format.
    """
    try:
        source, label_maps, value_of = _nnunet(place) if (place / "dataset.json").is_file() else _folder(place)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise InitError(f"{place}: {error}") from error
    if not label_maps:
        lines = "\n  ".join(source.problems[:20]) or "no image with a label map"
        raise InitError(f"{place}: there is no case that could be read:\n  {lines}")
    chosen = _sample(label_maps, source.grids)
    say(f"{source.name}: {len(source.files)} cases; reading {len(chosen)} label maps")
    found = _shared_out(chosen)
    problems = [line for line in found if isinstance(line, str)]
    values = {case.name: values for case, values in zip(chosen, found, strict=True) if not isinstance(values, str)}
    if source.kind == "folder":
        there = sorted({v for of_case in values.values() for v in of_case} - {0})
        if len(there) > _MANY:
            say(f"{source.name}: the masks hold {len(there)} values: are they label maps, stored without loss?")
        source = replace(source, labels={f"label {value}": value for value in there if value < 256})
        value_of = {0: 0, **{value: value for value in there if value < 256}}
    name_of = {value: name for name, value in source.labels.items()}
    shown = {}
    for case in chosen:
        if case.name not in values:
            continue
        if unknown := [v for v in values[case.name] if v not in value_of]:
            problems.append(
                f"{case.inputs[-1]}: label values {unknown[:9]} are unknown; known: {sorted(value_of)[:99]}"
            )
            continue
        shown[case.name] = frozenset(name_of[value_of[v]] for v in values[case.name] if value_of[v] in name_of)
    return replace(source, shown=shown, read=len(chosen), problems=(*source.problems, *problems))


def _nnunet(place: Path) -> tuple[Source, list[Case], dict[int, int]]:
    """The data set, its cases, and stored value -> label value; its label maps are not read."""
    options = nnunet.NnunetOptions.model_validate({"root": place.parent, "dataset": place.name})
    description = describe(place)
    if not description.pictures:
        require("init", "nibabel", "SimpleITK", "skimage")
    space, value_of = nnunet.label_space_of(place, description, options)
    listing = nnunet.list_data(place, description, options)
    grids, _ = nnunet.grids_of(listing.cases, description, options)
    assert nnunet.INFO.short_name is not None  # noqa: S101 - for the type checker
    source = Source(
        "nnunet",
        place,
        nnunet.INFO.short_name(options),
        tuple(description.channel_names.values()),
        {label.name: value for value, label in enumerate(space.labels) if value},
        {case.name: case.name for case in listing.cases},
        {
            case: frozenset(said)
            for case, said in nnunet.annotated_of(place, description, space, dict(value_of)).items()
        },
        frozenset(listing.test_names),
        tuple(grids),
        {},
        0,
        (),
        (*map(str, listing.problems), *(() if listing.cases else listing.not_taken)),
        _tables(place),
    )
    return source, listing.cases, dict(value_of)


def _folder(place: Path) -> tuple[Source, list[Case], dict[int, int]]:
    """As `_nnunet`; which values its masks hold is not known yet."""
    options = folder.FolderOptions.model_validate({"root": place, "labels": {"any": 1}})
    listing = folder.list_data(place, options)
    step = max(1, len(listing.cases) // _COLOURS_LOOKED_AT)
    coloured = [_has_colours(case.inputs[0]) for case in listing.cases[::step]]
    source = Source(
        "folder",
        place,
        place.name or "folder",
        ("red", "green", "blue") if 2 * sum(coloured) > len(coloured) else ("grey",),
        {},
        {case.name: case.inputs[0].name for case in listing.cases},
        {},
        frozenset(),
        tuple(folder.grids_of(listing.cases)),
        {},
        0,
        _copies(listing.cases),
        (*map(str, listing.problems), *(() if listing.cases else listing.not_taken)),
        _tables(place),
    )
    return source, listing.cases, {}


def _copies(cases: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    """Names of cases whose images are the same, byte for byte; only files of one length are compared."""
    of_length: dict[int, list[Case]] = {}
    for case in cases:
        of_length.setdefault(case.inputs[0].stat().st_size, []).append(case)
    same: dict[bytes, list[str]] = {}
    for members in of_length.values():
        for case in members if len(members) > 1 else ():
            same.setdefault(hashlib.sha256(case.inputs[0].read_bytes()).digest(), []).append(case.name)
    return tuple(tuple(names) for names in same.values() if len(names) > 1)


def _tables(place: Path) -> tuple[Path, ...]:
    """CSV files in or beside a data set that say who annotated what."""
    found = []
    for path in (*sorted(place.glob("*.csv")), *sorted(place.parent.glob("*.csv"))):
        try:
            if not path.name.startswith(".") and path.stat().st_size < _LARGE and read_annotated(path):
                found.append(path)
        except ValueError:  # noqa: PERF203 - a table of something else
            continue
    return tuple(found)


def _has_colours(path: Path) -> bool:
    try:
        return len(read(path).values) == 3
    except DataProblem:  # it is named when it is read
        return False


def _sample(cases: Sequence[Case], grids: Sequence[Grid]) -> list[Case]:
    """All cases, or as many as can be read in time, evenly spread."""
    pixels = sum(float(np.prod(grid.shape)) for grid in grids) / max(1, len(grids))
    number = min(len(cases), max(1, int(MOST_PIXELS / max(1.0, pixels))))
    return [cases[i * len(cases) // number] for i in range(number)]


def _shared_out(cases: Sequence[Case]) -> list[list[int] | str]:
    """`_read_labels` of each, by several threads, with a bar where somebody looks."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        found = executor.map(_read_labels, cases)
        bar = track(found, "", len(cases), console=console, transient=True, disable=not console.is_terminal)
        return list(bar)


def _read_labels(case: Case) -> list[int] | str:
    """The values that a case's label map holds; or what is wrong with it.

    Pictures are read whole, as their reader will. Of the images of volumes this reads the headers alone.
    """
    *images, path = case.inputs
    try:
        stored = read(path, labels=True)
        there = stored if stored.affine is None else read_place(path).without_values()
        for image in images:
            given = read(image) if image.name.lower().endswith(PICTURES) else read_place(image).without_values()
            check_same_grid(path, there, image, given)
        return label_values(path, stored.values)[1]
    except DataProblem as problem:
        return str(problem)
