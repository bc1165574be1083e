"""Compile the CUDA sources against the emulated device with a C++ compiler, and import the result."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from filelock import FileLock

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"

# -O1: the compiler's time counts as well. No contraction into fused multiply-adds on architectures that have them.
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w"]
# Few blocks, so that small problems already make a block go from tile to tile and from sample to sample: a barrier that
# is missing between two of them shows in no other way.
FLAGS += ["-DLABELDROP_PARTIALS=4"]
FLAGS += ["-DLABELDROP_EMULATED"]  # the formulas of a GPU, see csrc/math/portable.h
# What a GPU answers with a fault or with garbage. runtime.cpp reports what is found.
SANITIZE = [
    "-fsanitize=alignment,bounds,shift-exponent,signed-integer-overflow,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
]


class CannotBuildError(Exception):
    """Something that the build needs is not installed."""


def compiler() -> str:
    """The C++ compiler: `CXX`, or what is on the path."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise CannotBuildError("needs a C++ compiler: set CXX, or install g++ or clang++")


def _extra_flags() -> list[str]:
    """For the kernels, from outside: `-fsanitize=address` finds accesses outside of a tensor.

    `LABELDROP_EMULATION_FLAGS=-fsanitize=address ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
    LD_PRELOAD=$(g++ -print-file-name=libasan.so) pytest tests/ops/test_emulated_cuda.py`
    """
    return os.environ.get("LABELDROP_EMULATION_FLAGS", "").split()


def _sources(csrc: Path) -> list[Path]:
    return [HERE / "runtime.cpp", csrc / "bindings_cuda.cpp", *sorted((csrc / "cuda").glob("*.cu"))]


def _command(csrc: Path, source: Path) -> list[str]:
    includes = [HERE, csrc, sysconfig.get_path("include")]
    sanitize = [*SANITIZE, *_extra_flags()] if source.suffix == ".cu" else []
    return [compiler(), *FLAGS, *sanitize, *(f"-I{path}" for path in includes), "-x", "c++", "-c", str(source)]


def _fingerprint(csrc: Path) -> str:
    """Of everything that goes into the module."""
    digest = hashlib.sha256(sysconfig.get_config_var("EXT_SUFFIX").encode())
    for path in (*sorted(HERE.iterdir()), *sorted(csrc.rglob("*"))):
        if path.is_file() and path.suffix in (".h", ".cuh", ".cu", ".cpp", ".py"):
            digest.update(path.name.encode() + path.read_bytes())
    digest.update(" ".join(_command(csrc, csrc)).encode())
    return digest.hexdigest()[:20]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def _compile(csrc: Path, module: Path) -> None:
    with TemporaryDirectory(dir=module.parent) as directory:
        work = Path(directory)
        sources = _sources(csrc)
        objects = [work / f"{source.name}.o" for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = zip(sources, objects, strict=True)
            list(pool.map(lambda job: _run([*_command(csrc, job[0]), "-o", str(job[1])]), jobs))
        undefined = ["-undefined", "dynamic_lookup"] if os.uname().sysname == "Darwin" else []
        linked = work / module.name
        _run([compiler(), "-shared", *undefined, *_extra_flags(), "-o", str(linked), *map(str, objects)])
        linked.replace(module)


def build(directory: Path, csrc: Path = CSRC) -> ModuleType:
    """The module of `csrc/bindings_cuda.cpp`, working on host memory; compiled if `directory` does not have it yet.

    Its function `emulation_order(order)` sets the order in which blocks, warps and lanes get their turn: 0 ascending, 1
    descending, 2 mixed. `emulation_fail_after(calls)` lets that call of the runtime fail which comes after so many
    others (-1: none); `emulation_last_error()` is the error that the runtime keeps, 0 for none; `emulation_listen(f)`
    calls `f(kernel, arguments, bytes, threads of a block, bytes of shared memory)` at every launch.

    Raises:
        CannotBuildError: there is no compiler.
        RuntimeError: a source does not compile.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{_fingerprint(csrc)}{sysconfig.get_config_var('EXT_SUFFIX')}"
    with FileLock(directory / "lock"):  # other test processes want it as well
        if not path.exists():
            for outdated in directory.glob("*.so"):
                outdated.unlink()
            _compile(csrc, path)
    # The last part of the name is what the file's initialiser is called; the whole of it has to be the module's own.
    name = f"emulated_{path.name.split('.')[0]}._cuda"
    loader = ExtensionFileLoader(name, str(path))
    spec = spec_from_loader(name, loader)
    module = module_from_spec(spec)
    loader.exec_module(module)
    functions = ctypes.CDLL(str(path))
    for function in ("emulation_order", "emulation_fail_after", "emulation_last_error", "emulation_listen"):
        setattr(module, function, getattr(functions, function))
    return module
