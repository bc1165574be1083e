"""Several data sets as one: partial labels from several sources.

    [data]
    name = "combined"
    [[data.sources]]
    name = "camus"                                      # any data set, with its own keys beside
    [[data.sources]]
    name = "nnunet"
    dataset = "Dataset501_Heart"
    domain = "Heart"                                    # what its domain is called here; this is also the default
    map = { ventricle = "LV", "whole heart" = ["LV", "LVM", "LA"] }

The classes are those of all sources. What a source has no label for is not annotated in its samples. Each source keeps
its splits. All have one size, and volumes one spacing: a source that gives none takes that of those that do, and where
none does it is the median over the cases of all; of data sets that have a size of their own, the smallest one.

Channels of CT are scaled by the training images of all sources together (`intensities`), so that one Hounsfield unit
means the same in each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from labeldrop_bench import data
from labeldrop_bench.data._survey import shape_at, typical_size, typical_spacing
from labeldrop_bench.data.arrays import Images, LabelMaps
from labeldrop_bench.data.base import IGNORED, Dataset, DatasetInfo, Grid, Samples, hint
from labeldrop_bench.data.intensities import pool
from labeldrop_bench.label_space import Label, LabelSpace
from labeldrop_bench.records import SomeNames

SHARED = ("spacing", "size")
"""Keys whose value all sources share, the one that the other follows from first."""


class Source(BaseModel):
    """One `[[data.sources]]` entry. Keys beyond these belong to the data set and are checked by it.

    Attributes:
        name: of a data set; `labeldrop-bench datasets` lists them.
        domain: what its domain is called here, or the beginning of its domains' names if it has several, as in
            "CAMUS/A"; also of its cases' and patients' names. By default the data set's own name, such as "Heart" for
            Dataset501_Heart of `nnunet`, or the name of the folder of `folder`.
        map: name of a label there -> class or classes here. By default each class keeps its name.
        rest: "background" makes labels that `map` leaves out background; otherwise they are an error.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    domain: str = ""
    map: dict[str, SomeNames] | None = None
    rest: Literal["background"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, table: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
        """Checks the data set's own keys by its own model, and adds their defaults."""
        if (info := _info(table)) is None:
            return table  # the fields' own checks say what is wrong
        if taken := set(info.options.model_fields) & set(cls.model_fields):
            raise ValueError(f"data set {info.name} has keys of its own named {', '.join(sorted(taken))}")
        own = {key: value for key, value in table.items() if key not in cls.model_fields}
        options = info.options.model_validate(own)
        short = info.short_name(options) if info.short_name else info.name
        return {**table, **options.model_dump(mode="json"), "domain": table.get("domain") or short}

    @field_validator("name")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        data.get(name)
        return name

    @classmethod
    def beside(cls, table: Mapping[str, Any]) -> type[BaseModel] | None:
        """The record that has the data set's own keys (see `records.explain`); None if there is no such data set."""
        info = _info(table)
        return info.options if info else None

    @property
    def info(self) -> DatasetInfo:
        """The data set's row in the registry."""
        return data.get(self.name)

    @property
    def options(self) -> Any:  # noqa: ANN401 - a model of the data set's own
        """The data set's own keys."""
        return self.info.options.model_validate(self.model_extra or {})

    def with_keys(self, keys: Mapping[str, Any]) -> Source:
        """The same source with some of the data set's own keys set."""
        return Source.model_validate({**self.model_dump(), **keys})


def _info(table: Any) -> DatasetInfo | None:  # noqa: ANN401 - whatever TOML holds
    """The data set that a table names; None if there is none."""
    try:
        return data.get(table["name"])
    except (ValueError, LookupError, TypeError):
        return None


class CombinedOptions(BaseModel):
    """Keys of the `[data]` table.

    Attributes:
        sources: data sets to put together.
        order: all foreground classes, in the order wanted; by default that of their appearance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sources: tuple[Source, ...] = Field(min_length=1)
    order: tuple[str, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _take_over(cls, table: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
        """Sources without size or spacing get those of the others, where these agree."""
        sources = table.get("sources") if isinstance(table, Mapping) else None
        if not isinstance(sources, (list, tuple)):
            return table  # the field's own check says what is wrong
        filled = [dict(s) if isinstance(s, Mapping) else s for s in sources]
        _smallest_default(filled)
        for key in SHARED:
            given = {json.dumps(s[key], default=str): s[key] for s in filled if isinstance(s, dict) and s.get(key)}
            for source in filled:
                if len(given) == 1 and _has_key(source, key) and not source.get(key):
                    (source[key],) = given.values()
        return {**table, "sources": filled}

    @model_validator(mode="after")
    def _named_apart(self) -> CombinedOptions:
        names = [source.domain for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(
                f"sources: each needs a domain of its own, got {names}; set domain in those that are alike"
            )
        return self


def _smallest_default(sources: Sequence[Any]) -> None:
    """Where no source gives a size and their data sets' own sizes differ, the first one gets the smallest, in place."""
    if any(isinstance(source, dict) and source.get("size") for source in sources):
        return
    able = [source for source in sources if _has_key(source, "size")]
    defaults = {data.get(source["name"]).options.model_fields["size"].default for source in able}
    known = [size for size in defaults if isinstance(size, tuple)]
    if len(known) > 1 and len(set(map(len, known))) == 1:
        able[0]["size"] = list(min(known, key=math.prod))


def _has_key(source: Any, key: str) -> bool:  # noqa: ANN401 - whatever TOML holds
    """Whether an entry names a data set that has a key."""
    info = _info(source)
    return info is not None and key in info.options.model_fields


@dataclass(frozen=True)
class _Part:
    """A source that was loaded, with what its labels and classes are here, by name; an empty set is background."""

    source: Source
    dataset: Dataset
    of_label: tuple[frozenset[str], ...]
    of_class: tuple[frozenset[str] | None, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of its domains here."""
        name, inner = self.source.domain, self.dataset.domains
        return (name,) if len(inner) == 1 else tuple(f"{name}/{domain}" for domain in inner)


def load(options: CombinedOptions) -> Dataset:
    """Loads every source and puts them together.

    Raises:
        ValueError: a source that cannot be loaded, a label that `map` names and that does not exist, one that it leaves
            out, an `order` that is not all classes, or sources whose images differ in channels or size.
        FileNotFoundError, MissingPackageError: as raised by a source.
    """
    parts = [_part(source) for source in _alike(options.sources)]
    space = _space(parts, options.order)
    _check_images(parts)
    domains = tuple(domain for part in parts for domain in part.domains)
    if len(set(domains)) != len(domains):
        raise ValueError(f"combined: domains must have different names, got {list(domains)}; set domain of the sources")
    train, validation, test = (
        _joined([_translated(part, part.dataset.splits()[name], space, domains) for part in parts])
        for name in ("train", "validation", "test")
    )
    skipped = tuple(f"{part.source.domain}: {line}" for part in parts for line in part.dataset.skipped)
    return pool(Dataset(space, domains, train, validation, test, skipped))


def _alike(sources: Sequence[Source]) -> list[Source]:
    """The sources, those that leave spacing or size to their files with the same one.

    Raises:
        ValueError: some of them are pictures and some volumes, or the others give different ones.
    """
    alike = list(sources)
    grids: dict[int, Sequence[Grid]] = {}
    for key in SHARED:
        left = [i for i, source in enumerate(alike) if source.info.survey and getattr(source.options, key, 0) is None]
        given = {source.domain: value for source in alike if (value := getattr(source.options, key, None)) is not None}
        if len(set(given.values())) > 1 and left:
            raise ValueError(
                f"combined: {key} must be given in all sources or be the same in those that give it, got "
                f"{', '.join(f'{value} from {name}' for name, value in given.items())}; set {key} of "
                f"{', '.join(alike[i].domain for i in left)}"
            )
        grids |= {i: survey(alike[i].options) for i in left if i not in grids and (survey := alike[i].info.survey)}
        value = next(iter(given.values())) if given else _median(key, [(alike[i], grids[i]) for i in left])
        for i in left:
            alike[i] = alike[i].with_keys({key: value})
    return alike


def _median(key: str, surveyed: Sequence[tuple[Source, Sequence[Grid]]]) -> tuple[float, ...] | None:
    """Spacing or size of all cases of some sources together; None where there is none."""
    axes = {source.domain: len(grids[0].shape) for source, grids in surveyed if grids}
    if len(set(axes.values())) > 1:
        raise ValueError(
            f"combined: all sources must be pictures and slices, or all volumes, got numbers of axes {axes}; leave out "
            f"those of one kind"
        )
    if key == "spacing":
        return typical_spacing([grid for _, grids in surveyed for grid in grids]) if 3 in axes.values() else None
    shapes = [shape_at(grid, getattr(source.options, "spacing", None)) for source, grids in surveyed for grid in grids]
    return typical_size(shapes) if shapes else None


def _part(source: Source) -> _Part:
    dataset = source.info.load(source.options)
    space = dataset.label_space
    if source.map is None:
        own = tuple(frozenset({name} - {"background"}) for name in space.classes)
        return _Part(source, dataset, tuple(frozenset().union(*(own[c] for c in x.classes)) for x in space.labels), own)
    names = [label.name for label in space.labels[1:]]
    where = f"combined: source {source.domain!r}: map"
    for name in source.map:
        if name not in names:
            raise ValueError(
                f"{where}: there is no label {name!r}{hint(name, names)}. It says what each label of the source is "
                f"here: map = {{ label there = 'class here' }}"
            )
    left_out = [name for name in names if name not in source.map]
    if left_out and source.rest is None:
        raise ValueError(
            f"{where} must name every label, got nothing for {', '.join(left_out)}; name them, or set rest = "
            f"'background' to make their pixels background"
        )
    of_label = (frozenset[str](), *(frozenset(source.map.get(name, ())) for name in names))
    meanings = [*zip(space.labels, of_label, strict=True)]
    # What a class is here is told by the label that stands for it alone. It is not known without one, if two such
    # labels differ, or if it is among the classes of a label which is something else there.
    alone = {min(x.classes): meant for x, meant in meanings if len(x.classes) == 1}
    mixed = {
        c
        for c, own in alone.items()
        for x, meant in meanings
        if (x.classes == {c} and meant != own) or (own and own < meant and c not in x.classes)
    }
    of_class = tuple(None if c in mixed else alone.get(c) for c in range(space.num_classes))
    return _Part(source, dataset, of_label, of_class)


def _space(parts: Sequence[_Part], order: Sequence[str] | None) -> LabelSpace:
    """Classes of all sources; one label for each set of classes, those of one class first, in the order of classes."""
    found: dict[str, None] = {}
    for part in parts:
        mapped = part.source.map
        names = (
            part.dataset.label_space.classes[1:] if mapped is None else [c for names in mapped.values() for c in names]
        )
        found |= dict.fromkeys(names)
    if order is not None and (set(order) != set(found) or len(order) != len(found)):
        raise ValueError(f"combined: order must hold each of the classes {', '.join(found)} once, got {list(order)}")
    classes = ("background", *(order or found))
    labels: dict[tuple[frozenset[int], bool], str] = {}
    for part in parts:
        for label, meant in zip(part.dataset.label_space.labels[1:], part.of_label[1:], strict=True):
            if meant:
                labels.setdefault((frozenset(classes.index(c) for c in meant), label.exhaustive), label.name)
    ordered = sorted(labels, key=lambda key: (len(key[0]) > 1, not key[1], sorted(key[0])))
    made: list[Label] = [Label("background", frozenset({0}))]
    for members, exhaustive in ordered:
        joined = " or ".join(classes[c] for c in sorted(members)) + ("" if exhaustive else " (not all annotated)")
        plain = len(members) == 1 and exhaustive
        own = joined if plain or labels[members, exhaustive] in (*classes, *(x.name for x in made)) else ""
        made.append(Label(own or labels[members, exhaustive], members, exhaustive))
    return LabelSpace(classes, tuple(made))


def _check_images(parts: Sequence[_Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        expected, found = (tuple(p.dataset.train.images.shape[1:]) for p in (first, part))
        if expected != found:
            key = "size" if expected[0] == found[0] else "channels"
            raise ValueError(
                f"combined: images of all sources must have the same channels and size, got {expected} from "
                f"{first.source.domain} and {found} from {part.source.domain} (channels first); set {key} of one "
                f"source to what the other has"
            )


def _translated(part: _Part, samples: Samples, space: LabelSpace, domains: Sequence[str]) -> Samples:
    """Samples of a source with the labels, classes and domains of the whole."""
    theirs = part.dataset.label_space
    value_of = {(label.classes, label.exhaustive): value for value, label in enumerate(space.labels)}
    values = [
        value_of[frozenset(space.classes.index(c) for c in meant), label.exhaustive] if meant else 0
        for label, meant in zip(theirs.labels, part.of_label, strict=True)
    ]
    # a class that means one class here, or background (0); None where that is not known
    classes = [
        None if meant is None or len(meant) > 1 else space.classes.index(next(iter(meant), "background"))
        for meant in part.of_class
    ]
    annotated = _columns(samples.annotated, values, space.num_labels)
    lookup = _lookup(values).repeat(len(samples), 1)
    for value in {v for v in values if v and values.count(v) > 1}:  # one of two with this meaning may not be annotated
        lookup[~annotated[:, value]] *= lookup[~annotated[:, value]] != value
    prefix = part.source.domain
    return Samples(
        samples.images,
        samples.target.mapped(lookup),
        annotated,
        samples.truth.mapped(_lookup([IGNORED if c is None else c for c in classes])),
        _columns(samples.known, classes, space.num_classes),
        samples.domain + domains.index(part.domains[0]),
        tuple(f"{prefix}/{case}" for case in samples.cases),
        tuple(f"{prefix}/{patient}" for patient in samples.patients),
        samples.spacing,
    )


def _columns(given: torch.Tensor, goes_to: Sequence[int | None], number: int) -> torch.Tensor:
    """[n, number] bool: a column is what all columns that go to it say; False if there is none."""
    result = torch.zeros(len(given), number, dtype=torch.bool)
    for goal in range(1, number):
        if origins := [i for i, g in enumerate(goes_to) if g == goal]:
            result[:, goal] = given[:, origins].all(1)
    result[:, 0] = True
    return result


def _lookup(new: Sequence[int]) -> torch.Tensor:
    lookup = torch.full((256,), IGNORED, dtype=torch.uint8)
    lookup[: len(new)] = torch.tensor(new, dtype=torch.uint8)
    return lookup


def _joined(pieces: Sequence[Samples]) -> Samples:
    def tensor(name: str) -> torch.Tensor:
        return torch.cat([getattr(piece, name) for piece in pieces])

    return Samples(
        Images.joined([piece.images for piece in pieces]),
        LabelMaps.joined([piece.target for piece in pieces]),
        tensor("annotated"),
        LabelMaps.joined([piece.truth for piece in pieces]),
        tensor("known"),
        tensor("domain"),
        tuple(case for piece in pieces for case in piece.cases),
        tuple(patient for piece in pieces for patient in piece.patients),
        tensor("spacing"),
    )


INFO = DatasetInfo(
    name="combined",
    description="Several data sets as one, each a domain with the labels that it has",
    licence="those of the sources",
    source="the data sets named in `sources`",
    options=CombinedOptions,
    load=load,
)
