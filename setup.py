"""Drives CMake; everything else about the package is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure, build and install the compiled modules where setuptools wants the package to be."""

    def run(self) -> None:
        """Build all modules at once: CMake knows which there are."""
        destination = ROOT if self.inplace else Path(self.build_lib).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        options = {
            "CMAKE_INSTALL_PREFIX": destination,
            # An earlier build's cache names the ninja of an isolated environment that is gone.
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja") or "ninja",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "LABELDROP_CUDA": os.environ.get("LABELDROP_CUDA", "AUTO"),
            "LABELDROP_WERROR": os.environ.get("LABELDROP_WERROR", "OFF"),
        }
        if "LABELDROP_CUDA_ARCHS" in os.environ:
            options["LABELDROP_CUDA_ARCHS"] = os.environ["LABELDROP_CUDA_ARCHS"]
        definitions = [f"-D{key}={value}" for key, value in options.items()]
        subprocess.run(["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *definitions], check=True)
        subprocess.run(["cmake", "--build", build], check=True)
        subprocess.run(["cmake", "--install", build], check=True)

    def get_outputs(self) -> list[str]:
        """Files that an uninstall removes."""
        return [str(path) for path in (Path(self.build_lib) / "labeldrop_bench").glob("_c*.so")]


setup(ext_modules=[Extension("labeldrop_bench._cpu", sources=[])], cmdclass={"build_ext": CMakeBuild})
