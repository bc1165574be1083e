"""What names tell: labels that are the same in several sources, hospitals and patients in the names of cases."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

_SITES = re.compile(
    r"(?i)^(sites?|cent(er|re)|hosp(ital)?|clinic|scanner|vendor|domain|machine|device|institut(e|ion)?)\W*_?\w?\d*$"
)
_NO_SITES = {
    *("train", "training", "tr", "val", "validation", "test", "testing", "ts", "left", "right", "l", "r"),
    *("ed", "es", "pre", "post", "axial", "coronal", "sagittal"),
}
_PREFIXES = ("^(.+?)([-_. ])", r"^(\D*[^\W\d_])(\d)")  # up to a separator; letters before a number
_PATIENTS = (
    *("patient", "pat", "subject", "subj", "sub", "person", "volunteer", "donor", "animal", "rat", "mouse"),
    *("case", "study", "exam", "scan", "video", "volume"),
)
_BIDS = "(sub-[0-9A-Za-z]+)"  # the Brain Imaging Data Structure's word for a person
_MOST_DOMAINS, _LEAST = 10, 3  # cases of a domain: each split needs one


@dataclass(frozen=True)
class Part:
    """Cases that may be a domain of their own.

    Attributes:
        name: of the domain.
        patterns: that select them among all.
        cases: which they are.
    """

    name: str
    patterns: tuple[str, ...]
    cases: tuple[str, ...]


def same(label: str) -> str:
    """A label's name without what people write differently: case, accents' encoding, spaces, underscores, hyphens."""
    return re.sub(r"[\s_\-]+", "", normalize("NFKC", label).casefold())


def spellings(sources: Sequence[Sequence[str]]) -> dict[str, str]:
    """`same` name -> how it is written where it comes first.

    Labels of one source that differ in nothing else, such as "LA" and "la", are told apart by whoever wrote them: they
    keep their names, under which they are found here too.
    """
    found: dict[str, str] = {}
    for labels in sources:
        often = Counter(map(same, labels))
        for label in labels:
            found.setdefault(same(label) if often[same(label)] == 1 else label, label)
    return found


def spelled(label: str, labels: Sequence[str], known: Mapping[str, str]) -> str:
    """What a label of a source is called in the suite.

    Args:
        label: as its source has it.
        labels: all of that source.
        known: of `spellings`.
    """
    return known[same(label)] if sum(same(other) == same(label) for other in labels) == 1 else label


def parts(files: Mapping[str, str]) -> list[Part]:
    """Hospitals by the beginnings of names, if 2 to 10 explain all of them; otherwise nothing.

    Beginnings that differ in a number alone are more likely patients, unless they say that they are sites.

    Args:
        files: case -> name that the patterns see.
    """
    for pattern in _PREFIXES:
        matches = {case: re.match(pattern, name) for case, name in files.items()}
        members: dict[str, list[str]] = {}
        after: dict[str, set[str]] = {}
        for case, match in matches.items():
            if match is None:
                break
            members.setdefault(match[1], []).append(case)
            after.setdefault(match[1], set()).add("[0-9]" if match[2].isdigit() else match[2])
        else:
            if _are_sites(members):
                return [
                    Part(name, tuple(f"{glob.escape(name)}{end}*" for end in sorted(after[name])), tuple(cases))
                    for name, cases in members.items()
                ]
    return []


def _are_sites(members: Mapping[str, Sequence[str]]) -> bool:
    if not 2 <= len(members) <= _MOST_DOMAINS or min(map(len, members.values())) < _LEAST:
        return False
    letters = {re.sub(r"\d+", "", name).casefold() for name in members}
    said = all(_SITES.match(name) for name in members)
    return (said or len(letters) == len(members)) and not letters <= _NO_SITES and "" not in letters


def patients(files: Mapping[str, str]) -> tuple[str | None, bool]:
    """A pattern for `group` if several cases seem to be of one patient, and whether the names say so in a word.

    Args:
        files: case -> name that the pattern sees.
    """
    if _groups(_BIDS, files):
        return _BIDS, True
    for word in _PATIENTS:
        spelling = {m[0] for name in files.values() if (m := re.search(word, name, re.IGNORECASE))}
        if len(spelling) == 1:
            pattern = rf"^(.*?{spelling.pop()}[-_ ]?[0-9]+)[-_ ]"
            if _groups(pattern, files):
                return pattern, True
    pattern = "^(.*?[0-9]+)[-_ ]"
    return (pattern, False) if _groups(pattern, files) else (None, False)


def _groups(pattern: str, files: Mapping[str, str]) -> bool:
    """Whether all names match, and most of what is found in them is there more than once."""
    matches = [re.search(pattern, name) for name in files.values()]
    found = Counter(match[1] for match in matches if match)
    several = sum(n > 1 for n in found.values())
    return None not in matches and len(found) >= _LEAST and 2 * several >= len(found)
