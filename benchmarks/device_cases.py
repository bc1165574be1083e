"""What the device report measures, in a process of its own: a kernel that poisons the context ends only that.

python benchmarks/device_cases.py environment    a line of JSON: the device, versions, copy rate
python benchmarks/device_cases.py measure        a line of JSON with the labels of all cases, then one for each case
from `--first` on: its rows, or the error that it stopped at
python benchmarks/device_cases.py touch          each path of the kernels once, small, for `--seconds` at most: what
a sanitizer goes through
python benchmarks/device_cases.py once           three kernels on a large problem: what a profiler looks at
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
import traceback
from dataclasses import asdict

import torch

CUBE, FLAT = (2, 128, 128, 128), (16, 256, 256)  # logits of 14 classes: 235 MB and 59 MB in float32
SHAPES = {"full": (CUBE, FLAT), "tiny": ((1, 4, 4, 8), (2, 8, 8))}
CLASSES = {"full": (2, 4, 8, 14, 32, 64, 105), "tiny": (3,)}
ONE_K = {"full": 14, "tiny": 3}
SWEPT = "marginal_ce"  # of the set cross-entropies the one whose tables have most in them
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last")
FEW, EAGER, ALL = ("fused", "copy", "F.cross_entropy"), ("fused", "copy", "eager"), None
COMPILED = {"full": (SWEPT, "smile", "marginal_ce+marginal_dice"), "tiny": ("ce",)}  # compiling takes many seconds
BUDGETS = {"full": 0.3, "tiny": 0.02}  # seconds of a peer
COPY_GIBIBYTES = {"cuda": 4.0, "cpu": 0.25}
TOUCHED = (SWEPT, "marginal_ce+marginal_dice", "smile", "label_flip", "predictive_variance")  # every kernel is in one
ONCE = ((SWEPT, 14, torch.float32), (SWEPT, 64, torch.bfloat16), ("marginal_dice", 14, torch.float32))


def cases(size):
    """(part of the report, problem, names of its peers or None for all of them); what matters most comes first."""
    from labeldrop_bench.speed import Problem, loss_options

    cube, flat = SHAPES[size]
    k = ONE_K[size]
    sweep = itertools.product(CLASSES[size], DTYPES, LAYOUTS)
    yield from (("sweep", Problem(SWEPT, classes, cube, dtype, layout), FEW) for classes, dtype, layout in sweep)
    yield "sweep", Problem(SWEPT, k, cube, labels="scattered"), FEW
    yield from (("losses", Problem(loss, k, cube, options=options), EAGER) for loss, options in loss_options())
    yield from (("losses", Problem(loss, k, flat), ALL) for loss in COMPILED[size])


def measure(options):
    """Print a line for each case; stop at the first error, since it may have left the device unusable."""
    from labeldrop_bench.speed import measure, memory_states, set_memory_state

    device, planned = torch.device(options.device), list(cases(options.size))
    say({"plan": [f"{problem.label} ({' '.join(only or ['all peers'])})" for _, problem, only in planned]})
    state = memory_states(device)[0]
    set_memory_state(state)
    for number, (part, problem, only) in enumerate(planned[options.first :], options.first):
        try:
            rows = measure(problem, device, state, only, BUDGETS[options.size])
            say({"case": number, "rows": [{"part": part, **asdict(row)} for row in rows]})
        except Exception:
            say({"case": number, "error": traceback.format_exc()})
            return 1
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return 0


def environment(options):
    """Print what there is; without the device, that alone."""
    device = torch.device(options.device)
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


def touch(options):
    """A forward and a backward pass, and the operators without a gradient, on sizes that are no multiple of anything.

    Few classes and many, both layouts, two types, addresses that are aligned and that are not.
    """
    import labeldrop_bench as lb

    deadline, done = time.monotonic() + options.seconds, 0
    sizes = ((2, 16, 8), (2, 13, 11))  # samples and pixels: rows whose addresses are multiples of 16 bytes, and not
    planned = list(itertools.product(sizes, (3, 14, 40), LAYOUTS, DTYPES, TOUCHED))
    annotated = torch.tensor([[True, True, False], [True, False, True]], device=options.device)
    lb.drop_labels(torch.randint(0, 3, sizes[1], device=options.device), annotated)
    lb.LabelDropout(0.5).to(options.device)(annotated)
    for size, classes, layout, dtype, name in planned:
        if time.monotonic() > deadline:
            break
        loss = lb.losses.create(name, num_classes=classes).to(options.device)
        logits = torch.randn(*size, loss.out_channels, device=options.device, dtype=dtype).movedim(-1, 1)
        logits = (logits if layout == "channels_last" else logits.contiguous()).requires_grad_()
        target = torch.randint(0, classes, size, device=options.device, dtype=torch.uint8)
        (gradient,) = torch.autograd.grad(3 * loss(logits, target), logits)  # 3: so that it is scaled
        if not gradient.isfinite().all():
            print(f"{name}, {classes} classes, {layout}, {dtype}: the gradient is not finite")
            return 1
        done += 1
    print(f"{done} of {len(planned)} cases touched")
    return 0 if done else 1


def once(options):
    """Each of `ONCE`, forward and backward."""
    from labeldrop_bench.speed import Problem

    shape = SHAPES["full" if options.device == "cuda" else "tiny"][0]
    for loss, classes, dtype in ONCE:
        problem = Problem(loss, classes, shape, dtype)
        logits, target, annotated = problem.tensors(torch.device(options.device))
        torch.autograd.grad(problem.create()(logits, target, annotated), logits)
    return 0


def say(message):
    print(json.dumps(message), flush=True)


WHAT = {"environment": environment, "measure": measure, "touch": touch, "once": once}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=SHAPES, default="full")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    return WHAT[options.what](options)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    if sys.argv[1] == "measure":
        os._exit(code)  # no tear-down of a context that an error may have left unusable
    sys.exit(code)  # at which the tools say what they have found
