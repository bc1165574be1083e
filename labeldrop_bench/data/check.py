"""Looks at the data of a suite before anything is trained: what is there, or everything that is wrong with it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from labeldrop_bench import data
from labeldrop_bench.data.base import Dataset


@dataclass(frozen=True)
class Checked:
    """What was found out about one `[data]` table.

    Attributes:
        lines: the text to show, problems or counts.
        good: it could be loaded.
    """

    lines: tuple[str, ...]
    good: bool


def check(tables: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Checked]:
    """Loads data sets as their owners drew them, before a suite hides any labels.

    Args:
        tables: name and options of each; the same pair again is looked at once.
    """
    different: list[tuple[str, Mapping[str, Any]]] = []
    for table in tables:
        if table not in different:
            different.append(table)
    return [_check(name, options) for name, options in different]


def _check(name: str, options: Mapping[str, Any]) -> Checked:
    given = ", ".join(f"{key} = {value!r}" for key, value in options.items())
    heading = f"{name}: {given or 'its defaults'}"
    try:
        info = data.get(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what was left out is listed below
            dataset = info.load(info.options.model_validate(options))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        lines = str(error).splitlines()
    else:
        return Checked((heading, *(f"  {line}" for line in describe(dataset))), good=True)
    return Checked((heading, *(f"  {line}" for line in lines)), good=False)


def describe(dataset: Dataset) -> list[str]:
    """Samples in each split, and those in which each label is drawn, by domain; and what was left out."""
    labels = [label.name for label in dataset.label_space.labels[1:]]
    rows: list[list[str]] = [["domain", *dataset.splits(), "images with each label drawn"]]
    domain = torch.cat([split.domain for split in dataset.splits().values()])
    annotated = torch.cat([split.annotated for split in dataset.splits().values()])  # [n, L]
    for d, name in enumerate(dataset.domains):
        counts = [str(int((split.domain == d).sum())) for split in dataset.splits().values()]
        drawn = annotated[domain == d].sum(0).tolist()[1:]
        rows.append([name, *counts, ", ".join(f"{label} {n}" for label, n in zip(labels, drawn, strict=True))])
    shape = " x ".join(map(str, dataset.train.images.shape[2:]))
    channels = dataset.train.images.shape[1]
    lines = [f"images: {shape}, {channels} channel{'s' * (channels > 1)}", *_columns(rows)]
    return lines + [f"left out: {line}" for line in dataset.skipped]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
