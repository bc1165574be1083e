"""Controlled experiments: fewer classes, labels that are hidden, domains that are not trained on.

Each edit is explicit, seeded where it draws, and recorded: it stands in the `[data]` table, and `split.csv` of every
run says what was left in each case. Truth stays what it was; only what training sees changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from labeldrop_bench.data.base import IGNORED, Dataset, Samples, hint
from labeldrop_bench.label_space import LabelSpace


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
            target=_looked_up(samples.target, new_value),
            annotated=samples.annotated[:, columns],
            truth=_looked_up(samples.truth, new_class),
            known=samples.known[:, class_columns],
        )

    return dataset.map(narrow, narrowed)


def draw_only(dataset: Dataset, drawn: Mapping[str, Sequence[str]]) -> Dataset:
    """Hide labels of whole domains, in every split.

    Args:
        dataset: what to change.
        drawn: domain -> names of the foreground labels that stay drawn; a domain that is not named keeps all.

    Raises:
        ValueError: a domain or a foreground label that does not exist, or a label named twice.
    """
    names = [label.name for label in dataset.label_space.labels]
    stays = torch.ones(len(dataset.domains), len(names), dtype=torch.bool)
    for domain, labels in drawn.items():
        check_domains("drawn", dataset, [domain])
        check_labels("drawn", dataset, labels)
        stays[dataset.domains.index(domain), 1:] = torch.tensor([name in labels for name in names[1:]])
    return dataset.map(lambda samples: hide(samples, ~stays[samples.domain]))


def remove_share(
    dataset: Dataset,
    labels: Sequence[str],
    share: float,
    *,
    domains: Sequence[str] | None = None,
    independently: bool = False,
    seed: int = 0,
) -> Dataset:
    """Hide labels in a share of the training samples of each domain; validation and test stay.

    Args:
        dataset: what to change.
        labels: foreground labels to hide.
        share: of the samples of each domain, in [0, 1]; rounded to whole samples.
        domains: where; None is everywhere.
        independently: draw other samples for each label; otherwise the same samples lose all of them.
        seed: of the draw.

    Raises:
        ValueError: a domain or label that does not exist.
    """
    check_labels("removed.labels", dataset, labels)
    check_domains("removed.domains", dataset, domains or ())
    names = [label.name for label in dataset.label_space.labels]
    train = dataset.train
    hidden = torch.zeros_like(train.annotated)
    generator = np.random.default_rng(seed)
    for domain in domains or dataset.domains:
        members = np.flatnonzero(train.domain.numpy() == dataset.domains.index(domain))
        count = round(share * len(members))
        same = generator.permutation(members)[:count]
        for label in labels:
            chosen = generator.permutation(members)[:count] if independently else same
            hidden[torch.from_numpy(chosen), names.index(label)] = True
    return replace(dataset, train=hide(train, hidden))


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


def hide(samples: Samples, hidden: Tensor) -> Samples:
    """Samples in which labels are no longer drawn: their pixels read background.

    Args:
        samples: what to change.
        hidden: [n, L] bool; column 0 is False.
    """
    if not hidden.any():
        return samples
    annotated = samples.annotated & ~hidden
    lookup = torch.arange(256).repeat(len(samples), 1).to(torch.uint8)
    lookup[:, : hidden.shape[1]] *= ~hidden
    target = torch.stack([row[image.int()] for row, image in zip(lookup, samples.target, strict=True)])
    return replace(samples, target=target, annotated=annotated)


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


def _looked_up(values: Tensor, lookup: Tensor) -> Tensor:
    return torch.stack([lookup[image.int()] for image in values])
