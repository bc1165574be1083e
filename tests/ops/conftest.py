"""Settings for the tests of operators."""

import pytest

from labeldrop_bench.ops import _native


@pytest.fixture(params=_native.INSTRUCTION_SETS, scope="module")
def isa(request):
    """In turn each of the instruction sets that this processor has."""
    cpu = _native._MODULES["cpu"]
    best = cpu.current_isa()
    if not cpu.select_isa(_native.INSTRUCTION_SETS.index(request.param)):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    cpu.select_isa(best)
