"""What a build packs is its own: nothing of an earlier one. CMake is a stand-in that installs empty modules."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
ENDING = ".pyd" if sys.platform == "win32" else ".abi3.so"
OTHER = ".cpython-39-x86_64-linux-gnu.so"
CMAKE = """#!{python}
import pathlib, sys
words = sys.argv[1:]
note = pathlib.Path(words[words.index("-B") + 1] if "-B" in words else words[1]) / "asked"
if "-B" in words:
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text("\\n".join(words), encoding="utf-8")
if "--install" in words:
    asked = dict(w[2:].split("=", 1) for w in note.read_text(encoding="utf-8").splitlines() if w.startswith("-D"))
    for name in ["_cpu"] + ["_cuda"] * (asked["LABELDROP_CUDA"] == "ON"):
        (pathlib.Path(asked["CMAKE_INSTALL_PREFIX"]) / "labeldrop_bench" / (name + "{ending}")).write_bytes(b"")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, without what was compiled."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("the tests are not in a checkout")
    copy = tmp_path / "checkout"
    left_out = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    for name in ("labeldrop_bench", "build_backend"):
        shutil.copytree(ROOT / name, copy / name, ignore=left_out)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cmake").write_text(CMAKE.format(python=sys.executable, ending=ENDING), encoding="utf-8")
    (tmp_path / "bin" / "cmake").chmod(0o755)
    (tmp_path / "bin" / "nvcc").write_text("#!/bin/sh\n", encoding="utf-8")
    (tmp_path / "bin" / "nvcc").chmod(0o755)
    return copy


def build(checkout: Path, cuda: str, *command: str) -> None:
    path = f"{checkout.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", *command],
        cwd=checkout,
        env={**os.environ, "PATH": path, "LABELDROP_CUDA": cuda, "PYTHONPATH": ""},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr


def packed(checkout: Path) -> set[str]:
    (wheel,) = (checkout / "dist").glob("*-cp310-abi3-*.whl")
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wheel.unlink()
    return {name.removeprefix("labeldrop_bench/") for name in names if name.startswith("labeldrop_bench/")}


def test_a_wheel_holds_nothing_of_an_earlier_build(checkout: Path) -> None:
    gone = checkout / "labeldrop_bench" / "gone.py"
    gone.write_text("", encoding="utf-8")
    build(checkout, "ON", "bdist_wheel")
    first = packed(checkout)
    assert {f"_cpu{ENDING}", f"_cuda{ENDING}", "gone.py", "suites/quick.toml"} <= first
    gone.unlink()
    build(checkout, "OFF", "bdist_wheel")
    assert packed(checkout) == first - {f"_cuda{ENDING}", "gone.py"}


def test_a_wheel_holds_nothing_of_an_editable_build(checkout: Path) -> None:
    build(checkout, "ON", "build_ext", "--inplace")
    (checkout / "labeldrop_bench" / f"_cpu{OTHER}").write_bytes(b"")
    build(checkout, "OFF", "bdist_wheel")
    assert {name for name in packed(checkout) if name.startswith("_c")} == {f"_cpu{ENDING}"}


def test_a_checkout_holds_the_modules_of_the_last_build_alone(checkout: Path) -> None:
    package = checkout / "labeldrop_bench"
    (package / f"_cpu{OTHER}").write_bytes(b"")
    build(checkout, "ON", "build_ext", "--inplace")
    assert {path.name for path in package.glob("_c*")} == {f"_cpu{ENDING}", f"_cuda{ENDING}"}
    build(checkout, "OFF", "build_ext", "--inplace")
    assert {path.name for path in package.glob("_c*")} == {f"_cpu{ENDING}"}


def test_another_nvcc_starts_from_nothing(checkout: Path) -> None:
    build(checkout, "ON", "build_ext", "--inplace")
    (folder,) = (checkout / "build").glob("temp*/cmake")
    for known, kept in [(checkout.parent / "bin" / "nvcc", True), ("/gone/nvcc", False)]:
        (folder / "CMakeCache.txt").write_text(f"CMAKE_CUDA_COMPILER:FILEPATH={known}\n", encoding="utf-8")
        (folder / "made_by_it").touch()
        build(checkout, "ON", "build_ext", "--inplace")
        assert (folder / "made_by_it").exists() == kept


@pytest.mark.slow  # compiles the CPU kernels once
@pytest.mark.skipif(platform.machine() != "x86_64" or not shutil.which("g++"), reason="needs x86-64 and g++")
def test_what_is_compiled_once_per_instruction_set_shares_no_function(tmp_path: Path) -> None:
    """The linker keeps one of equal functions for all: that of AVX-512 would end a process on a lesser processor."""
    flags = ["-std=c++17", "-O1", "-w", "-mavx2", "-mfma", "-mf16c", "-fopenmp-simd", "-DLABELDROP_ISA=avx2"]
    once = {"cache.cpp", "dispatch.cpp", "threads.cpp"}
    sources = [path for path in (ROOT / "csrc" / "cpu").glob("*.cpp") if path.name not in once]
    assert len(sources) > 5
    for source in sources:
        compiled = tmp_path / f"{source.name}.o"
        subprocess.run(["g++", *flags, "-c", str(source), "-o", str(compiled)], check=True)
        listed = subprocess.run(["nm", "-C", str(compiled)], check=True, capture_output=True, encoding="utf-8").stdout
        shared = [line for line in listed.splitlines() if re.search(" [WVu] (?!DW.ref)", line)]
        assert shared == [], source.name


DOUBLES = """
#include "block_io.h"
int main() {
  using namespace labeldrop;
  return int(with_reals(Float::f64, [](auto real) -> int64_t { return sizeof(real); }));
}
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("c++") is None, reason="needs a compiler with GCC's flags")
@pytest.mark.parametrize("flags", [[], ["-mavx2"]])
def test_doubles_are_computed_whatever_flags_the_user_has(tmp_path: Path, flags: list[str]) -> None:
    """CXXFLAGS=-march=native gives the baseline's code AVX2; where there is no code for a type, nothing is returned."""
    if flags and "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("this processor has no AVX2")
    (tmp_path / "main.cpp").write_text(DOUBLES, encoding="utf-8")

    def run(*more: str) -> int:
        program = tmp_path / "main"
        command = ["c++", "-std=c++17", f"-I{ROOT / 'csrc' / 'cpu'}", *flags, *more, str(tmp_path / "main.cpp")]
        subprocess.run([*command, "-DLABELDROP_ISA=baseline", "-o", str(program)], check=True)
        return subprocess.run([str(program)], stderr=subprocess.DEVNULL).returncode

    assert run("-DLABELDROP_DOUBLES") == 8
    assert run() < 0  # ended, rather than as if it had computed something
