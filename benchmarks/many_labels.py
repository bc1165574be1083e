"""What a suite with a hundred labels in 3-D needs: seconds and peak resident memory of each part of a run.

    python -m benchmarks.many_labels --size 160 --box 64

Writes two data sets in nnU-Net's raw format into a temporary folder, int16 volumes with balls of 92 and of 50 labels,
25 of which are in both (117 foreground classes together, as many as TotalSegmentator has), and runs a suite of one
strategy on them: boxes, nnU-Net's network, marginal cross-entropy. The peak is that of the process (VmHWM, reset before
each part), so what torch and the data hold is in it. Linux only.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
from tabulate import tabulate

from labeldrop_bench import run, suites, sweep, train

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
PARTS = {
    "data sets": (sweep, "prepare"),
    "choice of precision": (sweep, "choose_precision"),
    "epoch of training": (train.Steps, "epoch"),
    "validation": (train, "validate"),
    "test scores": (run, "score"),
    "cost of a step": (run, "step_cost"),
}
SUITE = """
name = "many"
title = "Many labels"
seeds = [0]
[data]
name = "combined"
[[data.sources]]
name = "nnunet"
root = "{root}"
dataset = "Dataset001_A"
domain = "A"
size = [{size}, {size}, {size}]
spacing = [1.5, 1.5, 1.5]
validation = 0.25
test = 0.25
[[data.sources]]
name = "nnunet"
root = "{root}"
dataset = "Dataset002_B"
domain = "B"
size = [{size}, {size}, {size}]
spacing = [1.5, 1.5, 1.5]
validation = 0.25
test = 0.25
[model]
name = "{network}"
channels = [16, 32, 64, 128]
[patches]
kind = "box"
size = [{box}, {box}, {box}]
[training]
epochs = {epochs}
batch_size = 2
learning_rate = 0.01
precision = "32-true"
validate_every = {epochs}
threads = {threads}
[[strategies]]
name = "marginal"
loss = "marginal_ce"
"""


def write(folder, names, size, cases, seed):
    """A data set of noisy volumes with a ball of each label, in nnU-Net's raw format."""
    draw = np.random.default_rng(seed)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for case in range(cases):
        labels = np.zeros((size,) * 3, np.uint8)
        for value in range(1, len(names) + 1):
            radius = int(draw.integers(size // 20 + 2, size // 10 + 3))
            middle = draw.integers(radius, size - radius, 3)
            ball = (np.indices((2 * radius + 1,) * 3) - radius).astype(int) ** 2
            place = tuple(slice(m - radius, m + radius + 1) for m in middle)
            block = labels[tuple(slice(s.start, min(s.stop, size)) for s in place)]
            block[(ball.sum(0) <= radius**2)[tuple(slice(0, n) for n in block.shape)]] = value
        image = (20 * labels.astype(np.int16) + draw.normal(0, 15, labels.shape)).astype(np.int16)
        affine = np.diag([1.5, 1.5, 1.5, 1.0])
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "imagesTr" / f"case{case}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labelsTr" / f"case{case}.nii.gz")
    values = {"background": 0, **{name: value for value, name in enumerate(names, start=1)}}
    description = {"channel_names": {"0": "CT"}, "labels": values, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))


def status(key):
    """A line of the process's status in GiB."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith(key))


class Watch:
    """Takes time and peak memory of parts of a run."""

    def __init__(self):
        self.rows, self.highest = [], 0.0

    @contextlib.contextmanager
    def of(self, part):
        """Reset the peak, do it, and keep what it took."""
        self.highest = max(self.highest, status("VmHWM"))
        CLEAR.write_bytes(b"5")
        began, worked, held = time.perf_counter(), time.process_time(), status("VmRSS")
        yield
        seconds = time.perf_counter() - began, time.process_time() - worked
        self.rows.append([part, *seconds, held, status("VmHWM")])
        print(f"{part}: {seconds[0]:.1f} s, peak {self.rows[-1][-1]:.2f} GiB", flush=True)

    def wrapped(self, part, function):
        """The function, watched."""

        def watched(*arguments, **options):
            with self.of(part):
                return function(*arguments, **options)

        return watched


class Silent:
    """A listener that only says what went wrong."""

    def failed(self, config, failure):
        """Say it."""
        print(failure.traceback, file=sys.stderr, flush=True)

    def __getattr__(self, name):
        return lambda *_: None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=160, help="side of a volume in voxels")
    parser.add_argument("--box", type=int, default=64, help="side of a box in voxels")
    parser.add_argument("--network", default="dynunet", help="with four widths from 16 to 128")
    parser.add_argument("--labels", type=int, nargs=3, default=(92, 50, 25), help="in A, in B, and in both of them")
    parser.add_argument("--cases", type=int, default=4, help="of each data set; half of them to train on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    in_a, in_b, shared = options.labels
    names = [f"label {number}" for number in range(in_a + in_b - shared)]
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        with watch.of("writing the files"):
            write(root / "Dataset001_A", names[:in_a], options.size, options.cases, 0)
            write(root / "Dataset002_B", names[in_a - shared :], options.size, options.cases, 1)
        stack.enter_context(mock.patch.dict("os.environ", LABELDROP_CACHE=str(root / "cache")))
        for part, (module, name) in PARTS.items():
            stack.enter_context(mock.patch.object(module, name, watch.wrapped(part, getattr(module, name))))
        (root / "many.toml").write_text(SUITE.format(root=root, **vars(options)))
        sweep.run(suites.load(str(root / "many.toml")), root / "out", device="cpu", listener=Silent())
    print(
        f"\n{len(names)} foreground classes, volumes of {options.size}^3, boxes of {options.box}^3, {options.network}"
    )
    print(tabulate(watch.rows, ("part", "seconds", "of a core", "GiB before", "peak GiB"), floatfmt=".2f"))
    print(f"highest peak: {max(watch.highest, status('VmHWM')):.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
