"""Python values as TOML."""

from __future__ import annotations

import re

from labeldrop_bench.init.folders import InitError
from labeldrop_bench.records import toml, toml_key


def value(what: object) -> str:
    """A value on one line.

    Raises:
        InitError: a text that is not Unicode, such as a file name in another encoding.
    """
    text = toml(what)
    if not _is_unicode(text):
        raise InitError(f"{text} is not UTF-8 and cannot be written into a suite file; rename it")
    return text


def key(name: str) -> str:
    """A key, in quotes where it needs them; raises as `value` does."""
    return toml_key(name) if _is_unicode(name) else value(name)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def comment(text: str) -> str:
    """Text that stands behind a "#": on one line, without control characters, which TOML forbids there."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "?", text)
