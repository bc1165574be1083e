"""What follows from what was found: domains, classes, who annotated what, which channels all have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labeldrop_bench.data.edits import read_annotated
from labeldrop_bench.init.folders import InitError, Source
from labeldrop_bench.init.names import Part, parts, patients, spelled, spellings

_FOR_SPLITS = 3  # patients of a domain: training, validation and test need one each


@dataclass(frozen=True)
class Domain:
    """A domain of the suite.

    Attributes:
        name: in the suite.
        cases: of its source.
        patients: how many people they are, as far as their names say it.
        named: classes that its source has a label for.
        shows: class -> how many of the label maps that were read show it.
        read: how many that are.
        annotated: what to write as `annotated`, if that is not all that is named.
        told_by_case: whether a table says of each of its cases what was annotated.
    """

    name: str
    cases: tuple[str, ...]
    patients: int
    named: tuple[str, ...]
    shows: dict[str, int]
    read: int
    annotated: tuple[str, ...] | None
    told_by_case: bool = False

    @property
    def seldom(self) -> list[str]:
        """Classes that fewer than half of the label maps show: rare ones, or annotated in some cases alone."""
        return [c for c, n in self.shows.items() if 0 < 2 * n < self.read]


@dataclass(frozen=True)
class Decided:
    """A source, and its keys.

    Attributes:
        source: what was found.
        name: of its domain, or the beginning of its domains' names.
        called: its labels -> classes of the suite.
        renamed: whether they are not called the same.
        parts: hospitals inside of it; none or at least two.
        group: pattern for patients, and whether it is to be active.
        channels: value of the key, if it has to be set.
        domains: of the suite.
    """

    source: Source
    name: str
    called: dict[str, str]
    renamed: bool
    parts: tuple[Part, ...]
    group: tuple[str | None, bool]
    channels: object
    domains: tuple[Domain, ...]


@dataclass(frozen=True)
class Decisions:
    """For the whole suite.

    Attributes:
        sources: each with its keys.
        classes: of the suite, in order.
        shown: those that any label map shows; the others are left out.
        table: file that says who annotated what in which case, if there is one and it fits.
        tables: those that there are, and why they do not fit.
        missing: classes that some image is not annotated for.
    """

    sources: tuple[Decided, ...]
    classes: tuple[str, ...]
    shown: tuple[str, ...]
    table: Path | None
    tables: tuple[tuple[Path, str], ...]
    missing: tuple[str, ...]

    @property
    def domains(self) -> list[Domain]:
        """All of them."""
        return [domain for decided in self.sources for domain in decided.domains]


def decide(sources: Sequence[Source]) -> Decisions:
    """What to write.

    Raises:
        InitError: no label map of any source shows anything, or some sources are pictures and some volumes.
    """
    axes = {source.name: len(source.grids[0].shape) for source in sources if source.grids}
    if len(set(axes.values())) > 1:
        raise InitError(f"all folders must hold pictures and slices, or all volumes, got numbers of axes {axes}")
    known = spellings([list(source.labels) for source in sources])
    classes = tuple(dict.fromkeys(known.values()))
    shown = tuple(
        c
        for c in classes
        if any(s.count(x, list(s.shown)) for s in sources for x in s.labels if _here(s, x, known) == c)
    )
    if not shown:
        raise InitError("no label map shows any label: all pixels of those that were read are background")
    channels = _channels(sources)
    names = _names(sources)
    decided = [
        _decide(source, name, len(sources) > 1, known, shown, channels[i])
        for i, (source, name) in enumerate(zip(sources, names, strict=True))
    ]
    table, tables = _table(decided)
    said, prefix = read_annotated(table), len(sources) > 1
    lacking: set[str] = set()
    for i, d in enumerate(decided):
        domains = []
        for domain in d.domains:
            cases = [f"{d.name}/{case}" if prefix else case for case in domain.cases]
            usual = domain.named if domain.annotated is None else domain.annotated
            own = [d.source.told.get(case) for case in domain.cases]
            told = {
                c: [d.called[label] for label in x] for c, x in zip(cases, own, strict=True) if x is not None
            } | said
            lacking.update(*(set(shown) - set(told.get(case, usual)) for case in cases))
            domains.append(replace(domain, told_by_case=all(case in told for case in cases)))
        decided[i] = replace(d, domains=tuple(domains))
    return Decisions(tuple(decided), classes, shown, table, tables, tuple(c for c in shown if c in lacking))


def _here(source: Source, label: str, known: dict[str, str]) -> str:
    return spelled(label, list(source.labels), known)


def _names(sources: Sequence[Source]) -> list[str]:
    """Short names, numbered where several are alike."""
    names: list[str] = []
    for source in sources:
        number, name = 1, source.name
        while name in names:
            number += 1
            name = f"{source.name} {number}"
        names.append(name)
    return names


def _channels(sources: Sequence[Source]) -> list[object]:
    """The key of each source: nothing where all agree; otherwise what all have, by name, or else the first of each."""
    colours = ("red", "green", "blue")
    if len(sources) == 1:
        return ["rgb" if sources[0].kind == "folder" and sources[0].channels == colours else None]
    fixed = [source.channels for source in sources if source.kind == "nnunet"]
    common = [c for c in fixed[0] if all(x.count(c) == 1 for x in fixed)] if fixed else []
    number = len(common) or min(map(len, fixed), default=3 if colours in [s.channels for s in sources] else 1)
    folders = any(source.kind == "folder" for source in sources)
    if folders and fixed and number not in (1, 3):
        number, common = 1, common[:1]
    result: list[object] = []
    for source in sources:
        if source.kind == "folder":
            result.append("rgb" if number == 3 else None)
        elif len(source.channels) == number:
            result.append(None)
        else:
            result.append(common or list(range(number)))
    return result


def _decide(
    source: Source, name: str, several: bool, known: dict[str, str], shown: tuple[str, ...], channels: object
) -> Decided:
    here = {label: _here(source, label, known) for label in source.labels}
    renamed = several and any(label != called for label, called in here.items())
    group, evident = patients(source.files)
    if group and not all(_splits(source, list(source.files), group)):
        evident = False
    of_patient = group if evident else None
    found = tuple(parts(source.files))
    if not all(all(_splits(source, part.cases, of_patient)) for part in found):
        found = ()
    domains = tuple(
        _domain(source, _called(name, part, several, bool(found)), part.cases, of_patient, here, shown)
        for part in found or (Part("all", ("*",), tuple(source.files)),)
    )
    return Decided(source, name, here, renamed, found, (group, evident), channels, domains)


def _called(name: str, part: Part, several: bool, divided: bool) -> str:
    """A domain's name in the suite."""
    if not several:
        return part.name
    return f"{name}/{part.name}" if divided else name


