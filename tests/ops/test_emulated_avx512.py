"""The code for AVX-512, where no processor with it is at hand: the same sources, its instructions emulated.

It shows that values and gradients are right, not how fast they come.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulation import avx512

HERE = Path(__file__).parent
FILES = [
    "test_tiles.py", "test_philox.py", "test_set_cross_entropy.py", "test_set_cross_entropy_rows.py",
    "test_set_cross_entropy_numerics.py", "test_pixelwise.py", "test_sigmoid_focal.py", "test_label_flip.py",
    "test_predictive_variance.py", "test_dice_sums.py", "test_dice_sums_weights.py", "test_drop_labels.py",
]  # fmt: skip


def _flags() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8") if info.exists() else ""


pytestmark = [
    pytest.mark.slow,  # compiles the CPU kernels once
    pytest.mark.skipif(platform.machine() != "x86_64" or "avx2" not in _flags(), reason="needs a processor with AVX2"),
    pytest.mark.skipif("avx512bw" in _flags(), reason="this processor has AVX-512: every test runs with it"),
    pytest.mark.skipif(not shutil.which("g++"), reason="needs g++"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A Python process with that module in the place of the package's own."""
    module = avx512.build(tmp_path_factory.mktemp("avx512"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {avx512.VARIABLE: str(module), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def run_python(code, *arguments):
        command = [sys.executable, "-c", f"import sys; del sys.path[0]; {code}", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)

    return run_python


def test_another_module_is_in_place(run):
    done = run("import emulation.avx512, labeldrop_bench; print(sys.modules[emulation.avx512.MODULE].__file__)")
    assert done.stdout.strip().endswith("_cpu.so"), done.stderr


def test_operators(run):
    files = [str(HERE / name) for name in FILES]
    code = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = run(code, "-q", "-x", "-p", "emulation.avx512", "-p", "no:cacheprovider", "-p", "no:xdist", *files)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert " passed" in done.stdout
