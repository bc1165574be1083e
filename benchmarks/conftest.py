"""The quick subset, and the state of the CPU's memory."""

import pytest
import torch

from labeldrop_bench.speed import memory_states, set_memory_state

STATES = memory_states(torch.device("cpu"))


def pytest_collection_modifyitems(config, items):
    """Without a choice by -k, run the quick subset of these benchmarks; with one, choose from all."""
    if config.option.keyword:
        return
    left_out = [item for item in items if item.get_closest_marker("beyond_quick")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", params=STATES)
def memory(request):
    """State of the CPU's memory. The scope puts all benchmarks in one state before those in the next."""
    set_memory_state(request.param)
    return request.param
