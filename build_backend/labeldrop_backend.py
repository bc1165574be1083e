"""Setuptools' build backend, which also asks for what this machine lacks: programs, and a CUDA compiler if wanted."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

import nvcc
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 the hooks that stay as they are

Settings = Mapping[str, str | list[str] | None] | None

PROGRAMS = {"cmake": (3, 26), "ninja": (1, 8)}  # and the oldest version of each that the build can do with


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What the build environment of a wheel needs besides `build-system.requires`."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_lacking()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """What the build environment of an editable installation needs besides `build-system.requires`."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_lacking()]


def _lacking() -> list[str]:
    """Packages of the index, which take seconds to download and to unpack: of what is not here already."""
    programs = [f"{name}>={major}.{minor}" for name, (major, minor) in PROGRAMS.items() if _version(name) < (major, minor)]
    return [*programs, *nvcc.requirements(os.environ)]


def _version(program: str) -> tuple[int, ...]:
    """Of the program on the path; () if there is none that runs: a script of an environment that is left may not."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else ()
