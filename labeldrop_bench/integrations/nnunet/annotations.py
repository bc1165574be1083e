"""Which labels were annotated in which case: the key `annotated_labels` of dataset.json, checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from labeldrop_bench.errors import UserError

KEY = "annotated_labels"
SHOWN = 10  # problems in one message


class AnnotationError(UserError, ValueError):
    """A data set whose labels, or what it says about them, cannot be used."""


@dataclass(frozen=True, repr=False)
class Annotations:
    """What was annotated in each case; in one that is not named, everything.

    Attributes:
        labels: names, in the order of their values; the first is background.
        of_case: case -> names of the labels annotated in it.
    """

    labels: tuple[str, ...]
    of_case: Mapping[str, frozenset[str]]

    def __repr__(self) -> str:  # nnU-Net writes it into debug.json
        return f"Annotations(labels={self.labels}, cases that lack one={len(self.incomplete)})"

    @property
    def incomplete(self) -> list[str]:
        """The cases in which some label was not annotated."""
        return [case for case in self.of_case if len(self.missing(case)) > 0]

    def missing(self, case: str) -> list[int]:
        """The values of the labels that were not annotated in a case."""
        named = self.of_case.get(case)
        return [] if named is None else [v for v, name in enumerate(self.labels) if v > 0 and name not in named]

    def rows(self, cases: Iterable[str]) -> Tensor:
        """`[N, L]` bool: was the label annotated in the case? On the CPU."""
        cases = list(cases)
        table = torch.ones(len(cases), len(self.labels), dtype=torch.bool)
        for row, case in zip(table, cases, strict=True):
            row[self.missing(case)] = False
        return table


def label_names(description: Mapping[str, Any], where: object) -> tuple[str, ...]:
    """The labels of dataset.json in the order of their values, without the one that is ignored.

    Raises:
        AnnotationError: regions, or values that are not 0, 1, 2, ...
    """
    values = {name: value for name, value in description["labels"].items() if name != "ignore"}
    regions = [name for name, value in values.items() if isinstance(value, (list, tuple)) and len(value) > 1]
    if regions:
        raise AnnotationError(
            f"{where}: labels: {', '.join(map(repr, regions))} "
            f"{'is a region' if len(regions) == 1 else 'are regions'} (a list of values). Training with partial "
            f"labels does not work with nnU-Net's regions, which may overlap: give each structure one value of its "
            f"own, take regions_class_order out, and preprocess again"
        )
    by_value = {int(value[0] if isinstance(value, (list, tuple)) else value): name for name, value in values.items()}
    if sorted(by_value) != list(range(len(values))):
        raise AnnotationError(
            f"{where}: labels must have the values 0 (background), 1, 2, ... without a gap, got {values}"
        )
    return tuple(by_value[value] for value in range(len(by_value)))


def read_annotations(description: Mapping[str, Any], cases: Collection[str], where: object) -> Annotations:
    """What a dataset.json says.

    Args:
        description: its content.
        cases: the names of all cases of the data set.
        where: its path, for messages.

    Raises:
        AnnotationError: the key is missing, is no table of lists of names, or names cases or labels that are not there;
            or see `label_names`.
    """
    if KEY not in description:
        raise AnnotationError(
            f"{where} does not say which labels were annotated in which case. Write its key {KEY} with "
            f"`labeldrop-bench nnunet annotate DATASET --source-pattern 'PATTERN=LABEL,...'`"
        )
    return checked(description[KEY], label_names(description, where), cases, f"{where}: {KEY}")


def checked(given: object, labels: Sequence[str], cases: Collection[str], where: str) -> Annotations:
    """Case -> names of its labels, as somebody wrote it, if it fits the data set.

    Raises:
        AnnotationError: lists what does not.
    """
    if not isinstance(given, Mapping):
        raise AnnotationError(f"{where} must be a table of cases, as in {{'case_001': ['LV', 'LA']}}, got {given!r}")
    problems: list[str] = []
    unknown: dict[str, list[str]] = {}  # label -> the cases that have it
    for case, names in given.items():
        if isinstance(names, str) or not isinstance(names, Sequence):
            problems.append(f"case {case!r} must have a list of names of labels, got {names!r}")
            continue
        if case not in cases:
            problems.append(f"there is no case {case!r}{closest(case, cases)}")
        for name in names:
            if name not in labels:
                unknown.setdefault(str(name), []).append(case)
    for name, having in unknown.items():
        rest = closest(name, labels) or f"; labels: {', '.join(labels[1:])}"
        problems.append(f"there is no label {name!r}{rest} (case {having[0]!r}, {len(having)} in all)")
    if problems:
        raise AnnotationError(listed(f"{where} does not fit the data set:", problems))
    return Annotations(tuple(labels), {str(case): frozenset(names) for case, names in given.items()})


def closest(name: str, known: Iterable[str]) -> str:
    """A hint at the name that may be meant, or nothing."""
    found = get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def listed(head: str, problems: Sequence[str]) -> str:
    """A message with the first problems, and how many more there are."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([head, *problems[:SHOWN], *more])
