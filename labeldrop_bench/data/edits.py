"""What the `[data]` table says beyond a data set's own options: what was annotated, and controlled experiments.

Two things that must not be mixed up. `annotated` tells a fact about the files: a label that was not annotated somewhere
is neither trained on as absent nor scored there. `hidden` makes an experiment: labels that are there are kept from
training, and stay truth to score by. Fewer classes, and domains that are not trained on, are experiments too.

Each edit is explicit, seeded where it chooses by chance, and recorded: it stands in the `[data]` table, and `split.csv`
of every run says what was left in each case.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labeldrop_bench.data.base import IGNORED, Dataset, Samples, hint, known_classes
from labeldrop_bench.data.intensities import pool
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import DataConfig, HiddenConfig, toml, toml_key
from labeldrop_bench.text import read_rows

Names = Sequence[str]
_SHOWN = 5  # of many contradictions in one message


def edited(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with everything done to it that the `[data]` table asks for: first the facts, then the experiments.

    Raises:
        ValueError: a class, label, domain or case that does not exist; a label map with pixels of a label that is said
            to be unannotated there; an `annotated_file` that cannot be read.
    """
    cases = read_annotated(config.annotated_file)
    there = [case for samples in dataset.splits().values() for case in samples.cases]
    check_cases("annotated_file", cases, there, dataset.skipped)
    dataset = annotated_only(dataset, config.annotated, cases)
    if config.classes is not None:
        dataset = only_classes(dataset, config.classes)
    for entry in config.hidden:
        dataset = hide(dataset, entry)
    if config.train_domains is not None:
        dataset = train_on(dataset, config.train_domains)
    return pool(dataset)  # by what training sees now


def read_annotated(path: Path | None) -> dict[str, list[str]]:
    """Case -> labels annotated in it, from a CSV file with the columns case and label; nothing without a file.

    Raises:
        ValueError: it cannot be read, or has no such columns.
    """
    if path is None:
        return {}
    labels_of: dict[str, list[str]] = {}
    try:
        rows = read_rows(path.expanduser())
        if sorted(rows.fieldnames or ()) != ["case", "label"]:
            raise ValueError(
                f"annotated_file: {path} must have the columns case and label, got {rows.fieldnames}; its first line "
                f"is case,label with a comma"
            )
        for row in rows:
            if len(row) != 2 or row["label"] is None or not row["case"].strip():
                raise ValueError(
                    f"annotated_file: {path}, line {rows.line_num}: must hold a case, a comma and one label, or none "
                    f"for a case with nothing but background, got {list(row.values())}; write a row for each label"
                )
            case, label = row["case"].strip(), row["label"].strip()
            labels_of.setdefault(case, []).extend([label] if label else [])
    except (OSError, csv.Error) as error:
        raise ValueError(f"annotated_file: {path} cannot be read: {error}") from error
    return labels_of


def annotated_only(
    dataset: Dataset, domains: Mapping[str, Names], cases: Mapping[str, Names], source: str = "annotated_file"
) -> Dataset:
    """What was annotated is less than the data set says, in every split.

    Args:
        dataset: what to change.
        domains: domain -> names of the foreground labels annotated there; one that is not named keeps all.
        cases: case -> the same, whatever is said of its domain.
        source: where the latter stands, for messages.

    Raises:
        ValueError: a domain or foreground label that does not exist, a label named twice, or a label map with pixels of
            a label that is said to be unannotated there.
    """
    check_domains("annotated", dataset, [*domains])
    by_domain = {name: _stays("annotated", dataset, labels) for name, labels in domains.items()}
    by_case = {name: _stays(f"{source}: case {name!r}", dataset, labels) for name, labels in cases.items()}
    everything = torch.ones(dataset.label_space.num_labels, dtype=torch.bool)
    of_domain = torch.stack([by_domain.get(name, everything) for name in dataset.domains])
    found: list[tuple[str, str]] = []

    def of(samples: Samples) -> Samples:
        stays = of_domain[samples.domain]
        for i, case in enumerate(samples.cases):
            stays[i] = by_case.get(case, stays[i])
        found.extend(_contradictions(dataset, samples, stays))
        return _without(dataset.label_space, samples, ~stays)

    changed = dataset.map(of)
    if found:
        key = " and ".join(name for name, said in (("annotated", domains), (source, cases)) if said)
        lines = [line for line, _ in found[:_SHOWN]] + [f"and {len(found) - _SHOWN} more"] * (len(found) > _SHOWN)
        raise ValueError(
            f"{key}: these label maps hold pixels of labels that are said to be unannotated there:\n  "
            + "\n  ".join(lines)
            + "\nA label that was annotated has to be named there; to keep it from training, name it and hide it, "
            f"as in {found[0][1]}"
        )
    return changed


