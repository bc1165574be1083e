"""Looks at the data of a suite before anything is trained: what training sees, what can be scored, what is wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from labeldrop_bench import data
from labeldrop_bench.data.base import Dataset, Samples, known_classes
from labeldrop_bench.data.edits import edited, setting
from labeldrop_bench.records import DataConfig, explain

_LISTED = 8  # labels; of more, those with the commonest number stand together


@dataclass(frozen=True)
class Checked:
    """What was found out about one `[data]` table.

    Attributes:
        lines: the text to show, problems or counts.
        good: it could be loaded.
    """

    lines: tuple[str, ...]
    good: bool


def check(tables: Iterable[DataConfig]) -> list[Checked]:
    """Loads data sets and does to them what their tables say.

    Args:
        tables: the same one again is looked at once; neighbours with the same options share what is loaded.
    """
    different: list[DataConfig] = []
    for table in tables:
        if table not in different:
            different.append(table)
    found, last = [], None
    for table in different:
        key = (table.name, table.options)
        if last is None or last[0] != key:
            last = None  # before the next one is loaded: two may not fit into memory
            last = (key, _load(*key))
        found.append(_checked(table, last[1]))
    return found


def _load(name: str, options: dict[str, Any]) -> Dataset | list[str]:
    """The data set by its own options; or what is wrong with it."""
    try:
        info = data.get(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what was left out is listed by `describe`
            return info.load(info.options.model_validate(options))
    except ValidationError as error:
        lines = explain(error, info.options, options, "data.", DataConfig.model_fields).splitlines()
        return [line.removeprefix("  ") for line in lines]
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        return str(error).splitlines()


def _checked(table: DataConfig, dataset: Dataset | list[str]) -> Checked:
    """What a table makes of its data set."""
    given = table.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    heading = f"{table.name}: {', '.join(f'{key} = {value!r}' for key, value in given.items()) or 'its defaults'}"
    good = isinstance(dataset, Dataset)
    try:
        lines = describe(edited(dataset, table)) if isinstance(dataset, Dataset) else dataset
    except ValueError as error:
        lines, good = str(error).splitlines(), False
    return Checked((heading, *(f"  {line}" for line in lines)), good)


def describe(dataset: Dataset) -> list[str]:
    """Images of each domain and split, those in which training sees each label, and those in which it can be scored."""
    space = dataset.label_space
    labels, classes = [label.name for label in space.labels], list(space.classes)
    rows = [["domain", "split", "images", "annotated (what training sees)", "known (what can be scored)"]]
    for d, name in enumerate(dataset.domains):
        for split, samples in dataset.splits().items():
            here = samples.domain == d
            counts = _counted(labels, samples.annotated[here]), _counted(classes, samples.known[here])
            rows.append([name, split, str(int(here.sum())), *counts])
    shape = " x ".join(map(str, dataset.train.images.shape[2:]))
    channels = dataset.train.images.shape[1]
    lines = [f"images: {shape}, {channels} channel{'s' * (channels > 1)}", *_columns(rows), *_unscored(dataset)]
    return [*lines, *never_shown(dataset), *(f"left out: {line}" for line in dataset.skipped)]


def never_shown(dataset: Dataset) -> list[str]:
    """A sentence for each label that counts as annotated in a domain, is in none of its images, and is in others'.

    Most often nobody annotated it there. Taken at its word, training learns that images like these never show it.
    """
    labels = [label.name for label in dataset.label_space.labels]
    pixels = torch.zeros(len(dataset.domains), 256, dtype=torch.int64)
    annotated = torch.zeros(len(dataset.domains), len(labels), dtype=torch.bool)
    for samples in dataset.splits().values():
        for d, target, of_sample in zip(samples.domain.tolist(), samples.target, samples.annotated, strict=True):
            pixels[d] += torch.bincount(target.flatten().int(), minlength=256)
            annotated[d] |= of_sample
    shown = pixels[:, : len(labels)] > 0
    suspect = annotated & ~shown & shown.any(0)
    lines = []
    for d, domain in enumerate(dataset.domains):
        absent = [labels[v] for v in suspect[d].nonzero().flatten().tolist()]
        rest = [labels[v] for v in (annotated & shown)[d].nonzero().flatten().tolist() if v]
        if absent:
            lines.append(
                f"no image of {domain} shows {', '.join(absent)}, although that counts as annotated there: if nobody "
                f"annotated it, say what was, {setting('annotated', domain, rest)}; otherwise training learns that "
                f"such images have none"
            )
    return lines


def _unscored(dataset: Dataset) -> list[str]:
    """What the scores will leave out, and whether any of them tells of what is unannotated."""
    space, test = dataset.label_space, dataset.test
    shown, unannotated, lines = _shown(test, space.num_classes), [], []
    covered = known_classes(space, dataset.train.annotated)
    for d, domain in enumerate(dataset.domains):
        of_test, of_training = test.domain == d, dataset.train.domain == d
        known = (test.known & of_test[:, None]).any(0)
        seen = (shown & test.known & of_test[:, None]).any(0)
        lines += [
            f"no test image of {domain} shows {space.classes[c]}, which is left out of the scores there"
            for c in (known & ~seen).nonzero().flatten().tolist()
            if c
        ]
        unannotated += seen[~covered[of_training].any(0)].tolist()
    if unannotated and not any(unannotated):
        lines.append(
            "nothing that is unannotated in training can be scored: the leaderboard ranks by what is annotated, and "
            "shows how often the rest is found"
        )
    return lines


def _shown(samples: Samples, num_classes: int) -> Tensor:
    """[n, K] bool: does an image's truth have a pixel of the class?"""
    return torch.stack([(samples.truth == c).flatten(1).any(1) for c in range(num_classes)], dim=1)


def _counted(names: Sequence[str], chosen: Tensor) -> str:
    """In how many of the samples each foreground name is chosen; of many names, those that differ from the rest."""
    numbers = dict(zip(names[1:], chosen.sum(0).tolist()[1:], strict=True))
    common, often = Counter(numbers.values()).most_common(1)[0]
    if len(numbers) <= _LISTED or often == 1:
        return ", ".join(f"{name} {n}" for name, n in numbers.items())
    rest = [f"{name} {n}" for name, n in numbers.items() if n != common]
    return ", ".join([f"{often} of {len(numbers)} labels {common}", *rest])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
