"""No scheme: one fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict

from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.evaluate import Loss
from labeldrop_bench.records import RunConfig
from labeldrop_bench.train import fit


class Options(BaseModel):
    """There are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check(options: Options, loss: Loss, config: RunConfig) -> None:
    """Goes with every loss."""


def fits(options: Options) -> int:
    """One."""
    return 1


def train(
    options: Options,
    config: RunConfig,
    dataset: Dataset,
    directory: Path,
    fabric: Fabric,
    on_epoch: Callable[[Epoch], None],
) -> Fit:
    """`train.fit`."""
    return fit(config, dataset, directory, fabric=fabric, on_epoch=on_epoch)
