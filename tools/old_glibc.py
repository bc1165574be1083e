"""Link against an older glibc than that of this machine.

A glibc brings old versions of the functions that it has changed, and a linker takes the newest. So it is shown small
stand-ins of libpthread, libm and so on, which have nothing but these functions in the version that the old glibc knows;
they come before the real libraries. A program so linked runs with the old glibc and with every newer one.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Of a line of `nm -D --with-symbol-versions`: type, name, and version, after two @ if it is what the linker takes.
SYMBOL = re.compile(r" ([A-Za-z]) ([^ @]+)(?:(@{1,2})(\S+))?$")

# Where functions lived that libc.so.6 has taken over in glibc 2.34.
OLD_HOMES = {
    r"dl[a-z]+": "libdl.so.2",
    r"(pthread|sem)_.*": "libpthread.so.0",
    r"(shm|timer|mq|aio|lio)_.*": "librt.so.1",
}

# What older ones do not have at all, and what does the same with them: parts of libstdc++ ask for it.
SUBSTITUTES = """
#include <stdint.h>
#include <sys/random.h>
#pragma GCC visibility push(hidden)
char __libc_single_threaded = 0; /* "there may be other threads" is always right */
uint32_t arc4random(void) {
  uint32_t word = 0;
  while (getrandom(&word, sizeof word, 0) != sizeof word) {
  }
  return word;
}
"""


def number(version: str) -> tuple[int, ...]:
    """GLIBC_2.28 as (2, 28); a version of no such form, as GLIBC_PRIVATE, is newer than all."""
    digits = version.rpartition("_")[2].split(".")
    return tuple(map(int, digits)) if all(part.isdigit() for part in digits) else (10**6,)


@dataclass(frozen=True)
class Symbol:
    """What a library exports, in the newest version that is old enough; whether the linker would take a newer one."""

    name: str
    version: str
    newer: bool
    function: bool


def old_symbols(lines: Iterable[str], newest: str) -> list[Symbol]:
    """What of a library an old one has as well.

    Args:
        lines: what `nm -D --with-symbol-versions --defined-only` says of the library.
        newest: the newest version that is allowed, such as GLIBC_2.28.
    """
    known: dict[str, list[str]] = defaultdict(list)
    taken: dict[str, tuple[str, str]] = {}
    for line in lines:
        if (match := SYMBOL.search(line)) and match[3]:
            known[match[2]].append(match[4])
            if match[3] == "@@":
                taken[match[2]] = match[4], match[1]
    result = []
    for name, (version, kind) in taken.items():
        old = [other for other in known[name] if number(other) <= number(newest)]
        if old:
            best = max(old, key=number)
            result.append(Symbol(name, best, newer=version != best, function=kind in "TWi"))
    return result


def too_new(lines: Iterable[str], newest: dict[str, str]) -> list[str]:
    """What a module needs that is newer than allowed, as name@version.

    Args:
        lines: what `nm -D --with-symbol-versions --undefined-only` says of the module.
        newest: for each prefix of versions, as GLIBC, the newest that is allowed, as GLIBC_2.28.
    """
    found = []
    for line in lines:
        match = SYMBOL.search(line)
        limit = newest.get(match[4].rpartition("_")[0]) if match and match[4] else None
        if match and limit and number(match[4]) > number(limit):
            found.append(f"{match[2]}@{match[4]}")
    return sorted(found)


def unknown(lines: Iterable[str]) -> list[str]:
    """What a module needs that no library which it names has; not Python, which the process brings."""
    matches = filter(None, map(SYMBOL.search, lines))
    names = [match[2] for match in matches if match[1] == "U" and not match[4]]
    return sorted(name for name in names if not re.match(r"_?Py", name))


def symbols(library: Path, *options: str) -> list[str]:
    """The lines of `nm` about what a library exports or needs."""
    command = ["nm", "-D", "--with-symbol-versions", *options, str(library)]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout.splitlines()


def stand_ins(folder: Path, newest: str) -> list[str]:
    """Make the stand-ins; returns what the linker is to be given after all other files."""
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, list[Symbol]] = defaultdict(list)
    for library in ("libc.so.6", "libm.so.6"):
        located = subprocess.run(
            ["cc", f"-print-file-name={library}"], capture_output=True, check=True, encoding="utf-8"
        )
        for symbol in old_symbols(symbols(Path(located.stdout.strip()), "--defined-only"), newest):
            homes = (home for names, home in OLD_HOMES.items() if symbol.newer and re.fullmatch(names, symbol.name))
            # all of them: after a stand-in the linker reads no other library of the same name
            contents[next(homes, library)].append(symbol)
    libraries = [_link(folder, name, of_library) for name, of_library in contents.items()]
    substitutes = folder / "substitutes.c"
    substitutes.write_text(SUBSTITUTES, encoding="utf-8")
    subprocess.run(["cc", "-O2", "-fPIC", "-c", str(substitutes), "-o", str(substitutes.with_suffix(".o"))], check=True)
    return [str(substitutes.with_suffix(".o")), "-Wl,--as-needed", *map(str, libraries), "-Wl,--no-as-needed"]


def _link(folder: Path, name: str, contents: list[Symbol]) -> Path:
    nodes = sorted({symbol.version for symbol in contents}, key=number)
    script, source, library = folder / f"{name}.map", folder / f"{name}.s", folder / name
    script.write_text("".join(f"{node} {{}};\n" for node in nodes), encoding="utf-8")
    with source.open("w", encoding="utf-8") as file:
        for symbol in contents:
            stand_in = f"old_{symbol.name}"
            file.write(f".globl {stand_in}\n.type {stand_in}, @{'function' if symbol.function else 'object'}\n")
            file.write(f"{stand_in}:\n.symver {stand_in}, {symbol.name}@@{symbol.version}\n")
    options = ["-shared", "-nostdlib", f"-Wl,-soname,{name}", f"-Wl,--version-script,{script}"]
    subprocess.run(["cc", *options, "-o", str(library), str(source)], check=True)
    return library
