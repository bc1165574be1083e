"""`labeldrop-bench doctor`, and the errors of the first call on a GPU: every finding without a GPU."""

from __future__ import annotations

import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labeldrop_bench import cli, doctor
from labeldrop_bench.doctor import Facts, findings, report
from labeldrop_bench.ops import CudaBuild, Driver, Gpu, _native, cuda_problem

BUILD = CudaBuild((75, 80, 90), 13000)
H100, P100 = Gpu("H100", (9, 0)), Gpu("P100", (6, 0))
CPU = Facts(
    folder=Path("/env/labeldrop_bench"),
    checkout=False,
    compiled=("/env/labeldrop_bench",),
    versions={"labeldrop-bench": "1.0", "torch": "2.13.0"},
    torch_cuda=None,
    isa="AVX2",
    kernels={"drop_labels": ("cpu",)},
    build=None,
    driver=None,
    cards=0,
    gpus=(),
    openmp=("/env/libgomp.so.1",),
    failures={"cpu": ""},
)
CUDA = replace(
    CPU, torch_cuda="13.0", kernels={"drop_labels": ("cpu", "cuda")}, build=BUILD,
    driver=Driver(13000, "580.65.06"), cards=1, gpus=(H100,), failures={"cpu": "", "cuda:0": ""},
)  # fmt: skip


@pytest.mark.parametrize(
    "facts",
    [
        CPU,
        CUDA,
        replace(CPU, torch_cuda="13.0"),  # the usual torch on a machine without a GPU
        replace(CPU, cards=1),  # a card that nobody means to use
        replace(CPU, build=BUILD),  # the wheel on such a machine
        replace(CUDA, driver=Driver(13020, "590.1")),
        replace(CUDA, driver=Driver(14000), cards=0),  # a system that does not list its cards
        replace(CUDA, gpus=(H100, Gpu("B200", (10, 0)))),  # what is newer is compiled by the driver
        replace(CPU, openmp=None),  # a system that does not tell
    ],
)
def test_all_is_well(facts: Facts) -> None:
    assert findings(facts) == []
    assert report(facts).endswith("\nAll is well.")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(CPU, isa=None, checkout=True), ["source folder, /env/labeldrop_bench", "pip install -e ."]),
        (replace(CPU, isa=None), ["no compiled kernels in /env/labeldrop_bench", "`pip install .`"]),
        (replace(CPU, compiled=("/old",)), ["imported from /env/labeldrop_bench, and its kernels from /old"]),
        (replace(CUDA, driver=None, gpus=()), ["graphics card, and no driver", "install NVIDIA's", "--gpus all"]),
        (replace(CPU, driver=Driver(13000)), ["a driver for CUDA 13.0", "torch 2.13.0 was built without CUDA"]),
        (replace(CPU, driver=Driver(0, "580.65.06")), ["driver 580.65.06", "torch 2.13.0 was built without CUDA"]),
        (
            replace(CUDA, build=None),
            [
                "H100 (compute capability 9.0)",
                "580.65.06",
                "no CUDA kernels",
                "install a wheel",
                "LABELDROP_CUDA=PIP pip install .",
                "LABELDROP_CUDA=ON",
            ],
        ),
        (replace(CUDA, gpus=()), ["built for CUDA 13.0, can use none", "CUDA_VISIBLE_DEVICES", "--gpus all"]),
        (
            replace(CUDA, driver=Driver(12080, "570.1"), gpus=(H100, H100)),
            [
                "H100 (compute capability 9.0) with driver 570.1 (CUDA 12.8)",
                "built by CUDA 13.0",
                "580 or later",
                "7.5, 8.0, 9.0",
                "nvcc of CUDA 12 on PATH",
            ],
        ),
        (
            replace(CUDA, build=CudaBuild((80, 90), 13000), gpus=(H100, Gpu("T4", (7, 5)))),
            [
                "T4 (compute capability 7.5) with driver 580.65.06 (CUDA 13.0)",
                "for compute capabilities 8.0, 9.0, and",
                "LABELDROP_CUDA=ON LABELDROP_CUDA_ARCHS=75 pip install .",
                "install a wheel",
            ],
        ),
        (
            replace(CUDA, gpus=(P100,)),
            ["P100", "6.0", "7.5, 8.0, 9.0", "nvcc of CUDA 12 on PATH", "LABELDROP_CUDA_ARCHS=60 pip install ."],
        ),
        (  # B200 would be compiled for by the driver, which is older than the compiler
            replace(CUDA, build=CudaBuild((90,), 13020), gpus=(Gpu("B200", (10, 0)),)),
            ["B200", "580.65.06 (CUDA 13.0)", "built by CUDA 13.2", "no machine code", "LABELDROP_CUDA_ARCHS=100"],
        ),
        (replace(CPU, openmp=()), ["no OpenMP runtime", "one thread", "install a torch"]),
        (
            replace(CPU, openmp=("/a/libgomp.so", "/b/libiomp5.so")),
            ["2 OpenMP runtimes", "/a/libgomp.so, /b/libiomp5.so"],
        ),
        (replace(CUDA, failures={"cpu": "", "cuda:0": "RuntimeError: x"}), ["a tiny loss on cuda:0: RuntimeError: x"]),
    ],
)
def test_what_is_wrong_is_said_once_with_its_remedy(facts: Facts, said: list[str]) -> None:
    (finding,) = findings(facts)
    assert all(part in finding for part in said), finding
    assert f"What is wrong\n  1. {finding}" in report(facts)