def _stays(key: str, dataset: Dataset, labels: Names) -> Tensor:
    """[L] bool, background and the labels named."""
    check_labels(key, dataset, labels)
    return torch.tensor([not v or label.name in labels for v, label in enumerate(dataset.label_space.labels)])


def check_cases(key: str, cases: Iterable[str], known: Names, skipped: Names) -> None:
    """Raises ValueError, naming the key, for a case that is not there, unless a line of `skipped` tells why."""
    for case in sorted(set(cases) - set(known)):
        if not any(_tells(line, case) for line in skipped):
            raise ValueError(f"{key}: there is no case {case!r}{hint(case, known, most=_SHOWN)}")


def _tells(line: str, case: str) -> bool:
    """Does a line on what was left out name the case, as a whole word? A channel's number or an ending may follow."""
    domain, _, inner = case.partition("/")  # of a combined data set: its lines begin with the source
    name = re.escape(inner if inner and line.startswith(f"{domain}: ") else case)
    return re.search(rf"(?<![\w.-]){name}(?:_\d{{4}}\b|(?![\w-]|\.\d))", line) is not None


def _contradictions(dataset: Dataset, samples: Samples, stays: Tensor) -> list[tuple[str, str]]:
    """For each label map with pixels of a label that is said to be unannotated there: what is wrong, how to hide it."""
    found = []
    names = [label.name for label in dataset.label_space.labels]
    counts = samples.target.counts[:, : len(names)]
    for i in (~stays).any(1).nonzero().flatten().tolist():
        for value in ((counts[i] > 0) & ~stays[i]).nonzero().flatten().tolist():
            domain = dataset.domains[int(samples.domain[i])]
            line = f"{samples.cases[i]}, domain {domain}: {int(counts[i, value])} pixel(s) of {names[value]}"
            found.append((line, setting("hidden", domain, [names[value]])))
    return found


def setting(key: str, domain: str, labels: Names) -> str:
    """How a suite file says that, in TOML."""
    return f"{key}.{toml_key(domain)} = {toml(labels)}"


def _without(space: LabelSpace, samples: Samples, unannotated: Tensor) -> Samples:
    """Samples that say nothing of some labels, which no pixel has. What nobody annotated is not known either.

    Args:
        space: what label values mean.
        samples: what to change.
        unannotated: [n, L] bool; column 0 is False.
    """
    if not unannotated.any():
        return samples
    annotated = samples.annotated & ~unannotated
    member = torch.tensor([[c in label.classes for c in range(space.num_classes)] for label in space.labels])
    concerned = (unannotated[:, :, None] & member).any(1)  # a class that another label shows whole stays known
    return replace(samples, annotated=annotated, known=samples.known & (~concerned | known_classes(space, annotated)))


def only_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """The data set with these foreground classes, in this order; what is of another class becomes background.

    Raises:
        ValueError: a class that does not exist, is background, or is named twice; or a super-label of which only a part
            would stay, since its pixels would be neither the class nor background.
    """
    space = dataset.label_space
    known = space.classes[1:]
    for name in classes:
        if name not in known:
            raise ValueError(f"classes: there is no foreground class {name!r}{hint(name, known)}")
    if len(set(classes)) != len(classes) or not classes:
        raise ValueError(f"classes must be different names, at least one, got {list(classes)}")
    number = {space.classes.index(name): i for i, name in enumerate(classes, start=1)}
    for label in space.labels[1:]:
        if 0 < len(label.classes & set(number)) < len(label.classes):
            members = ", ".join(space.classes[c] for c in sorted(label.classes))
            raise ValueError(f"classes must hold all or none of label {label.name!r} ({members}), got {list(classes)}")
    kept = [
        (value, replace(label, classes=frozenset(number[c] for c in label.classes)))
        for value, label in enumerate(space.labels[1:], start=1)
        if label.classes <= set(number)
    ]
    narrowed = LabelSpace(("background", *classes), (space.labels[0], *(label for _, label in kept)))
    columns = torch.tensor([0, *(value for value, _ in kept)])
    class_columns = torch.tensor([0, *number])
    new_value, new_class = _lookup(columns), _lookup(class_columns)

    def narrow(samples: Samples) -> Samples:
        return replace(
            samples,
            target=samples.target.mapped(new_value),
            annotated=samples.annotated[:, columns],
            truth=samples.truth.mapped(new_class),
            known=samples.known[:, class_columns],
        )

    return dataset.map(narrow, narrowed)


