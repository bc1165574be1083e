"""How much memory and time it takes to train on a set that is larger than memory should hold.

    python -m benchmarks.many_images [--images 20000] [--size 256] [--folder DIR]

Makes an image-mask folder, then calls `labeldrop-bench data check` (which prepares the cases) and `labeldrop-bench run`
(one epoch of a small U-Net, batches of 16) as a user does, and watches each command with all processes that it starts.
Prints the peak of what each process had in memory (VmHWM), the time to prepare a case, and the time of a step beside
that of reading its batch. Needs Linux, and about 10 GB of disk for 20,000 images of 256 x 256.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from tabulate import tabulate

from labeldrop_bench import data, suites
from labeldrop_bench.patches import Whole
from labeldrop_bench.train import take

BATCH = 16
SUITE = """
name = "many-images"
title = "Many images"
seeds = [0]
workers = 1
figures = []
[data]
name = "folder"
root = "{root}"
size = {size}
labels = {{ disc = 1, other = 2 }}
validation = 0.01
test = 0.01
[model]
channels = [4, 8, 16]
[training]
epochs = 1
batch_size = {batch}
threads = 1
precision = "32-true"
[scoring]
examples = 0
[[strategies]]
name = "adaptive"
loss = "adaptive_ce"
"""


def make_folder(root, number, size):
    """Discs of two kinds on smooth noise, no two alike, as PNG."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    grounds = [128 + 400 * gaussian_filter(rng.standard_normal((size, size)), 8, mode="wrap") for _ in range(32)]
    y, x = np.mgrid[:size, :size]
    for i in range(number):
        ground = np.roll(grounds[i % len(grounds)], tuple(rng.integers(0, size, 2)), (0, 1))
        mask = np.zeros((size, size), np.uint8)
        for value in (1, 2):
            (row, column), radius = rng.integers(0, size, 2), rng.integers(size // 16, size // 6)
            mask[(y - row) ** 2 + (x - column) ** 2 < radius**2] = value
        image = (ground + np.array([0, 60, -60])[mask]).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{i:06d}.png", compress_level=1)
        Image.fromarray(mask).save(root / "masks" / f"{i:06d}.png", compress_level=1)


def watched(*arguments, variables):
    """A command of labeldrop-bench: its seconds, and the peak memory in GiB of its process and of those it starts."""
    began, peaks = time.perf_counter(), {}
    command = [sys.executable, "-m", "labeldrop_bench.cli", *arguments]
    process = psutil.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for one in (process, *_children(process)):
            if (peak := _peak(one.pid)) is not None:
                peaks[one.pid] = peak
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}")
    return time.perf_counter() - began, peaks.pop(process.pid), sorted(peaks.values(), reverse=True)


def _children(process):
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _peak(pid):
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return None
    found = [line for line in text.splitlines() if line.startswith("VmHWM:")]  # none is left of a process that ended
    return int(found[0].split()[1]) / 2**20 if found else None


def read_seconds(suite):
    """Median seconds to read a batch of training samples."""
    table = suites.load(str(suite)).config.data
    info = data.get(table.name)
    samples = info.load(info.options.model_validate(table.options)).train
    rng, seconds = torch.Generator().manual_seed(0), []
    for _ in range(100):
        index = torch.randint(len(samples), (BATCH,), generator=rng)
        began = time.perf_counter()
        take(samples, index, Whole())
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def measure(folder, number, size):
    """Rows of a table."""
    began = time.perf_counter()
    make_folder(folder / "data", number, size)
    made = time.perf_counter() - began
    print(f"made {number} images of {size} x {size} in {made:.0f} s", flush=True)
    suite = folder / "many.toml"
    suite.write_text(SUITE.format(root=folder / "data", size=size, batch=BATCH), "utf-8")
    variables = {"LABELDROP_CACHE": str(folder / "cache")}
    os.environ.update(variables)
    prepared, *memory = watched("data", "check", str(suite), variables=variables)
    print(f"prepared in {prepared:.0f} s", flush=True)
    again, *_ = watched("data", "check", str(suite), variables=variables)
    _, *of_run = watched("run", str(suite), "--out", str(folder / "out"), "--device", "cpu", variables=variables)
    (history,) = (folder / "out").rglob("history.csv")
    with history.open(encoding="utf-8") as lines:
        epoch = float(next(csv.DictReader(lines))["seconds"])
    steps = int(number * 0.98) / BATCH
    kept = sum(file.stat().st_size for file in (folder / "cache").rglob("*.npy"))
    return [
        ("prepared cases on disk, GiB", kept / 2**30),
        ("the same as float32 images and labels in memory, GiB", number * size**2 * 6 / 2**30),
        ("data check, which prepares: peak of the process, GiB", memory[0]),
        ("    and of each process that reads for it, GiB", max(memory[1], default=0.0)),
        ("run: peak of the process, GiB", of_run[0]),
        ("    and of others that it starts, together, GiB", sum(of_run[1])),
        ("data check, which prepares, ms a case", 1000 * prepared / number),
        ("data check once more, s", again),
        ("an epoch, validation counted, ms a step", 1000 * epoch / steps),
        ("    of which reading the batch, ms", 1000 * read_seconds(suite)),
    ]


def main():
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where the files go; by default they are deleted at the end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = measure(Path(folder), options.images, options.size)
    print(tabulate(rows, headers=[f"{options.images} images of {options.size} x {options.size}", ""], floatfmt=".3g"))


if __name__ == "__main__":
    main()
