"""What the package's extras bring, read from its own metadata, and what to say where a package of one is missing."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from labeldrop_bench.errors import UserError

_OURS = "labeldrop-bench"
# Packages that are imported by a name which is not that of the distribution
_DISTRIBUTIONS = {"ignite": "pytorch-ignite", "PIL": "pillow", "skimage": "scikit-image"}


class MissingPackageError(UserError, ModuleNotFoundError):
    """A package that an extra of ours brings is not installed; says which, for what, and the line to type."""


def extra_of(module: str) -> str | None:
    """The first extra of pyproject.toml that brings a module's distribution; None if no extra does."""
    top = module.partition(".")[0]
    return _brought().get(_normal(_DISTRIBUTIONS.get(top, top)))


def require(who: str, *modules: str, extra: str | None = None) -> None:
    """Find out before work begins.

    Args:
        who: needs them, as a person calls it: the name of a data set, an option of the command line.
        modules: as they are imported.
        extra: to name, where several bring them; None: the first.

    Raises:
        MissingPackageError: some are not installed.
    """
    absent = [module for module in modules if find_spec(module) is None]
    if absent:
        raise MissingPackageError(f"{who}: {advice(*absent, extra=extra)}", name=absent[0])


def advice(*modules: str, extra: str | None = None) -> str:
    """One sentence: what is missing, and how to get it; `extra` to name a certain one."""
    extra = extra or next(filter(None, map(extra_of, modules)), None)
    if extra is None:
        return f"needs {', '.join(modules)}, not installed: pip install {' '.join(modules)}"
    return f"needs {', '.join(modules)}, not installed; the extra {extra!r} brings that: {install(extra)}"


def explain(error: ModuleNotFoundError) -> str | None:
    """The sentence for a package of an extra that is not there; None for any other error, which is a bug."""
    if isinstance(error, MissingPackageError):
        return str(error)
    module = (error.name or "").partition(".")[0]
    return advice(module) if module and extra_of(module) and find_spec(module) is None else None


def install(extra: str) -> str:
    """The line that adds an extra to the package that is installed."""
    return f"pip install 'labeldrop-bench[{extra}]'"


@cache
def _brought() -> dict[str, str]:
    """Distribution -> the first extra that brings it. Empty in a source tree that was never installed."""
    try:
        lines = requires(_OURS) or []
    except PackageNotFoundError:
        return {}
    brought: dict[str, str] = {}
    for line in lines:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra == [\"']([\w-]+)[\"']", line)
        if name and extra and name[0] != _OURS:
            brought.setdefault(_normal(name[0]), extra[1])
    return brought


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