def hide(dataset: Dataset, entry: HiddenConfig) -> Dataset:
    """Keep labels from training: in whole domains, or in a share of their training samples.

    Raises:
        ValueError: a domain or a foreground label that does not exist, or a label named twice.
    """
    check_labels("hidden.labels", dataset, entry.labels)
    check_domains("hidden.domains", dataset, entry.domains or ())
    values = [v for v, label in enumerate(dataset.label_space.labels) if label.name in entry.labels]
    if entry.share is not None:
        return replace(dataset, train=hide_labels(dataset.train, _chosen(dataset, entry)))
    here = torch.tensor([name in (entry.domains or dataset.domains) for name in dataset.domains])

    def of(samples: Samples) -> Samples:
        hidden = torch.zeros_like(samples.annotated)
        hidden[:, values] = here[samples.domain][:, None]
        return hide_labels(samples, hidden)

    return dataset.map(of)


def _chosen(dataset: Dataset, entry: HiddenConfig) -> Tensor:
    """[n, L] bool: the labels to hide in each training sample, rounded to whole samples of each domain."""
    names = [label.name for label in dataset.label_space.labels]
    train, share = dataset.train, entry.share or 0.0
    hidden = torch.zeros_like(train.annotated)
    generator = np.random.default_rng(entry.seed)
    for domain in entry.domains or dataset.domains:
        members = np.flatnonzero(train.domain.numpy() == dataset.domains.index(domain))
        count = round(share * len(members))
        same = generator.permutation(members)[:count]
        for label in entry.labels:
            chosen = generator.permutation(members)[:count] if entry.independently else same
            hidden[torch.from_numpy(chosen), names.index(label)] = True
    return hidden


def train_on(dataset: Dataset, domains: Sequence[str]) -> Dataset:
    """Training and validation samples of some domains only; the test split stays whole.

    Raises:
        ValueError: a domain that does not exist, or none.
    """
    check_domains("train_domains", dataset, domains)
    if not domains:
        raise ValueError("train_domains must name at least one domain, got none")
    wanted = torch.tensor([dataset.domains.index(domain) for domain in domains])

    def of(samples: Samples) -> Samples:
        return samples.take(torch.isin(samples.domain, wanted).nonzero().flatten())

    return replace(dataset, train=of(dataset.train), validation=of(dataset.validation))


def hide_labels(samples: Samples, hidden: Tensor) -> Samples:
    """Samples in which labels are no longer annotated: their pixels read background. Truth stays.

    Args:
        samples: what to change.
        hidden: [n, L] bool; column 0 is False.
    """
    if not hidden.any():
        return samples
    annotated = samples.annotated & ~hidden
    lookup = torch.arange(256).repeat(len(samples), 1).to(torch.uint8)
    lookup[:, : hidden.shape[1]] *= ~hidden
    return replace(samples, target=samples.target.mapped(lookup), annotated=annotated)


def check_domains(key: str, dataset: Dataset, domains: Sequence[str]) -> None:
    """Raises ValueError, naming the key, if a domain does not exist."""
    for domain in domains:
        if domain not in dataset.domains:
            raise ValueError(f"{key}: there is no domain {domain!r}{hint(domain, dataset.domains)}")


def check_labels(key: str, dataset: Dataset, labels: Sequence[str]) -> None:
    """Raises ValueError, naming the key, if a foreground label does not exist or is named twice."""
    names = [label.name for label in dataset.label_space.labels[1:]]
    if len(set(labels)) != len(labels):
        raise ValueError(f"{key}: the labels must all differ, got {list(labels)}")
    for label in labels:
        if label not in names:
            raise ValueError(f"{key}: there is no label {label!r}{hint(label, names)}")


def _lookup(kept: Tensor) -> Tensor:
    """[256] uint8: old value -> place in `kept`, 0 for what is not kept, IGNORED for itself."""
    lookup = torch.zeros(256, dtype=torch.uint8)
    lookup[kept] = torch.arange(len(kept), dtype=torch.uint8)
    lookup[IGNORED] = IGNORED
    return lookup
