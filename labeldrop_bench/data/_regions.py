"""Which classes a stored label value may be, where labels overlap as regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labeldrop_bench.data.base import hint
from labeldrop_bench.label_space import Label, LabelSpace


def label_space_of_regions(
    regions: Mapping[str, Sequence[int]], classes_of: Mapping[str, Sequence[str]]
) -> tuple[LabelSpace, dict[int, int]]:
    """The label space of a data set whose labels are sets of stored values.

    The rule: a pixel that stores value v may be class c if, for every region R and the classes S(R) that it stands for,

        v in R  <=>  c in S(R).

    S(R) is what `classes_of` says. Otherwise it is S of all smaller regions inside R, and a class of R's own name if
    some value of R is in none of them. So whole {1, 2, 3}, core {2, 3}, enhancing {3} become three classes, 1 being
    "whole" (outside of the core), 2 "core", 3 "enhancing"; and "whole heart" {1, 2, 3} alone, said to be LV, LVM and
    LA, becomes one super-label of these three.

    Args:
        regions: label name -> its stored values, without background.
        classes_of: label name -> the classes it stands for.

    Returns:
        The label space, its classes in the order of the regions; and stored value -> label value, with 0 -> 0.

    Raises:
        ValueError: a value that no class fits, such as that of two regions that overlap in part.
    """
    sets = {name: frozenset(values) for name, values in regions.items()}
    stands_for: dict[str, tuple[str, ...]] = {}
    for name in sorted(sets, key=lambda n: len(sets[n])):
        inside = [other for other in sets if sets[other] < sets[name]]
        own = (name,) if sets[name] - frozenset().union(*(sets[other] for other in inside)) else ()
        nested = (c for other in inside for c in stands_for[other])
        stands_for[name] = tuple(classes_of.get(name, dict.fromkeys((*own, *nested))))
    classes = ("background", *dict.fromkeys(c for name in sets for c in stands_for[name]))

    may_be = {}
    for value in sorted(frozenset().union(*sets.values())):
        holders = {name for name in sets if value in sets[name]}
        fits = [c for c in classes[1:] if all((c in stands_for[name]) == (name in holders) for name in sets)]
        if not fits:
            raise ValueError(
                f"no class is in all of {', '.join(sorted(holders))} and in nothing else, so that value {value} is no "
                f"class; say with classes_of which classes each of these labels stands for"
            )
        may_be[value] = frozenset(classes.index(c) for c in fits)
    meanings = sorted(set(may_be.values()), key=sorted)
    names = {frozenset(classes.index(c) for c in stands_for[name]): name for name in reversed(sets)}
    labels = [Label(_name(meaning, names, classes), meaning) for meaning in meanings]
    space = LabelSpace(classes, (Label("background", frozenset({0})), *labels))
    return space, {0: 0, **{value: 1 + meanings.index(meaning) for value, meaning in may_be.items()}}


def annotated_labels(
    key: str, named: Sequence[str], regions: Mapping[str, Sequence[int]], space: LabelSpace, value_of: Mapping[int, int]
) -> list[str]:
    """What a case with some of the regions annotated is in the label space of `label_space_of_regions`.

    A stored value says what the smallest region that holds it says; so it is annotated where that one is.

    Args:
        key: where that stands, for messages.
        named: the regions annotated in the case.
        regions: region -> its stored values, without background.
        space: the label space.
        value_of: stored value -> label value.

    Returns:
        Names of the labels all of whose values are annotated.

    Raises:
        ValueError: a region that does not exist, or one that is annotated without one inside of it, so that its pixels
            may be either.
    """
    for name in named:
        if name not in regions:
            raise ValueError(f"{key}: there is no label {name!r}{hint(name, [*regions])}")
        inside = [other for other in regions if set(regions[other]) < set(regions[name]) and other not in named]
        if inside:
            raise ValueError(
                f"{key}: {name!r} is annotated without {inside[0]!r} inside of it, so that its pixels may be either: "
                f"store what was annotated as a label of its own, and say with classes_of which classes it stands for"
            )
    left_out = set()
    for value in {value for values in regions.values() for value in values}:
        smallest = min((name for name in regions if value in regions[name]), key=lambda name: len(set(regions[name])))
        if smallest not in named:
            left_out.add(value_of[value])
    return [label.name for value, label in enumerate(space.labels) if value and value not in left_out]


def _name(meaning: frozenset[int], names: Mapping[frozenset[int], str], classes: Sequence[str]) -> str:
    """A single class's own name; a super-label is called like the region that stands for the same, if there is one."""
    joined = " or ".join(classes[c] for c in sorted(meaning))
    return joined if len(meaning) == 1 else names.get(meaning, joined)
