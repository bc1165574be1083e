"""Looks at the data of a suite before anything is trained: what training sees, what can be scored, what is wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from labeldrop_bench import data
from labeldrop_bench.data.base import Dataset, Samples, known_classes
from labeldrop_bench.data.edits import edited, setting
from labeldrop_bench.records import DataConfig, explain, toml

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


def check(tables: Iterable[tuple[str, DataConfig]]) -> list[Checked]:
    """Loads data sets and does to them what their tables say.

    Args:
        tables: each with the condition that it is of, or "". The same one again is looked at once; neighbours with the
            same options share what is loaded.
    """
    different: list[tuple[DataConfig, list[str]]] = []
    for condition, table in tables:
        names = next((names for other, names in different if other == table), None)
        if names is None:
            names = []
            different.append((table, names))
        names += [condition] if condition and condition not in names else []
    found, last = [], None
    for table, names in different:
        key = (table.name, table.options)
        if last is None or last[0] != key:
            last = None  # before the next one is loaded: two may not fit into memory
            last = (key, _load(*key))
        found.append(_checked(table, names, last[1]))
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


def _checked(table: DataConfig, conditions: Sequence[str], dataset: Dataset | list[str]) -> Checked:
    """What a table makes of its data set."""
    good = isinstance(dataset, Dataset)
    try:
        if isinstance(dataset, Dataset):
            lines = describe(edited(dataset, table), edited(dataset, table.model_copy(update={"hidden": ()})))
        else:
            lines = dataset
    except ValueError as error:
        lines, good = str(error).splitlines(), False
    heading = ", ".join([table.name, *(f"condition {name!r}" for name in conditions)])
    return Checked((heading, *(f"  {line}" for line in (*_given(table), *lines))), good)


def _given(table: DataConfig) -> list[str]:
    """What a table says, a line for each key and for each table in a list of tables."""
    lines = []
    for key, value in table.model_dump(mode="json", exclude={"name"}, exclude_defaults=True).items():
        tables = value if isinstance(value, list) and value and all(isinstance(each, dict) for each in value) else []
        lines += [f"{key}: {toml(each)}" for each in tables] or [f"{key} = {toml(value)}"]
    return lines


def describe(dataset: Dataset, whole: Dataset) -> list[str]:
    """What training sees of each domain and split, what can be scored there, and what a person should think about.

    Args:
        dataset: as it is trained on.
        whole: the same before labels were hidden.
    """
    space = dataset.label_space
    labels, classes = [label.name for label in space.labels], list(space.classes)
    rows = [["domain", "split", "images", "patients", "training sees", "can be scored"]]
    for d, name in enumerate(dataset.domains):
        for split, samples in dataset.splits().items():
            here = samples.domain == d
            patients = {p for p, inside in zip(samples.patients, here.tolist(), strict=True) if inside}
            annotated, there = samples.annotated[here], whole.splits()[split].annotated[here]
            seen = {label: _seen(annotated[:, v], there[:, v]) for v, label in enumerate(labels) if v}
            known = {c: str(int(samples.known[here, k].sum())) for k, c in enumerate(classes) if k}
            known = {c: "unknown" if number == "0" else number for c, number in known.items()}
            number = int(here.sum())
            cells = [_counted(seen), _counted(known)] if number else ["none", "none"]
            rows.append([name, split, str(number), str(len(patients)), *cells])
    return [
        _pictures(dataset),
        *_columns(rows),
        *_few(dataset),
        *_unscored(dataset),
        *never_shown(dataset),
        *(f"left out: {line}" for line in dataset.skipped),
    ]


def _pictures(dataset: Dataset) -> str:
    """Size, channels, unit of distances, classes."""
    space, images = dataset.label_space, dataset.train.images
    shape, channels = " x ".join(map(str, images.shape[2:])), images.shape[1]
    unit = "pixels" if bool(dataset.test.spacing.isnan().any()) else "mm"
    several = {x.name: [space.classes[c] for c in sorted(x.classes)] for x in space.labels if len(x.classes) > 1}
    labels = "".join(f"; label {name} = {' or '.join(members)}" for name, members in several.items())
    named = f"{len(space.classes) - 1} class{'es' * (len(space.classes) > 2)}: {', '.join(space.classes[1:])}{labels}"
    return f"images: {shape}, {channels} channel{'s' * (channels > 1)}; distances in {unit}; {named}"


def _seen(annotated: Tensor, there: Tensor) -> str:
    """What training sees of a label, both [n] bool: in how many images, and whether an experiment hides it."""
    seen, hidden = int(annotated.sum()), int((there & ~annotated).sum())
    if hidden:
        return f"{seen}, hidden in {hidden}" if seen else "hidden"
    return str(seen) if seen else "unannotated"


def _few(dataset: Dataset) -> list[str]:
    """Sentences on splits that hang on one patient of a domain, or on none."""
    lines: list[str] = []
    trained = {d for d in range(len(dataset.domains)) if bool((dataset.train.domain == d).any())}
    for split, consequence in _ONE.items():
        samples = dataset.splits()[split]
        patients = set(zip(samples.domain.tolist(), samples.patients, strict=True))
        counts = Counter(d for d, _ in patients)
        for number, words in enumerate(("no patient", "a single patient")):
            domains = [dataset.domains[d] for d in sorted(trained | {*counts}) if counts[d] == number]
            if domains:
                lines.append(f"{words} of {_some(domains)} in {split}: {consequence[number]}")
    return lines


_ONE = {
    "validation": (
        "the epoch that is kept is chosen without it; give validation a larger share",
        "the epoch that is kept hangs on it; give validation a larger share, or more patients",
    ),
    "test": (
        "nothing is scored there; give test a larger share",
        "its scores say nothing of other patients; give test a larger share, or more patients",
    ),
}
"""Split -> what follows from no patient of a domain, and from one."""


def never_shown(dataset: Dataset) -> list[str]:
    """A sentence for each label that counts as annotated in a domain, is in none of its images, and is in others'.

    Most often nobody annotated it there. Taken at its word, training learns that images like these never show it.
    """
    labels = [label.name for label in dataset.label_space.labels]
    pixels = torch.zeros(len(dataset.domains), 256, dtype=torch.int64)
    annotated = torch.zeros(len(dataset.domains), len(labels), dtype=torch.bool)
    for samples in dataset.splits().values():
        pixels.index_add_(0, samples.domain, samples.target.counts.long())
        for d in range(len(dataset.domains)):
            annotated[d] |= samples.annotated[samples.domain == d].any(0)
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
    """What the leaderboard ranks by, what the scores leave out, and what nobody can score."""
    space, test = dataset.label_space, dataset.test
    shown, lines = _shown(test, space.num_classes), []
    covered = known_classes(space, dataset.train.annotated)
    ranked, unknown, unseen = [], [], False
    for d, domain in enumerate(dataset.domains):
        of_test, of_training = test.domain == d, dataset.train.domain == d
        known = (test.known & of_test[:, None]).any(0)
        seen = (shown & test.known & of_test[:, None]).any(0)
        missing = ~covered[of_training].any(0)
        unseen = unseen or bool(missing.any())
        lines += [
            f"no test image of {domain} shows {space.classes[c]}, which is left out of the scores there"
            for c in (known & ~seen).nonzero().flatten().tolist()
            if c
        ]
        ranked += [f"{space.classes[c]} in {domain}" for c in (missing & seen).nonzero().flatten().tolist() if c]
        unknown += [f"{space.classes[c]} in {domain}" for c in (missing & ~known).nonzero().flatten().tolist() if c]
    if ranked:
        lines.append(f"strategies are ranked by what training does not see and the test images have: {_some(ranked)}")
    elif bool(covered.all()):
        lines.append(
            f"every label is annotated in every training image, so strategies have nothing to differ by: hide some, as "
            f"in {setting('hidden', dataset.domains[-1], [space.labels[-1].name])}"
        )
    elif not unseen:
        lines.append("every class counts as annotated in the scores: each domain has its label in some training images")
    else:
        lines.append(
            "nothing that is unannotated in training can be scored: the leaderboard ranks by what is annotated, and "
            "shows how often the rest is found"
        )
    if unknown:
        lines.append(f"nobody knows where it is, so the table Presence alone tells of it: {_some(unknown)}")
    return lines


def _shown(samples: Samples, num_classes: int) -> Tensor:
    """[n, K] bool: does an image's truth have a pixel of the class?"""
    return samples.truth.counts[:, :num_classes] > 0


def _counted(texts: Mapping[str, str]) -> str:
    """What is said of each name; of many names, those that differ from the rest."""
    common, often = Counter(texts.values()).most_common(1)[0]
    if len(texts) <= _LISTED or often == 1:
        return ", ".join(f"{name} {text}" for name, text in texts.items())
    rest = [f"{name} {text}" for name, text in texts.items() if text != common]
    return ", ".join([f"{often} of {len(texts)} labels {common}", *rest])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if names[_LISTED:] else "")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
