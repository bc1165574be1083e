"""Stands in for a torchvision that was built for another torch than the installed one, and so cannot be imported.

torchmetrics, and with it Lightning, imports names of it as soon as its metadata are there, and uses none of them here.
"""

import sys
from types import ModuleType


class _Anything(ModuleType):
    """Has every name, and nothing in it."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(f"{self.__name__}.{name}")


sys.modules[__name__] = _Anything(__name__)
for _part in ("io", "models", "ops", "transforms", "transforms.functional", "utils"):
    sys.modules[f"{__name__}.{_part}"] = _Anything(f"{__name__}.{_part}")
