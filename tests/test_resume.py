"""A fit that is broken off goes on as if nothing had happened."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config, same_weights

from labeldrop_bench import procedures, run, train
from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.errors import TrainingError
from labeldrop_bench.records import RunConfig

ROOT = Path(train.__file__).parents[1]  # where processes started here find the package that is being tested


class KilledError(Exception):
    """Stands for whatever ends a process."""


def killed_in(epoch: int) -> Callable[[Epoch], None]:
    """An `on_epoch` that ends the fit in an epoch, before it is saved."""

    def on_epoch(row: Epoch) -> None:
        if row.epoch == epoch:
            raise KilledError

    return on_epoch


def fit(config: RunConfig, dataset: Dataset, directory: Path, fabric: Fabric, **options: Any) -> Fit:
    """By the strategy's procedure."""
    on_epoch = options.get("on_epoch", lambda _: None)
    return procedures.make(config.strategy).train(config, dataset, directory, fabric, on_epoch)


def history(directory: Path) -> list[dict[str, str]]:
    """Rows of history.csv but for what the clock decides."""
    with (directory / "history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


REJECTING = {
    "name": "it",
    "loss": "label_flip",
    "dropout": 0.5,
    "loss_options": {"base": "bce"},
    # half of all pixels have a flip probability below 0.25 in an untrained network: something is found
    "procedure": {"name": "heteroscedastic", "warm_up": 1, "reject_from": 2, "reject_every": 3, "threshold": 0.3},
}
SLAB = {"kind": "slab", "size": (16, 16), "depth": 7}
CASES: dict[str, tuple[int | None, dict[str, Any] | None, dict[str, Any]]] = {
    "plain": (None, None, {}),
    "dropout of labels": (None, {"name": "it", "loss": "adaptive_ce", "dropout": 0.5}, {}),
    "dropout of units": (None, None, {"model": {"dropout": 0.3}}),
    "augmentation": (None, None, {"augmentation": {"probability": 0.5}}),
    "nnU-Net's augmentation": (None, None, {"augmentation": {"preset": "nnunet", "probability": 0.5}}),
    "random noise in the loss": (None, {"name": "it", "loss": "predictive_variance"}, {}),
    "boxes": (None, None, {"patches": {"kind": "box", "size": (8, 8), "per_image": 2}}),
    "slabs": (7, None, {"patches": SLAB, "model": {"name": "slab_net", "channels": [4, 4, 2]}}),
    "rejection": (None, REJECTING, {}),
    "poly": (None, None, {"training": {"schedule": "poly"}}),
    "restarts, rmsprop": (
        None,
        None,
        {
            "training": {
                "schedule": "cosine_restarts",
                "restart_steps": 4,
                "optimizer": "rmsprop",
                "learning_rate": 0.01,
            }
        },
    ),
    "adamw": (None, None, {"training": {"optimizer": "adamw", "learning_rate": 0.01}}),
    "seldom validated": (None, None, {"training": {"validate_every": 3}}),
}


@pytest.mark.parametrize("save_every", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_what_was_broken_off_goes_on_bit_by_bit(case: str, save_every: int, tmp_path: Path, fabric: Fabric) -> None:
    depth, strategy, tables = CASES[case]
    training = {"epochs": 5, "save_every": save_every, **tables.get("training", {})}
    config = run_config(strategy, **{**tables, "training": training})
    dataset = discs(n=2 if depth else 4, depth=depth)
    whole = fit(config, dataset, tmp_path / "whole", fabric)

    broken = tmp_path / "broken"
    with pytest.raises(KilledError):
        fit(config, dataset, broken, fabric, on_epoch=killed_in(4))
    last = torch.load(broken / "last.pt", weights_only=True)
    assert len(last["history"]) == (3 if save_every == 1 else 2)
    if case == "rejection":
        assert last["parts"]["hook"]["mask"].any()
    torch.manual_seed(99)  # a new process is in another state
    again: list[Epoch] = []
    resumed = fit(config, dataset, broken, fabric, on_epoch=again.append)

    assert [row.epoch for row in again] == ([4, 5] if save_every == 1 else [3, 4, 5])
    assert history(broken) == history(tmp_path / "whole")
    assert (resumed.epoch, resumed.dice) == (whole.epoch, whole.dice)
    assert same_weights(resumed, whole)
    assert not (broken / "last.pt").exists()
    if case == "rejection":
        rejected = (broken / "rejected.csv").read_text()
        assert rejected == (tmp_path / "whole" / "rejected.csv").read_text()
        assert [line.split(",")[0] for line in rejected.splitlines()] == ["epoch", "2", "5"]


def test_a_run_gives_the_rows_of_one_that_was_not_disturbed(tmp_path: Path, fabric: Fabric) -> None:
    config, dataset = run_config(training={"save_every": 1}), discs()
    whole = run.run(config, dataset, tmp_path / "whole", fabric=fabric)
    with pytest.raises(KilledError):
        run.run(config, dataset, tmp_path / "broken", fabric=fabric, on_epoch=killed_in(2))
    resumed = run.run(config, dataset, tmp_path / "broken", fabric=fabric)
    assert whole is not None
    assert resumed is not None
    assert resumed.rows == whole.rows
    assert (resumed.best_epoch, resumed.validation_dice) == (whole.best_epoch, whole.validation_dice)
    for name in ("cases.csv", "split.csv"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from lightning_fabric import Fabric
from tiny import discs, run_config
from labeldrop_bench import train

fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
config = run_config(training={"epochs": 4, "save_every": 1})
kill = lambda row: row.epoch == 3 and os.kill(os.getpid(), signal.SIGKILL)
train.torch.set_num_threads(int(sys.argv[2]))
train.fit(config, discs(), Path(sys.argv[1]), fabric=fabric, on_epoch=kill)
"""


def test_another_process_goes_on_after_a_kill(tmp_path: Path, fabric: Fabric) -> None:
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-c", KILL, str(tmp_path / "a"), threads, str(Path(__file__).parent)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    assert done.returncode == -9
    config = run_config(training={"epochs": 4, "save_every": 1})
    seen: list[Epoch] = []
    resumed = train.fit(config, discs(), tmp_path / "a", fabric=fabric, on_epoch=seen.append)
    assert [row.epoch for row in seen] == [3, 4]
    assert same_weights(resumed, train.fit(config, discs(), tmp_path / "b", fabric=fabric))


def test_what_is_finished_is_read_back(tmp_path: Path, fabric: Fabric) -> None:
    config = run_config()
    first = train.fit(config, discs(), tmp_path, fabric=fabric)
    seen: list[Epoch] = []
    again = train.fit(config, discs(), tmp_path, fabric=fabric, on_epoch=seen.append)
    assert not seen
    assert (again.epoch, again.dice, again.seconds) == (first.epoch, first.dice, first.seconds)
    assert same_weights(again, first)


@pytest.mark.parametrize("name", ["last.pt", "checkpoint.pt"])
@pytest.mark.parametrize("part", [0.0, 0.5, None])
def test_a_damaged_file_is_named(name: str, part: float | None, tmp_path: Path, fabric: Fabric) -> None:
    config = run_config(training={"epochs": 3, "save_every": 1})
    with pytest.raises(KilledError):
        train.fit(config, discs(), tmp_path, fabric=fabric, on_epoch=killed_in(2))
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / name).write_bytes(b"no weights" if part is None else content[: int(part * len(content))])
    with pytest.raises(TrainingError, match=rf"{tmp_path}/{name}: cannot be read, remove it to begin the fit anew"):
        train.fit(config, discs(), tmp_path, fabric=fabric)


def test_another_number_of_processes_cannot_go_on(tmp_path: Path, fabric: Fabric) -> None:
    """Each process has random numbers and shares of its own."""
    config = run_config(training={"epochs": 3, "save_every": 1})
    with pytest.raises(KilledError):
        train.fit(config, discs(), tmp_path, fabric=fabric, on_epoch=killed_in(2))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["rng"]["cpu"] = state["rng"]["cpu"].repeat(2, 1)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"last.pt: 2 process\(es\) shared this fit.* now there are 1: start as"):
        train.fit(config, discs(), tmp_path, fabric=fabric)