def test_the_report_has_versions_devices_and_kernels() -> None:
    shown = {line.split("  ")[1].strip(): line for line in report(CUDA).splitlines() if line.startswith("  ")}
    assert shown["torch"].endswith("2.13.0")
    assert shown["cpu"].endswith("AVX2; a tiny loss is right")
    assert shown["cuda:0"].endswith("H100 (compute capability 9.0); a tiny loss is right")
    assert shown["NVIDIA driver"].endswith("driver 580.65.06 (CUDA 13.0)")
    assert shown["drop_labels"].endswith("cpu, cuda")
    assert shown["CUDA"].endswith("built by CUDA 13.0 for compute capabilities 7.5, 8.0, 9.0")
    assert "cuda:0               H100 (compute capability 9.0); a tiny loss FAILED" in report(
        replace(CUDA, failures={"cpu": "", "cuda:0": "x"})
    )


def test_here_all_is_well_and_every_operator_has_a_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    facts = replace(doctor.gather(), openmp=None)  # this process has imported much besides torch
    assert facts.failures["cpu"] == ""
    assert facts.isa in {"baseline", "AVX2", "AVX-512"}
    assert {"set_cross_entropy", "dice_sums", "drop_labels", "label_dropout"} <= set(facts.kernels)
    assert all("cpu" in kinds for kinds in facts.kernels.values())
    assert set(facts.versions) >= {"labeldrop-bench", "python", "torch", "numpy"}


def test_the_exit_code_is_that_of_the_findings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for facts, code in ((CPU, 0), (replace(CPU, isa=None), 1)):
        monkeypatch.setattr(doctor, "gather", lambda facts=facts: facts)
        assert cli.main(["doctor"]) == code
        assert capsys.readouterr().out == report(facts) + "\n"


@pytest.mark.parametrize(("factor", "said"), [(1.01, "kernel and reference are"), (float("nan"), "nan apart")])
def test_a_kernel_that_computes_something_else_is_noticed(
    factor: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = doctor._value_and_gradient
    wrong = {"fused": factor, "reference": 1.0}
    monkeypatch.setattr(
        doctor,
        "_value_and_gradient",
        lambda name, backend, device: tuple(wrong[backend] * part for part in right(name, backend, device)),
    )
    assert said in doctor.try_losses("cpu")


def test_an_exception_of_a_kernel_is_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_native._MODULES, "cpu", None)
    assert doctor.try_losses("cpu").startswith("RuntimeError: dice_sums: there is no compiled kernel")
    assert doctor.gather().isa is None


