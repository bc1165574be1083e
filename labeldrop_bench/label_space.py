"""Which classes there are, and which sets of classes the label values of a data set stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One value of a label map.

    Attributes:
        name: what the data set calls it.
        classes: the classes a pixel with this value may be. One class for an ordinary label, several for a
            super-label ("whole heart" = LV + LVM + LA).
        exhaustive: True if every pixel of these classes was drawn wherever the label is annotated. False for
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
    def of_classes(cls, classes: int | Sequence[str]) -> LabelSpace:
        """The usual label space: label value c means class c. `classes` is K, or the K names, background first."""
        if isinstance(classes, int):
            classes = ["background"] + [f"class {c}" for c in range(1, classes)]
        names = tuple(classes)
        return cls(names, tuple(Label(name, frozenset({c})) for c, name in enumerate(names)))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    @property
    def num_labels(self) -> int:
        """L."""
        return len(self.labels)
