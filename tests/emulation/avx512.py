"""The CPU's kernels as they are written for AVX-512, on a processor without it: see avx512.h.

As a plugin of pytest (`-p emulation.avx512`) the module at LABELDROP_EMULATED_AVX512 takes the place of the package's
own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from .build import CSRC, HERE, compiler

MODULE = "labeldrop_bench._cpu"
VARIABLE = "LABELDROP_EMULATED_AVX512"

# -O2: below it GCC makes no fused multiply-adds, on which the exponential's accuracy rests where there are some
FLAGS = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-w", "-Wno-psabi", "-fopenmp-simd"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"]  # as CMakeLists.txt has them
FLAGS += ["-mavx2", "-mfma", "-mf16c", "-include", str(HERE / "avx512.h")]
# the only instruction set of the module, under the name of the one that is always there
FLAGS += ["-DLABELDROP_ISA=baseline", "-DLABELDROP_DOUBLES"]


def build(folder: Path) -> Path:
    """Compile the module into a folder."""
    include = sysconfig.get_path("include")

    def compiled(source: Path) -> str:
        to = folder / f"{source.name}.o"
        subprocess.run([compiler(), *FLAGS, f"-I{CSRC}", f"-I{include}", "-c", str(source), "-o", str(to)], check=True)
        return str(to)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [CSRC / "bindings_cpu.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))]))
    module = folder / "_cpu.so"
    subprocess.run([compiler(), "-shared", "-o", str(module), *objects, "-ldl"], check=True)
    return module


if path := os.environ.get(VARIABLE):
    loader = ExtensionFileLoader(MODULE, path)
    sys.modules[MODULE] = module_from_spec(spec_from_loader(MODULE, loader))
    loader.exec_module(sys.modules[MODULE])
