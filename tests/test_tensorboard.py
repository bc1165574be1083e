"""Event files, read back by TensorBoard itself."""

from __future__ import annotations

import csv
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric import Fabric
from listeners import run_suite
from tiny import discs, run_config, write_suite

from labeldrop_bench.checkpoints import Epoch
from labeldrop_bench.extras import MissingPackageError
from labeldrop_bench.sweep.tensorboard import TensorBoard
from labeldrop_bench.train import fit

if find_spec("tensorboard") is None:
    REASON = "TensorBoard is not installed: pip install 'labeldrop-bench[tensorboard]'"
    if "CI" in os.environ:
        pytest.fail(REASON)
    pytest.skip(REASON, allow_module_level=True)

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COLUMNS = {
    "loss": "loss", "validation_dice": "validation_dice", "truth_dice": "truth_dice", "learning_rate": "lr",
    "seconds": "seconds",
}  # fmt: skip


def _scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _history(directory: Path) -> dict[str, list[tuple[int, Any]]]:
    rows = list(csv.DictReader((directory / "history.csv").open()))
    return {
        tag: [(int(row["epoch"]), pytest.approx(float(row[column]))) for row in rows if row[column]]
        for tag, column in COLUMNS.items()
    }


def test_event_files_hold_what_history_holds(tmp_path: Path) -> None:
    overrides = ("training.epochs=3", "training.validate_every=2")
    run_suite(write_suite(tmp_path), tmp_path / "out", *overrides, log_tensorboard=True)
    for run in ("full-seed0", "adaptive-seed0"):
        here = tmp_path / "out" / "runs" / run
        found = _scalars(here)
        assert found == _history(here)
        assert [step for step, _ in found["validation_dice"]] == [2, 3]
    run_suite(write_suite(tmp_path), tmp_path / "without", "training.epochs=1")
    assert not list(tmp_path.glob("without/runs/*/tensorboard"))


def test_a_fit_that_goes_on_doubles_no_step(tmp_path: Path) -> None:
    """Saved after epoch 2, broken off in epoch 4: epoch 3 is done twice."""

    class BrokenOffError(Exception):
        pass

    def break_off(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise BrokenOffError

    config = run_config(training={"epochs": 5, "save_every": 2})
    fabric = Fabric(accelerator="cpu", devices=1, callbacks=[TensorBoard()])
    with pytest.raises(BrokenOffError):
        fit(config, discs(), tmp_path, fabric=fabric, on_epoch=break_off)
    assert [step for step, _ in _scalars(tmp_path)["loss"]] == [1, 2, 3]
    fabric = Fabric(accelerator="cpu", devices=1, callbacks=[TensorBoard()])
    fit(config, discs(), tmp_path, fabric=fabric)
    assert _scalars(tmp_path) == _history(tmp_path)
    assert [step for step, _ in _scalars(tmp_path)["loss"]] == [1, 2, 3, 4, 5]


def test_a_missing_package_is_one_message_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"--log tensorboard: needs tensorboard, not inst.*pip install"):
        run_suite(write_suite(tmp_path), tmp_path / "out", log_tensorboard=True)
    assert not (tmp_path / "out").exists()
