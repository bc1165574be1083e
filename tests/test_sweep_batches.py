"""A network that cannot be trained on the batches that will come is refused before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tiny import discs, run_config, write_suite

from labeldrop_bench import models, suites, train
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep import checks

WHOLE, BOX, SLAB = {"kind": "whole"}, {"kind": "box", "size": [8, 8]}, {"kind": "slab", "size": [8, 8], "depth": 7}
FIVE = [4, 4, 4, 4, 4]
# The network, its widths, what it sees, and whether the images are volumes: at the coarsest level one pixel or few
SITUATIONS = [
    ("unet", FIVE, WHOLE, False), ("unet", FIVE[:4], WHOLE, False), ("unet", FIVE[:4], BOX, False),
    ("unet", FIVE, WHOLE, True), ("unet", FIVE[:4], {**BOX, "size": [8, 8, 8]}, True),
    ("dynunet", FIVE, WHOLE, False), ("dynunet", FIVE[:4], BOX, False), ("dynunet", FIVE[:4], WHOLE, False),
    ("slab_net", [4, 4, 4], SLAB, True), ("slab_net", [4, 4, 4], {**SLAB, "size": [4, 4]}, True),
    ("swin_unetr", [12, 24, 48, 96, 192], {**BOX, "size": [32, 32]}, False),
    ("swin_unetr", [12, 24, 48, 96, 192], {**BOX, "size": [64, 32]}, False),
]  # fmt: skip


def few(images: int, depth: int | None = None) -> Dataset:
    """So many training images."""
    dataset = discs(n=2, depth=depth)
    return replace(dataset, train=dataset.train.take(torch.arange(images)))


def test_every_network_is_tried() -> None:
    assert {name for name, *_ in SITUATIONS} == set(models.names())


@pytest.mark.parametrize(("images", "batch_size"), [(3, 1), (3, 2), (3, 3), (2, 4)])
@pytest.mark.parametrize(("name", "channels", "patches", "volumes"), SITUATIONS)
def test_what_is_not_refused_can_be_trained_and_what_is_refused_cannot(
    name: str,
    channels: list[int],
    patches: dict[str, object],
    volumes: bool,
    images: int,
    batch_size: int,
    fabric: Fabric,
) -> None:
    """Three images in batches of two: the last batch is one image."""
    dataset = few(images, depth=16 if volumes else None)
    config = run_config(
        model={"name": name, "channels": channels}, patches=patches, training={"batch_size": batch_size, "epochs": 1}
    )

    def trains() -> bool:
        try:
            train.Steps(config, dataset, learner := train.make_learner(config, dataset, fabric)).epoch(learner)
        except (ValueError, RuntimeError):
            return False
        return True

    refused = ""
    try:
        checks._check_run(Suite("it.toml", None), config, dataset, "")  # type: ignore[arg-type]
    except SuiteError as error:
        refused = str(error)
    assert trains() is not bool(refused)
    assert name in refused or not refused
    assert "at a time" not in refused or "larger images or patches, or fewer levels in model.channels" in refused


@pytest.mark.parametrize(
    ("images", "batch_size", "remedy"),
    [(4, 1, "set it to 2, or take larger images"), (3, 2, "set it to 3, or take larger"), (1, 8, "take larger")],
)
def test_the_message_says_what_would_do(images: int, batch_size: int, remedy: str) -> None:
    def check(size: int) -> None:
        config = run_config(model={"channels": FIVE}, training={"batch_size": size})
        checks._check_run(Suite("it.toml", None), config, few(images), "conditions.small.")  # type: ignore[arg-type]

    with pytest.raises(SuiteError) as error:
        check(batch_size)
    assert str(error.value).startswith(
        f"it.toml: conditions.small.training.batch_size: {batch_size} gives batches of 1, and unet with channels "
        f"[4, 4, 4, 4, 4] cannot be trained on 1 of (16, 16) at a time: {remedy}"
    )
    if "set it to" in remedy:
        check(int(remedy.split(",")[0].removeprefix("set it to ")))


def test_every_process_needs_a_sample_and_enough_of_it(tmp_path: Path) -> None:
    suite = suites.load(write_suite(tmp_path), ["training.batch_size=2"])
    prepared = checks.prepare(suite)
    run, dataset = prepared.first
    with pytest.raises(SuiteError, match="gives batches of 2, and each of the 3 processes needs a sample"):
        checks.check_batches(suite, run, dataset, processes=3)
    checks.check_batches(suite, run, dataset, processes=2)
    small = run.model_copy(update={"model": run.model.model_copy(update={"channels": (4, 4, 4, 4, 4)})})
    with pytest.raises(SuiteError, match=r"gives batches of 2, and unet .* cannot be trained on 1 of .*: set it to 4"):
        checks.check_batches(suite, small, dataset, processes=2)
