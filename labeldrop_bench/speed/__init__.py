"""Kernels against their peers: `labeldrop-bench speed`, the benchmarks under `benchmarks/`, and the device report.

    problem.py   one loss on one size of input: tensors, compulsory bytes, the list that is measured by default
    peers.py     the fused loss, and what people would use without it
    memory.py    the two states of the CPU's memory, and the peak of a step
    timing.py    interleaved rounds; on CUDA also the device's own time
    table.py     rows, the printed table, CSV
    figure.py    bars of the ratios

All but the last two need torch alone.
"""

from .memory import memory_states, peak_bytes, set_memory_state, settle
from .peers import peer_names, peers
from .problem import Problem, default_measurements, loss_options
from .table import Row, main, measure
from .timing import copy_bandwidth, time_peers

__all__ = [
    "Problem",
    "Row",
    "copy_bandwidth",
    "default_measurements",
    "loss_options",
    "main",
    "measure",
    "memory_states",
    "peak_bytes",
    "peer_names",
    "peers",
    "set_memory_state",
    "settle",
    "time_peers",
]
