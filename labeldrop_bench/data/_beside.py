"""Files that belong to another one: the voxels beside a header. Whoever looks for changes has to look at them too."""

from __future__ import annotations

import re
from pathlib import Path

_HEAD = 1 << 16  # bytes in which a detached header names its data; a longer one has its data inside
_NAMES_DATA = re.compile(r"^\s*(?:ElementDataFile\s*=|data ?file:)\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)


def side_files(path: Path) -> tuple[Path, ...]:
    """What a file is read from besides itself: .raw of .mhd, data of .nhdr, .img of .hdr and the other way round.

    Args:
        path: any file; it need not be there.
    """
    name = path.name.lower()
    if name.endswith((".mhd", ".nhdr")):
        return _named_in(path)
    for ending, others in ((".hdr", (".img", ".img.gz")), (".img", (".hdr",)), (".img.gz", (".hdr", ".hdr.gz"))):
        if name.endswith(ending):
            stem = path.name[: -len(ending)]
            found = [path.with_name(stem + variant) for other in others for variant in (other, other.upper())]
            return tuple(other for other in found if other.is_file())[:1] or (found[0],)
    return ()


def _named_in(header: Path) -> tuple[Path, ...]:
    try:
        with header.open("rb") as file:
            text = file.read(_HEAD).decode("latin-1")  # names alone matter here, and every byte is a character of it
    except OSError:
        return ()  # who reads the header says what is wrong with it
    match = _NAMES_DATA.search(text)
    if match is None or match[1].upper() == "LOCAL":
        return ()
    if match[1].upper().startswith("LIST"):
        names = [line.strip() for line in text[match.end() :].splitlines() if line.strip()]
    elif "%" in match[1]:
        names = _series(match[1])
    else:
        names = [match[1]]
    return tuple(header.parent / name for name in names)


def _series(pattern: str) -> list[str]:
    """Names of "slice%03d.raw 1 20 1": first, last and, if it is there, the step."""
    name, *numbers = pattern.split()
    try:
        first, last, step = [*map(int, numbers), 1][:3]
        return [name % n for n in range(first, last + 1, step)]
    except (ValueError, TypeError):
        return []
