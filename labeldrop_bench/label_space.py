"""Which classes there are, and which sets of classes the label values of a data set stand for."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from difflib import get_close_matches
from typing import SupportsIndex, cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Label:
    """One value of a label map.

    Attributes:
        name: what the data set calls it.
        classes: the classes a pixel with this value may be. One class for an ordinary label, several for a
            super-label ("whole heart" = LV + LVM + LA).
        exhaustive: True if every pixel of these classes has the label wherever it is annotated. False for
            scribbles and self-made labels, where a background pixel may still belong to the class.
    """

    name: str
    classes: frozenset[int]
    exhaustive: bool = True


@dataclass(frozen=True)
class LabelSpace:
    """K classes (0 is background) and L label values (0 is background), each a set of classes.

    Attributes:
        classes: K class names, background first.
        labels: L labels, background first. `LabelSpace.of_classes` makes the usual one, a label for each class.

    Raises:
        ValueError: fewer than two classes or labels, repeated names, label 0 other than the exhaustive set {0},
            another label that is empty, holds background or a class that does not exist.
    """

    classes: tuple[str, ...]
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"LabelSpace: classes must name background and at least one more, got {self.classes}")
        if len(self.labels) < 2:
            raise ValueError(f"LabelSpace: labels must hold background and at least one more, got {self.labels}")
        for what, names in (("classes", self.classes), ("labels", tuple(label.name for label in self.labels))):
            if len(set(names)) != len(names):
                raise ValueError(f"LabelSpace: {what} must have different names, got {names}")
        if self.labels[0].classes != {0} or not self.labels[0].exhaustive:
            raise ValueError(f"LabelSpace: label 0 must be the background, exhaustive and {{0}}, got {self.labels[0]}")
        for value, label in enumerate(self.labels[1:], start=1):
            if not label.classes or not all(0 < c < len(self.classes) for c in label.classes):
                raise ValueError(
                    f"LabelSpace: label {value} ({label.name!r}) must be a set of classes from 1 to "
                    f"{len(self.classes) - 1}, got {sorted(label.classes)}"
                )

    @classmethod
    def of_classes(cls, classes: SupportsIndex | Sequence[str]) -> LabelSpace:
        """The usual label space: label value c means class c. `classes` is K, or the K names, background first.

        Raises:
            ValueError: fewer than two classes, or repeated names.
            TypeError: one name, or neither a whole number nor names.
        """
        count = _whole_number(classes)
        if count is None and (isinstance(classes, str) or not isinstance(classes, Iterable)):
            raise TypeError(
                f"LabelSpace.of_classes: classes must be their number K or a list of K names, background first, "
                f"got {classes!r}"
            )
        if count is not None and count < 2:
            raise ValueError(
                f"LabelSpace.of_classes: there must be at least 2 classes, background and one more, got {count}"
            )
        if count is None:
            names = tuple(str(name) for name in cast("Iterable[str]", classes))
        else:
            names = ("background", *(f"class {c}" for c in range(1, count)))
        return cls(names, tuple(Label(name, frozenset({c})) for c, name in enumerate(names)))

    def annotated(
        self, names: Sequence[Sequence[str | SupportsIndex]], device: torch.device | str | None = None
    ) -> Tensor:
        """The table that losses and label dropout take: which labels were annotated in each sample.

        Args:
            names: for each of N samples the names of its annotated labels, or their label values. Background may be
                left out: it always is annotated.
            device: of the result; None is torch's default.

        Returns:
            `[N, L]` bool.

        Raises:
            ValueError: a name (the closest one is named) or value that is no label's.
            TypeError: names that are no list of lists.
        """
        if not all(isinstance(each, Iterable) and not isinstance(each, str) for each in (names, *_items(names))):
            raise TypeError(
                f"LabelSpace.annotated: names must be a list of label names for each sample, as in [['LV'], "
                f"['LV', 'LA']], got {names!r}"
            )
        table = torch.zeros(len(names), self.num_labels, dtype=torch.bool, device="cpu")
        table[:, 0] = True
        for sample, of_sample in enumerate(names):
            table[sample, [self._label_value(name) for name in of_sample]] = True
        return table.to(torch.get_default_device() if device is None else device)

    def _label_value(self, name: str | SupportsIndex) -> int:
        """Of a label that is given by its name or by that value itself."""
        known = [label.name for label in self.labels]
        value = known.index(name) if name in known else _whole_number(name)
        if value is None or not 0 <= value < self.num_labels:
            close = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"LabelSpace.annotated: there is no label {name!r}; {hint}Labels: {', '.join(known)}, "
                f"or their values 0 to {self.num_labels - 1}"
            )
        return value

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.labels)


def _items(names: object) -> Iterable[object]:
    """What a list has; of no list, nothing. One that can be read once alone is none."""
    return names if isinstance(names, Iterable) and isinstance(names, Sized) else (None,)


def annotated(
    names: Sequence[Sequence[str | SupportsIndex]],
    classes: SupportsIndex | Sequence[str],
    device: torch.device | str | None = None,
) -> Tensor:
    """`LabelSpace.annotated` where label value c means class c: which classes were annotated in each sample.

    Args:
        names: for each of N samples the names of its annotated classes, or their numbers; background may be left out.
        classes: the K names, background first, or K.
        device: of the result; None is torch's default.

    Returns:
        `[N, K]` bool, column 0 true.

    Raises:
        ValueError: a name (the closest one is named) or number that is no class's; see also `LabelSpace`.
        TypeError: names that are no list of lists.
    """
    return LabelSpace.of_classes(classes).annotated(names, device)


def _whole_number(value: object) -> int | None:
    """A whole number of any kind (numpy's and tensors as well) as an int; None if it is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:  # an array of more than one number has __index__ as well
        return None
