"""The instruction set of the CPU kernels: the best there is, or what LABELDROP_ISA asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import labeldrop_bench as lb
from labeldrop_bench import ops
from labeldrop_bench.ops._native import INSTRUCTION_SETS

NAMES = [name.lower().replace("-", "") for name in INSTRUCTION_SETS]


def chosen(wanted: str) -> subprocess.CompletedProcess[str]:
    """What a process of its own says, that is asked for an instruction set."""
    code = "from labeldrop_bench import ops; print(ops.instruction_set())"
    place = Path(lb.__file__).parents[1]
    environment = os.environ | {"LABELDROP_ISA": wanted}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_no_wish_is_the_best_there_is() -> None:
    if not os.environ.get("LABELDROP_ISA"):
        assert chosen("").stdout.strip() == ops.instruction_set()


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_a_wish_is_fulfilled_or_an_error(number: int) -> None:
    done = chosen(NAMES[number])
    if done.returncode == 0:
        assert done.stdout.strip() == INSTRUCTION_SETS[number]
    else:
        assert number > INSTRUCTION_SETS.index(chosen("").stdout.strip())
        assert f"got {NAMES[number]!r}" in done.stderr


def test_what_is_none_is_an_error_that_names_those_there_are() -> None:
    assert "LABELDROP_ISA must be one of baseline" in chosen("sse9").stderr
