"""What a build asks the package index for, which CUDA compiler it takes, and that packed sources build with that."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
BACKEND = ROOT / "build_backend"
pytestmark = pytest.mark.skipif(not BACKEND.exists(), reason="the tests are not in a checkout")
PIP = ["nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl"]


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nvcc(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "nvcc", None)
    return load(BACKEND / "nvcc.py", "nvcc")


@pytest.fixture
def machine(nvcc: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Set up a machine with or without a driver, and with nvcc nowhere, on the path, or from the package index."""

    def set_up(driver: bool, where: str = "nowhere", value: str | None = None) -> dict[str, str]:
        monkeypatch.setattr(nvcc, "driver_visible", lambda: driver)
        monkeypatch.setattr(nvcc, "of_package_index", lambda: program(tmp_path / "cu13") if where == "index" else None)
        path = program(tmp_path / "system").parent if where == "system" else tmp_path
        return {"PATH": str(path)} | ({} if value is None else {"LABELDROP_CUDA": value})

    def program(folder: Path) -> Path:
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "lib").mkdir(exist_ok=True)
        found = folder / "bin" / nvcc.EXECUTABLE
        found.write_text("", encoding="utf-8")
        found.chmod(0o755)
        return found

    return set_up


@pytest.mark.parametrize(
    ("driver", "where", "value", "asked"),
    [
        (False, "nowhere", None, False),
        (True, "nowhere", None, True),
        (True, "system", None, False),
        (False, "nowhere", "PIP", True),
        (True, "system", "PIP", True),
        (True, "nowhere", "OFF", False),
        (True, "nowhere", "ON", False),
    ],
)
def test_the_packages_are_asked_for_where_they_will_be_used(nvcc, machine, driver, where, value, asked) -> None:
    required = nvcc.requirements(machine(driver, where, value))
    assert [line.split("==")[0] for line in required] == (PIP if asked else [])
    assert all(line.endswith("==13.0.*") for line in required)  # newer ones do not run with every driver from 580 on
    # and the build, in which they then are, takes them: what is asked for and what is taken do not part
    chosen = nvcc.choose(machine(driver, "index" if asked else where, value)) if value != "ON" else None
    assert "package index" in chosen.why if asked else chosen is None or "package index" not in chosen.why


@pytest.mark.parametrize(
    ("driver", "where", "value", "taken", "why"),
    [
        (False, "nowhere", None, None, "neither nvcc nor an NVIDIA driver"),
        (True, "nowhere", None, None, "pip install nvidia-cuda-nvcc==13.0.*"),  # without build isolation
        (False, "system", None, "system", "of this system"),
        (True, "system", "ON", "system", "of this system"),
        (True, "system", "OFF", None, "LABELDROP_CUDA=OFF"),
        (False, "index", None, None, "neither nvcc nor an NVIDIA driver"),
        (False, "index", "PIP", "cu13", "of the package index"),
    ],
)
def test_one_line_says_which_compiler_was_taken(nvcc, machine, driver, where, value, taken, why) -> None:
    chosen = nvcc.choose(machine(driver, where, value))
    assert (chosen.nvcc and chosen.nvcc.parents[1].name) == taken
    assert why in chosen.why
    assert "\n" not in chosen.why


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("ON", ["LABELDROP_CUDA=ON", "PATH", "CUDACXX", "LABELDROP_CUDA=PIP"]),
        ("PIP", ["LABELDROP_CUDA=PIP", "pip install nvidia-cuda-nvcc==13.0.*"]),
        ("on", ["LABELDROP_CUDA='on'", "AUTO", "ON", "PIP", "OFF"]),
        ("", ["LABELDROP_CUDA=''", "AUTO", "ON", "PIP", "OFF"]),
    ],
)
def test_what_cannot_be_had_is_an_error(nvcc, machine, value, says) -> None:
    with pytest.raises(SystemExit) as error:
        nvcc.choose(machine(True, "nowhere", value))
    assert all(text in str(error.value) for text in says)


def test_a_wrong_value_is_an_error_before_anything_is_downloaded(nvcc, machine) -> None:
    with pytest.raises(SystemExit, match="AUTO"):
        nvcc.requirements(machine(False, "nowhere", "YES"))


def test_a_compiler_that_is_named_and_not_there_is_an_error(nvcc, machine) -> None:
    with pytest.raises(SystemExit, match="CUDACXX=/nowhere"):
        nvcc.requirements({**machine(True, "system"), "CUDACXX": "/nowhere"})


def test_a_toolkit_without_a_compiler_is_none(nvcc, machine) -> None:
    """Images that only run CUDA programs set CUDA_HOME."""
    bare = {"CUDA_HOME": "/nowhere"}
    with_nvcc, without = {**machine(True, "system"), **bare}, {**machine(True, "nowhere"), **bare}
    assert nvcc.of_system(with_nvcc) == nvcc.of_system(machine(True, "system"))
    assert nvcc.of_system(without) is None


@pytest.mark.parametrize("variable", ["CUDACXX", "CUDA_HOME"])
def test_a_compiler_that_is_named_comes_before_that_on_the_path(nvcc, machine, tmp_path, variable) -> None:
    environment = machine(False, "system")
    named = tmp_path / "mine" / "bin" / nvcc.EXECUTABLE
    named.parent.mkdir(parents=True)
    named.write_text("", encoding="utf-8")
    named.chmod(0o755)
    environment[variable] = str(named if variable == "CUDACXX" else named.parents[1])
    assert nvcc.choose(environment).nvcc == named


