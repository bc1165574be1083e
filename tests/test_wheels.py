"""What `python -m tools.wheels` tells apart, and the wheel that it makes: here of CPU kernels alone."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "tools").exists(), reason="the tests are not in a checkout")

DEFINED = """\
0000000000089cd0 T memcpy@@GLIBC_2.14
0000000000089cd0 T memcpy@GLIBC_2.2.5
0000000000094b10 T pthread_create@@GLIBC_2.34
0000000000094b10 T pthread_create@GLIBC_2.2.5
0000000000046d40 T arc4random@@GLIBC_2.36
0000000000010000 W pow@@GLIBC_2.29
0000000000010010 W pow@GLIBC_2.2.5
0000000000010020 W pow@GLIBC_2.4
00000000001d4680 B stdin@@GLIBC_2.2.5
0000000000000000 T internal@@GLIBC_PRIVATE
0000000000000000 A GLIBC_2.2.5
"""
UNDEFINED = """\
                 U memcpy@GLIBC_2.14
                 U pow@GLIBC_2.29
                 U pthread_create@GLIBC_2.34
                 U _Unwind_Resume@GCC_3.0
                 U _Unwind_Find@GCC_14.0.0
                 U PyList_New
                 U _Py_Dealloc
                 U cos
                 w __gmon_start__
"""


@pytest.fixture
def glibc(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tools.old_glibc")


def test_the_newest_version_that_is_old_enough_is_taken(glibc) -> None:
    found = {s.name: (s.version, s.newer, s.function) for s in glibc.old_symbols(DEFINED.splitlines(), "GLIBC_2.28")}
    assert found == {
        "memcpy": ("GLIBC_2.14", False, True),
        "pthread_create": ("GLIBC_2.2.5", True, True),
        "pow": ("GLIBC_2.4", True, True),
        "stdin": ("GLIBC_2.2.5", False, False),
    }


def test_what_a_module_needs_of_newer_libraries_is_named(glibc) -> None:
    newest = {"GLIBC": "GLIBC_2.28", "GCC": "GCC_7.0.0"}
    assert glibc.too_new(UNDEFINED.splitlines(), newest) == [
        "_Unwind_Find@GCC_14.0.0",
        "pow@GLIBC_2.29",
        "pthread_create@GLIBC_2.34",
    ]


def test_what_no_library_has_is_named_unless_the_process_brings_it(glibc) -> None:
    assert glibc.unknown(UNDEFINED.splitlines()) == ["cos"]


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
def test_a_library_linked_with_stand_ins_needs_old_functions_and_works(glibc, tmp_path: Path) -> None:
    source = tmp_path / "library.c"
    source.write_text(
        "#include <math.h>\n#include <pthread.h>\n#include <stdio.h>\n#include <stdint.h>\n"
        "uint32_t arc4random(void);\n"
        "static void* run(void* x) { *(double*)x = pow(*(double*)x, 3); return x; }\n"
        "double cube(double x) { pthread_t t; pthread_create(&t, 0, run, &x); pthread_join(t, 0);\n"
        "  fflush(stdout); return arc4random() == arc4random() ? 0 : x + log1p(0); }\n",
        encoding="utf-8",
    )
    library = tmp_path / "library.so"
    command = ["cc", "-shared", "-fPIC", "-fno-builtin", "-o", str(library), str(source)]
    newest = {"GLIBC": "GLIBC_2.28"}
    subprocess.run([*command, "-lm"], check=True)
    if glibc.number(os.confstr("CS_GNU_LIBC_VERSION").replace(" ", "_")) > (2, 35):
        assert glibc.too_new(glibc.symbols(library, "--undefined-only"), newest)
    subprocess.run([*command, *glibc.stand_ins(tmp_path / "old", "GLIBC_2.28")], check=True)
    lines = glibc.symbols(library, "--undefined-only")
    assert glibc.too_new(lines, newest) == []
    assert glibc.unknown(lines) == []
    cube = ctypes.CDLL(str(library)).cube
    cube.restype, cube.argtypes = ctypes.c_double, [ctypes.c_double]
    assert cube(2) == 8


@pytest.mark.slow  # a minute: compiles the CPU kernels
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.skipif(not shutil.which("auditwheel") or not shutil.which("patchelf"), reason="needs auditwheel, patchelf")
def test_a_wheel_is_as_portable_as_it_says(tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "dist"), "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [sys.executable, "-m", "tools.wheels", "--cuda", "OFF", *where],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name.endswith("-cp310-abi3-manylinux_2_28_x86_64.whl")
    shown = subprocess.run(["auditwheel", "show", str(wheel)], check=True, capture_output=True, encoding="utf-8")
    (least,) = re.findall(r'constrains the platform tag to\s+"manylinux_2_(\d+)_x86_64"', shown.stdout)
    assert int(least) <= 28