def _splits(source: Source, cases: Sequence[str], group: str | None) -> list[bool]:
    """Whether cases can be split by patient: enough of them, and none on both sides of the source's own test split."""
    test = {_patient(source, case, group) for case in cases if case in source.test}
    rest = {_patient(source, case, group) for case in cases if case not in source.test}
    enough = len(rest) >= _FOR_SPLITS - bool(source.test)
    return [enough, not (test & rest), bool(test) or not source.test]


def _patient(source: Source, case: str, group: str | None) -> str:
    match = re.search(group, source.files[case]) if group else None
    return match[1] if match else case


def _domain(
    source: Source,
    name: str,
    cases: Sequence[str],
    group: str | None,
    here: dict[str, str],
    shown: tuple[str, ...],
) -> Domain:
    counts = dict.fromkeys((c for c in shown if c in here.values()), 0)
    for label, called in here.items():
        if called in counts:
            counts[called] += source.count(label, cases)
    named = tuple(counts)
    seen = tuple(called for called in named if counts[called])
    read = sum(case in source.shown for case in cases)
    patients = len({_patient(source, case, group) for case in cases})
    annotated = seen if len(seen) < len(named) and source.all_read else None
    return Domain(name, tuple(cases), patients, named, counts, read, annotated)


def _table(decided: Sequence[Decided]) -> tuple[Path | None, tuple[tuple[Path, str], ...]]:
    """The first table that fits the cases and labels of the suite; and all, with what is wrong with each."""
    several = len(decided) > 1
    cases = {f"{d.name}/{case}" if several else case for d in decided for case in d.source.files}
    labels = {c for d in decided for domain in d.domains for c in domain.named}
    found: list[tuple[Path, str]] = []
    for path in dict.fromkeys(path for d in decided for path in d.source.tables):
        said = read_annotated(path)
        strange = sorted(set(said) - cases)
        unknown = sorted({label for of_case in said.values() for label in of_case} - labels)
        wrong = f"there is no case {strange[0]!r} here" if strange else ""
        if strange and several:
            wrong += f"; cases are called {min(cases)!r} and so on"
        found.append((path, wrong or (f"there is no label {unknown[0]!r} here" if unknown else "")))
    return next((path for path, wrong in found if not wrong), None), tuple(found)
