"""Setuptools' build backend, which also asks for a CUDA compiler of the package index where one is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping

import nvcc
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 the hooks that stay as they are

Settings = Mapping[str, str | list[str] | None] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What the build environment of a wheel needs besides `build-system.requires`."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *nvcc.requirements(os.environ)]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """What the build environment of an editable installation needs besides `build-system.requires`."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *nvcc.requirements(os.environ)]
