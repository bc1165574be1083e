"""Python values as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from labeldrop_bench.init.folders import InitError


def key(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else value(name)


def value(what: object) -> str:
    """A value on one line.

    Raises:
        InitError: a text that is not Unicode, such as a file name in another encoding.
    """
    if isinstance(what, bool):
        return "true" if what else "false"
    if isinstance(what, (int, float)):
        return repr(what)
    if isinstance(what, Mapping):
        return f"{{ {', '.join(f'{key(str(k))} = {value(v)}' for k, v in what.items())} }}"
    if isinstance(what, (list, tuple)):
        return f"[{', '.join(map(value, what))}]"
    assert isinstance(what, (str, Path))  # noqa: S101 - for whoever adds a type
    text = str(what)
    if not _is_unicode(text):
        raise InitError(f"{text!r} is not UTF-8 and cannot be written into a suite file; rename it")
    # JSON's escapes are TOML's, which also wants DEL escaped
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def comment(text: str) -> str:
    """Text that stands behind a "#": on one line, without control characters, which TOML forbids there."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "?", text)
