"""examples.npz: a few test images with what a run made of them, for people to look at."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from labeldrop_bench.records.config import RunConfig
from labeldrop_bench.records.files import run_directory, write_bytes

FILE = "examples.npz"


@dataclass(frozen=True)
class Example:
    """One test image; of a volume, its middle slice along the first axis.

    Attributes:
        case, domain: as the data set names them.
        classes: names of all classes, background first.
        image: [H, W] uint8, of its first channel, darkest 0 and brightest 255.
        truth: [H, W] uint8 class map; 255 is unknown.
        prediction: [H, W] uint8 class map.
        maps: further maps of a loss in [0, 1], such as the probability that a label is flipped: name ->
            [H, W] uint8, 255 for 1.
    """

    case: str
    domain: str
    classes: tuple[str, ...]
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    maps: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


def write_examples(directory: Path, examples: Sequence[Example]) -> None:
    """Write what `read_examples` gives back into a run's directory."""
    arrays: dict[str, Any] = {}
    for i, example in enumerate(examples):
        named = {"image": example.image, "truth": example.truth, "prediction": example.prediction}
        maps = {f"map/{name}": values for name, values in example.maps.items()}
        words = {name: np.array(getattr(example, name)) for name in ("case", "domain", "classes")}
        arrays.update({f"{i}/{name}": values for name, values in {**named, **maps, **words}.items()})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(directory / FILE, buffer.getvalue())


def read_examples(directory: Path, config: RunConfig) -> tuple[Example, ...]:
    """The examples of a finished run; none if it kept none.

    Raises:
        ValueError: the file does not hold what it should.
    """
    path = run_directory(directory, config) / FILE
    if not path.exists():
        return ()
    try:
        with np.load(path, allow_pickle=False) as content:
            numbers = sorted({int(name.partition("/")[0]) for name in content.files})
            return tuple(
                _example({n.partition("/")[2]: content[n] for n in content.files if int(n.partition("/")[0]) == i})
                for i in numbers
            )
    except (
        EOFError,
        NotImplementedError,
        BadZipFile,
        zlib.error,
    ) as error:  # empty, cut off, other bytes
        raise ValueError(f"no whole archive of arrays: {error}") from error


def _example(arrays: Mapping[str, NDArray[np.uint8]]) -> Example:
    try:
        return Example(
            case=str(arrays["case"]),
            domain=str(arrays["domain"]),
            classes=tuple(map(str, arrays["classes"])),
            image=arrays["image"],
            truth=arrays["truth"],
            prediction=arrays["prediction"],
            maps={name.removeprefix("map/"): values for name, values in arrays.items() if name.startswith("map/")},
        )
    except KeyError as error:
        raise ValueError(f"an example without {error}") from error
