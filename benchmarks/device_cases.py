"""What the device report measures, in a process of its own: a kernel that poisons the context ends only that.

`python benchmarks/device_cases.py environment --device cuda` prints one line of JSON: the device, versions, copy rate.
`python benchmarks/device_cases.py measure --device cuda --size full --first 0` prints a line of JSON with the labels of
all cases, then one for each case from `--first` on: its rows, or the error that it stopped at.
"""

import argparse
import json
import os
import platform
import sys
import traceback
from dataclasses import asdict

import torch

SHAPES = {"full": ((16, 256, 256), (2, 128, 128, 128)), "tiny": ((2, 8, 8), (1, 4, 4, 8))}
CLASSES = {"full": (2, 4, 8, 14, 16, 32, 64, 128), "tiny": (3,)}
ONE_K = {"full": 14, "tiny": 3}
SWEPT = "marginal_ce"  # of the set cross-entropies the one whose tables have most in them
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last")
FEW, EAGER = ("fused", "copy", "F.cross_entropy"), ("fused", "copy", "eager")
BUDGETS = {"full": 2.0, "tiny": 0.02}  # seconds of a peer
COPY_GIBIBYTES = {"cuda": 4.0, "cpu": 0.25}


def cases(size):
    """(part of the report, problem, names of its peers or None for all of them)."""
    from labeldrop_bench.speed import Problem, loss_options

    flat, cube = SHAPES[size]
    sweep = [
        ("sweep", Problem(SWEPT, num_classes, shape, dtype, layout), FEW)
        for shape in (flat, cube)
        for num_classes in CLASSES[size]
        for dtype in DTYPES
        for layout in LAYOUTS
    ]
    all_peers = None if size == "full" else EAGER
    each = []
    for loss, options in loss_options():
        each.append(("losses", Problem(loss, ONE_K[size], flat, options=options), all_peers))
        each += (
            []
            if size == "tiny"
            else [
                ("losses", Problem(loss, ONE_K[size], flat, torch.bfloat16, options=options), EAGER),
                ("losses", Problem(loss, ONE_K[size], cube, options=options), EAGER),
            ]
        )
    return sweep + each


def measure(device, size, first):
    """Print a line for each case; stop at the first error, since it may have left the device unusable."""
    from labeldrop_bench.speed import measure, memory_states, set_memory_state

    planned = cases(size)
    say({"plan": [f"{problem.label} ({' '.join(only or ['all peers'])})" for _, problem, only in planned]})
    state = memory_states(device)[0]
    set_memory_state(state)
    for number, (part, problem, only) in enumerate(planned[first:], first):
        try:
            rows = [{"part": part, **asdict(row)} for row in measure(problem, device, state, only, BUDGETS[size])]
            say({"case": number, "rows": rows})
        except Exception:
            say({"case": number, "error": traceback.format_exc()})
            return 1
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return 0


def environment(device):
    """Print what there is; without the device, that alone."""
    if device.type == "cuda" and not torch.cuda.is_available():
        say({"available": False, "torch": torch.__version__})
        return 0
    from labeldrop_bench.speed import copy_bandwidth

    known = {
        "available": True,
        "device": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "CUDA of torch": torch.version.cuda,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        known |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory GiB": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
        }
    say(known | {"copy GB/s": round(copy_bandwidth(device, COPY_GIBIBYTES[device.type]) / 1e9, 1)})
    return 0


def say(message):
    print(json.dumps(message), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("environment", "measure"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=SHAPES, default="full")
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.what == "environment":
        return environment(device)
    return measure(device, options.size, options.first)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # no tear-down of a context that an error may have left unusable