class Module:
    __file__ = str(Path(_native.__file__).parents[1] / "_cuda.so")

    def __init__(self, version: int) -> None:
        self.architectures, self.runtime_version, self._version = BUILD.architectures, BUILD.runtime, version

    def driver_version(self) -> int:
        return self._version

    drop_labels = None


@pytest.mark.parametrize(
    ("driver", "gpu", "problem"),
    [
        (12080, H100, cuda_problem(BUILD, Driver(12080), H100)),
        (13000, P100, cuda_problem(BUILD, Driver(13000), P100)),
        (13000, H100, None),
    ],
)
def test_the_first_call_on_a_gpu_says_what_the_doctor_says(
    driver: int, gpu: Gpu, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not "no kernel image is available"."""
    monkeypatch.setitem(_native._MODULES, "cuda", Module(driver))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: gpu.name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: gpu.capability)
    _native._problem.cache_clear()
    try:
        if problem is None:
            assert isinstance(_native.module(torch.device("cuda", 0), "drop_labels"), Module)
            return
        with pytest.raises(RuntimeError) as error:
            _native.module(torch.device("cuda", 0), "drop_labels")
        assert str(error.value) == f"drop_labels: {problem}, or choose backend='reference'"
    finally:
        _native._problem.cache_clear()


def test_the_driver_is_asked_without_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(reference: object) -> int:
        reference._obj.value = 12040
        return 0

    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda name: types.SimpleNamespace(cuDriverGetVersion=ask))
    monkeypatch.setattr(doctor, "_driver_name", lambda: None)
    assert doctor._driver() == Driver(12040)

    def none(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(doctor.ctypes, "CDLL", none)
    assert doctor._driver() is None
    monkeypatch.setattr(doctor, "_driver_name", lambda: "580.65.06")  # a container that has the system's files alone
    assert doctor._driver() == Driver(0, "580.65.06")


def test_cards_are_counted_whether_or_not_they_have_a_driver(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x8086", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n", encoding="utf-8")
        (tmp_path / name / "class").write_text(f"{kind}\n", encoding="utf-8")
    (tmp_path / "unreadable").mkdir()
    assert doctor._cards(tmp_path) == 1  # neither its sound device nor another maker's
    assert doctor._cards(tmp_path / "nowhere") == 0


def test_a_module_that_was_loaded_says_what_it_was_built_for() -> None:
    build = _native.cuda_build()
    if build is None:
        pytest.skip("there is no CUDA module here")
    assert build.architectures == tuple(sorted(build.architectures))
    assert min(build.architectures) >= 50
    assert build.runtime // 1000 >= 12


@pytest.mark.parametrize("cuda", [None, "13.0"])
@pytest.mark.parametrize("module", [None, Module(12080)])
@pytest.mark.parametrize("driver", [None, Driver(12080), Driver(13000)])
def test_broken_machines_are_looked_at_as_they_are(
    cuda: str | None, module: Module | None, driver: Driver | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No driver or an old one, no CUDA module, a torch for CPUs: nothing raises, and each has its finding."""
    works = cuda is not None and driver is not None
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: works)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(works))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: H100.name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: H100.capability)
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    monkeypatch.setattr(doctor, "_cards", lambda: 1)
    monkeypatch.setattr(doctor, "_openmp", lambda: None)
    monkeypatch.setattr(doctor, "try_losses", lambda device: "")
    monkeypatch.setitem(_native._MODULES, "cuda", module)
    text = " ".join(findings(doctor.gather()))
    expected = {
        "no driver for it": driver is None and cuda is not None,
        "was built without CUDA": driver is not None and cuda is None,
        "there are no CUDA kernels": works and module is None,
        "need a newer driver": works and module is not None and driver is not None and driver.cuda == 12080,
    }
    assert {part: part in text for part in expected} == expected
    assert bool(text) == any(expected.values())
