"""The kernels' arguments as keywords: whoever forgets one must not get a null pointer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch

from labeldrop_bench.ops._native import _MODULES

CPU = _MODULES["cpu"]
OTHER_PYTHONS = [f"python3.{minor}" for minor in range(10, 16) if minor != sys.version_info.minor]
ARGUMENTS = dict.fromkeys(("annotated", "probability", "out", "samples", "labels", "key"), 0)
NOISE = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # of Random123's tests: counter and key are 0
USE_IT = """
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_cpu", {path!r})
module = module_from_spec(spec)
spec.loader.exec_module(module)
assert module.current_isa() in (0, 1, 2)
assert list(module.philox4x32(counter=[0] * 4, key=[0] * 2)) == {noise}
"""


def test_a_kernel_takes_all_of_its_arguments_and_no_other() -> None:
    CPU.label_dropout(**ARGUMENTS)
    CPU.label_dropout(**dict(reversed(ARGUMENTS.items())))
    CPU.label_dropout(*ARGUMENTS.values())
    CPU.label_dropout(**{"".join(list(name)): value for name, value in ARGUMENTS.items()})  # strings of their own
    with pytest.raises(TypeError, match="label_dropout: missing argument samples"):
        CPU.label_dropout(**{name: value for name, value in ARGUMENTS.items() if name != "samples"})
    with pytest.raises(TypeError, match="label_dropout: there is no argument sample"):
        CPU.label_dropout(**ARGUMENTS, sample=0)
    with pytest.raises(TypeError, match="label_dropout: there is no argument annotated, or it came twice"):
        CPU.label_dropout(0, **ARGUMENTS)
    with pytest.raises(TypeError, match="label_dropout: takes 6 arguments, got 7"):
        CPU.label_dropout(*ARGUMENTS.values(), 0)
    with pytest.raises(TypeError, match="label_dropout: 99 arguments are too many"):
        CPU.label_dropout(**{f"a{i}": i for i in range(99)})


TILE = {"values": 0, "pitch": 16, "memory": 0, "type": 0, "channels": 0, "channel_stride": 1, "pixel_stride": 1}
TILE |= {"count": 0, "load": True, "streaming": False}


@pytest.mark.parametrize(
    ("function", "argument", "value", "says"),
    [
        ("tiles", "pitch", 1.5, "an integer that fits, got 1.5"),
        ("tiles", "pitch", 2**63, "an integer that fits, got 9223372036854775808"),
        ("tiles", "count", 2**31, "an integer that fits, got 2147483648"),
        ("tiles", "type", "f32", "an integer that fits, got 'f32'"),
        ("tiles", "values", None, "an integer that fits, got None"),
        ("tiles", "values", -1, "an integer that fits, got -1"),
        ("tiles", "load", 1, "True or False, got 1"),
        ("philox4x32", "counter", [0] * 5, r"a few numbers, got \[0, 0, 0, 0, 0\]"),
        ("philox4x32", "counter", [0, 1.5], r"a few numbers, got \[0, 1.5\]"),
        ("philox4x32", "key", [2**32], r"a few numbers, got \[4294967296\]"),
        ("philox4x32", "key", 5, "a few numbers, got 5"),
    ],
)
def test_a_value_of_another_kind_is_named(function: str, argument: str, value: object, says: str) -> None:
    right = TILE if function == "tiles" else {"counter": [0] * 4, "key": [0] * 2}
    getattr(CPU, function)(**right)
    with pytest.raises(TypeError, match=f"{function}: {argument} must be {says}"):
        getattr(CPU, function)(**{**right, argument: value})


def test_memory_that_cannot_be_had_is_pythons_error() -> None:
    """Tiles of 2**45 channels do not fit into an address space."""
    pixels = torch.zeros(1 << 10, dtype=torch.int32)
    arguments = dict.fromkeys(("logits", "target", "tables", "divisor", "loss"), pixels.data_ptr())
    arguments |= dict.fromkeys(
        ("label_weight", "class_weight", "pixel_weight", "key", "upstream", "result", "gradient"), 0
    )
    arguments |= {"samples": 1, "pixels": 1, "labels": 1, "channels": 2**45, "classes": 2**45, "ignore_index": -100}
    arguments |= {"logits_type": 0, "target_type": 0, "parameters": (), "threads": 1}
    arguments |= dict.fromkeys(("channels_last", "upstream_per_pixel", "mean"), False)
    with pytest.raises(MemoryError):
        CPU.set_cross_entropy(**arguments)


def test_other_threads_run_during_a_call() -> None:
    """A thread that counts gets on while kernels run, and nobody else makes room for it."""
    pixels = 1 << 22
    target, annotated = torch.zeros(1, pixels, dtype=torch.uint8), torch.ones(1, 2, dtype=torch.uint8)
    out, counts, stop = torch.empty_like(target), [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counts[0] += 1
            time.sleep(0)  # gives the interpreter back

    arguments = {"target": target.data_ptr(), "out": out.data_ptr(), "target_type": 0, "samples": 1, "pixels": pixels}
    arguments |= {"annotated": annotated.data_ptr(), "labels": 2, "ignore_index": -100, "threads": 1}
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=count)
    thread.start()
    sys.setswitchinterval(1000)  # nobody is asked for the interpreter: it has to be given away
    try:
        before, end = counts[0], time.monotonic() + 20
        while counts[0] == before and time.monotonic() < end:
            assert CPU.drop_labels(**arguments) == -1
        assert counts[0] > before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


def test_a_call_keeps_no_reference() -> None:
    """Of its values, right or wrong, and of its keywords."""
    numbers, name, wrong = [10**6 + 1, 10**6 + 2], "".join(["cou", "nter"]), 10**6 + 3.5
    held = [*numbers, numbers, name, wrong]
    before = list(map(sys.getrefcount, held))
    for _ in range(100):
        CPU.philox4x32(**{name: numbers, "key": numbers})
        with pytest.raises(TypeError):
            CPU.philox4x32(**{name: wrong, "key": numbers})
        with pytest.raises(TypeError):
            CPU.philox4x32(**{name: [*numbers, wrong], "key": numbers})
    assert list(map(sys.getrefcount, held)) == before


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_the_module_serves_every_python(python: str, tmp_path: Path) -> None:
    """Its file says so, and what it uses of Python each of them has: the linker would refuse it, if not."""
    path = Path(CPU.__file__)
    assert path.name in ("_cpu.abi3.so", "_cpu.pyd")
    assert sys.platform == "win32" or ".abi3.so" in EXTENSION_SUFFIXES
    found = shutil.which(python)
    if not found or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no {python}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [found, "-I", "-c", USE_IT.format(path=str(path), noise=NOISE)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
