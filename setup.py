"""Drives CMake; everything else about the package is in pyproject.toml.

What is packed, or lies in a checkout afterwards, is of this build alone: not a CUDA module of an earlier one that this
one has not asked for, not a module of another Python, not a file that the sources have no more.
"""

import importlib.machinery
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))
import nvcc  # noqa: E402 of this folder


def compiled(package: Path) -> list[Path]:
    """The compiled modules in the package's folder, of any Python."""
    endings = {ending.rpartition(".")[2] for ending in importlib.machinery.EXTENSION_SUFFIXES}
    return [path for ending in sorted(endings) for path in package.glob(f"_c*.{ending}")]


def forget_other_compiler(folder: Path, compiler: Path | None) -> None:
    """Throw away what was made by another nvcc: CMake would configure anew, without the options that it was given."""
    cache = folder / "CMakeCache.txt"
    known = (
        re.search(r"^CMAKE_CUDA_COMPILER:\w+=(.*)$", cache.read_text("utf-8"), re.MULTILINE) if cache.exists() else None
    )
    if compiler and known and known[1] != compiler.as_posix():
        shutil.rmtree(folder)


class CleanBuild(build):
    """A build of an empty package: setuptools packs whatever it finds there."""

    def run(self) -> None:
        """Throw away what an earlier build has left of the package, then build."""
        package = Path(self.build_lib).resolve() / "labeldrop_bench"
        if package != ROOT / "labeldrop_bench":  # never the sources, wherever somebody builds to
            shutil.rmtree(package, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    """Configure, build and install the compiled modules where setuptools wants the package to be."""

    def run(self) -> None:
        """Build all modules at once: CMake knows which there are."""
        destination = ROOT if self.inplace else Path(self.build_lib).resolve()
        folder = Path(self.build_temp).resolve() / "cmake"
        cuda = nvcc.choose(os.environ)
        print(f"labeldrop_bench: {cuda.why}", flush=True)
        options = {
            "CMAKE_INSTALL_PREFIX": destination,
            # An earlier build's cache names the ninja of an isolated environment that is gone.
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja") or "ninja",
            "Python_EXECUTABLE": sys.executable,
            "LABELDROP_CUDA": "ON" if cuda.nvcc else "OFF",
            "LABELDROP_WERROR": os.environ.get("LABELDROP_WERROR", "OFF"),
        }
        if cuda.nvcc:
            options["CMAKE_CUDA_COMPILER"] = cuda.nvcc
            wanted = os.environ.get("LABELDROP_CUDA_ARCHS") or nvcc.architectures_here(cuda.nvcc)
            if wanted:
                options["LABELDROP_CUDA_ARCHS"] = wanted
            print(f"labeldrop_bench: for GPU architectures {wanted or 'of all kinds'}", flush=True)
        forget_other_compiler(folder, cuda.nvcc)
        definitions = [f"-D{key}={value}" for key, value in options.items()]
        definitions += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        environment = {**os.environ, **cuda.environment}
        subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *definitions], check=True, env=environment)
        subprocess.run(["cmake", "--build", folder], check=True, env=environment)
        for path in compiled(destination / "labeldrop_bench"):
            path.unlink()
        subprocess.run(["cmake", "--install", folder], check=True)

    def get_outputs(self) -> list[str]:
        """Files that an uninstall removes."""
        return [str(path) for path in compiled(Path(self.build_lib) / "labeldrop_bench")]


setup(
    ext_modules=[Extension("labeldrop_bench._cpu", sources=[], py_limited_api=True)],
    cmdclass={"build": CleanBuild, "build_ext": CMakeBuild},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},  # as csrc/bindings.h has it
)
