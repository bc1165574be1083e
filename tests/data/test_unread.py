"""A data set may be larger than memory: nothing reads pixels before it needs them, and nothing keeps them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labeldrop_bench import run, train
from labeldrop_bench.data import case_file
from labeldrop_bench.data.arrays import UNSCALED, Images, LabelMaps
from labeldrop_bench.data.base import Dataset, make_samples
from labeldrop_bench.data.check import describe, never_shown
from labeldrop_bench.data.combined import _joined
from labeldrop_bench.data.edits import edited
from labeldrop_bench.evaluate import _scored, distance_unit
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import Whole
from labeldrop_bench.records import DataConfig
from labeldrop_bench.sweep.checks import class_lookup

SPACE = LabelSpace.of_classes(("background", "a", "b", "c"))


class Unread:
    """Images or label maps that must not be looked at."""

    def __init__(self, *shape):
        self.shape = shape

    def read(self, place):
        raise AssertionError(f"number {place} was read")

    foreground = read


def unread(name, n=6):
    counts = torch.zeros(n, 256, dtype=torch.int32)
    counts[:, :4], counts[0, 3], counts[:, 255] = 100, 0, 24
    images = Images.stored(Unread(1, 16, 16), torch.tensor(UNSCALED).repeat(n, 1, 1), torch.zeros(n, 1).bool())
    names = [f"{name}{i}" for i in range(n)]
    domain, annotated = torch.arange(n) % 2, torch.ones(n, 4, dtype=torch.bool)
    return make_samples(SPACE, images, LabelMaps.stored(Unread(16, 16), counts), annotated, domain, names, names)


@pytest.fixture
def dataset():
    return Dataset(SPACE, ("A", "B"), unread("t"), unread("v"), unread("e"))


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"hidden": {"A": ["c"]}},
        {"hidden": [{"labels": ["a", "b"], "share": 0.5, "independently": True}], "classes": ["b", "a"]},
        {"train_domains": ["A"], "hidden": {"B": ["a"]}},
    ],
)
def test_no_edit_and_no_check_reads_a_pixel(dataset, table):
    changed = edited(dataset, DataConfig(name="it", **table))
    describe(changed, edited(dataset, DataConfig(name="it", **{k: v for k, v in table.items() if k != "hidden"})))
    never_shown(changed)
    _scored(changed)
    distance_unit(changed.test)
    run.split_csv(run.everything_known(changed))
    run.unknown_to_full(changed)
    run.split_digest(changed)
    joined = _joined([changed.train, changed.test])
    assert len(joined) == len(changed.train) + len(changed.test)
    joined.target.mapped(class_lookup(changed.label_space)).counts.sum()
    with pytest.raises(AssertionError, match="was read"):
        train.take(changed.train, torch.tensor([0]), Whole())


def test_a_label_map_that_contradicts_the_annotation_is_told_by_its_counts(dataset):
    with pytest.raises(ValueError, match=r"t1, domain B: 100 pixel\(s\) of c"):
        edited(dataset, DataConfig(name="it", annotated={"B": ["a", "b"]}))


MEMORY = """
import sys
from pathlib import Path
import numpy as np, torch
from lightning_fabric import Fabric
from labeldrop_bench import run, train
from labeldrop_bench.data import case_file
from labeldrop_bench.data.case_file import Prepared
from labeldrop_bench.data.edits import edited
from labeldrop_bench.data.prepare import Case, assemble
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import Whole
from labeldrop_bench.records import DataConfig
from labeldrop_bench.sweep.limits import peak_memory
from tiny import run_config

folder, space = Path(sys.argv[1]), LabelSpace.of_classes(("background", "a", "b"))
fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
train.make_network = lambda model, patches, dataset, loss: torch.nn.Conv2d(1, loss.out_channels, 1)
labels = np.zeros((128, 128), np.uint8)
labels[20:60, 20:60], labels[70:90, 70:90] = 1, 2
rng, kept = np.random.default_rng(0), []
for i in range(40):
    case_file.keep(folder / str(i), Prepared(rng.integers(0, 255, (1, 128, 128), np.uint8), labels, (True,) * 3))
    kept.append(case_file.kept(folder / str(i)))

def trained(times):
    # the same files as so many cases
    cases = [Case(f"{t}-{i}", f"{t}-{i}", i % 2, ()) for t in range(times) for i in range(40)]
    part_of = {case.patient: 2 if i < 40 else int(i % 5 == 0) for i, case in enumerate(cases)}
    dataset = assemble(space, ("A", "B"), cases, kept * times, part_of)
    config = run_config(training={"epochs": 1, "batch_size": 16})
    dataset = edited(dataset, DataConfig(name="it", hidden={"B": ["b"]}))
    run.run(config, dataset, folder / f"run{times}", fabric=fabric)
    return peak_memory()

before = trained(12)
print((trained(42) - before) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak memory of a process is told by Linux alone")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """1200 more images of 64 KiB as float32, and as many label maps of 16 KiB: the peak stays where it was."""
    path = os.pathsep.join([str(Path(case_file.__file__).parents[2]), str(Path(__file__).parents[1])])
    large = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # large blocks go back to the system: kept memory counts, no gaps
    environment = {**os.environ, **large, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEMORY, tmp_path]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 12  # MiB; all label maps would be 19, all images 75
