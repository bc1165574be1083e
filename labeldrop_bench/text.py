"""Text files are UTF-8 on every machine, whatever its locale is: all are read here, and `records.write_text` writes."""

from __future__ import annotations

import csv
import io
from typing import Protocol

from labeldrop_bench.errors import UserError


class TextError(UserError, ValueError):
    """A text file that is not UTF-8.

    Attributes:
        path: of the file.
        problem: what is wrong with it and what to do, without its name.
    """

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class _File(Protocol):
    """A `pathlib.Path`, or a file inside a package."""

    def read_bytes(self) -> bytes:
        """All of it."""


def read_text(path: _File) -> str:
    r"""The text of a file, without the byte order mark that some editors put in front; ends of lines as they are.

    Raises:
        TextError: it is not UTF-8.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(path, f"is not UTF-8 text ({_where(content, error)}); save it again as UTF-8") from error


def read_rows(path: _File) -> csv.DictReader[str]:
    """The rows of a CSV file, by the names in its first line.

    Raises:
        TextError: it is not UTF-8.
        OSError: it cannot be read.
    """
    return csv.DictReader(io.StringIO(read_text(path), newline=""))


def storable(name: str) -> str:
    """A text whose file names may not be in the locale's encoding: UTF-8 is read, other bytes are escaped.

    Python hands such names out with surrogates, which can be opened but neither stored nor shown.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _where(content: bytes, error: UnicodeDecodeError) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it looks like UTF-16"
    line = content.count(b"\n", 0, error.start) + 1
    return f"byte 0x{content[error.start]:02x} in line {line}: {error.reason}"