def test_the_backend_asks_for_wheels_and_for_editable_installations(nvcc, machine, monkeypatch) -> None:
    environment = machine(True)
    monkeypatch.setattr(os, "environ", environment)
    backend = load(BACKEND / "labeldrop_backend.py", "labeldrop_backend")
    monkeypatch.setattr(backend, "PROGRAMS", {})
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_wheel", lambda settings: ["wheel's own"])
    monkeypatch.setattr(backend.build_meta, "get_requires_for_build_editable", lambda settings: ["editable's own"])
    assert backend.get_requires_for_build_wheel() == ["wheel's own", *nvcc.requirements(environment)]
    assert backend.get_requires_for_build_editable() == ["editable's own", *nvcc.requirements(environment)]
    hooks = ["build_wheel", "build_sdist", "build_editable", "prepare_metadata_for_build_wheel"]
    assert all(getattr(backend, name) is getattr(backend.build_meta, name) for name in hooks)


CMAKE = ["cmake>=3.26"]


@pytest.mark.skipif(sys.platform == "win32", reason="programs are shell scripts here")
@pytest.mark.parametrize(
    ("program", "asked"),
    [
        (None, CMAKE),
        ("echo cmake version 3.26.4", []),
        ("echo cmake version 4.0", []),
        ("echo cmake version 3.25.1", CMAKE),
        ("echo 'no module named cmake' >&2; exit 1", CMAKE),  # of an environment that pip hides from a build
        ("echo something else", CMAKE),
    ],
)
def test_a_program_is_asked_for_where_there_is_none_that_will_do(
    nvcc, monkeypatch, tmp_path: Path, program: str | None, asked: list[str]
) -> None:
    backend = load(BACKEND / "labeldrop_backend.py", "labeldrop_backend")
    for name, text in {"cmake": program, "ninja": "echo 1.11.1"}.items():
        if text:
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LABELDROP_CUDA", "OFF")
    assert backend.get_requires_for_build_wheel() == asked
    assert backend.get_requires_for_build_editable() == asked


def without_nvcc(path: str) -> str:
    return os.pathsep.join(part for part in path.split(os.pathsep) if not (Path(part) / "nvcc").exists())


@pytest.mark.slow  # three minutes: compiles everything, with 130 MB of compiler from the package index
@pytest.mark.skipif(sys.platform != "linux", reason="tried on Linux alone")
def test_sources_as_they_are_packed_build_cuda_kernels_without_a_cuda_compiler(tmp_path: Path) -> None:
    environment = {**os.environ, "LABELDROP_CUDA": "PIP", "LABELDROP_CUDA_ARCHS": "90", "PYTHONPATH": ""}
    environment["PATH"] = without_nvcc(environment["PATH"])
    for name in ("CUDACXX", "CUDA_HOME", "NVCC_APPEND_FLAGS"):
        environment.pop(name, None)

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run("setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path))
    (sources,) = tmp_path.glob("*.tar.gz")
    log = run("-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", str(tmp_path), str(sources))
    assert "labeldrop_bench: CUDA kernels by the nvcc of the package index" in log
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.startswith("labeldrop_bench/_cuda"))
        module = archive.extract(name, tmp_path)
    built = load(Path(module), "_cuda")  # on a machine that may have no driver
    assert built.architectures == (90,)
    assert built.runtime_version // 10 == 1300
    of_cpu_alone = {"current_isa", "select_isa", "normals", "philox4x32", "tiles", "mean_overlap"}
    assert set(dir(import_module("labeldrop_bench._cpu"))) - of_cpu_alone <= set(dir(built))


class Driver:
    """The driver's library: GPUs of some compute capabilities, or an error."""

    def __init__(self, *gpus: tuple[int, int], error: int = 0) -> None:
        self.gpus, self.error = gpus, error

    def cuInit(self, flags: int) -> int:  # noqa: N802 the driver's names
        return self.error

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGetAttribute(self, value: object, attribute: int, device: int) -> int:  # noqa: N802
        value._obj.value = self.gpus[device][attribute - 75]
        return 0


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (Driver((9, 0)), "90"),
        (Driver((9, 0), (9, 0), (7, 5)), "75;90"),
        (Driver((12, 9)), "121"),  # newer than this nvcc: the driver compiles what it has for an older one
        (Driver((8, 6)), "86"),
        (Driver((6, 0)), ""),  # too old for this nvcc: whatever is built by default, and the first call says it
        (Driver((9, 0), (6, 0)), ""),
        (Driver(), ""),
        (Driver((9, 0), error=803), ""),  # no driver that works
        (None, ""),
    ],
)
def test_the_gpus_of_this_machine_alone_are_built_for(
    nvcc: ModuleType, driver: Driver | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\nfor a in 75 80 86 90 100 120 121; do echo compute_$a; done\n", encoding="utf-8")
    compiler.chmod(0o755)

    def load(name: str) -> Driver:
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(nvcc.ctypes, "CDLL", load)
    assert nvcc.architectures_here(compiler) == expected
