"""Schemes around a loss: one file each. A strategy asks for one by `procedure = { name = "smiler", rounds = 3 }`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import BaseModel

from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.evaluate import Loss
from labeldrop_bench.procedures import heteroscedastic, plain, smiler
from labeldrop_bench.records import RunConfig, StrategyConfig

__all__ = ["PROCEDURES", "Procedure", "make"]


@dataclass(frozen=True)
class Row:
    """One row of the table of procedures.

    Attributes:
        options: its keys in the suite; unknown keys are an error.
        train: does it; arguments as `Procedure.train`, the options first.
        check: raises ValueError where the options do not go with a loss, or with the rest of a run.
        fits: how many fits it takes.
    """

    options: type[BaseModel]
    train: Callable[..., Fit]
    check: Callable[[Any, Loss, RunConfig], None]
    fits: Callable[[Any], int]


PROCEDURES = {
    "plain": Row(plain.Options, plain.train, plain.check, plain.fits),
    "smiler": Row(smiler.Options, smiler.train, smiler.check, smiler.fits),
    "heteroscedastic": Row(heteroscedastic.Options, heteroscedastic.train, heteroscedastic.check, heteroscedastic.fits),
}


@dataclass(frozen=True)
class Procedure:
    """A procedure with its options."""

    row: Row
    options: BaseModel

    @property
    def fits(self) -> int:
        """How many fits it takes."""
        return self.row.fits(self.options)

    def check(self, loss: Loss, config: RunConfig) -> None:
        """Raises ValueError where the options do not go with a loss, or with the rest of a run."""
        self.row.check(self.options, loss, config)

    def train(
        self, config: RunConfig, dataset: Dataset, directory: Path, fabric: Fabric, on_epoch: Callable[[Epoch], None]
    ) -> Fit:
        """Train as `train.fit` does, in as many rounds as it takes; what was broken off goes on."""
        return self.row.train(self.options, config, dataset, directory, fabric, on_epoch)


def make(strategy: StrategyConfig) -> Procedure:
    """The procedure of a strategy; a plain fit if it names none.

    Raises:
        ValueError: there is no such procedure (names the closest one).
        ValidationError: options that it refuses.
    """
    table = dict(strategy.procedure or {"name": "plain"})
    name = str(table.pop("name", ""))
    if name not in PROCEDURES:
        close = get_close_matches(name, PROCEDURES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"procedure.name: there is no procedure {name!r}{hint} Known: {', '.join(PROCEDURES)}")
    row = PROCEDURES[name]
    return Procedure(row, row.options.model_validate(table))
