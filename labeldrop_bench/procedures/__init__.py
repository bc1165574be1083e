"""Schemes around a loss: one file each. A strategy asks for one by `procedure = { name = "smiler", rounds = 3 }`.

Another package registers its own through the entry-point group `labeldrop_bench.procedures`; each entry point names a
`ProcedureInfo`:

    [project.entry-points."labeldrop_bench.procedures"]
    my_scheme = "my_package.my_scheme:INFO"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import BaseModel

from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.evaluate import Loss
from labeldrop_bench.plugins import Registry
from labeldrop_bench.procedures import heteroscedastic, plain, smiler
from labeldrop_bench.records import RunConfig, StrategyConfig

__all__ = ["GROUP", "PROCEDURES", "REGISTRY", "Procedure", "ProcedureInfo", "make", "names"]


@dataclass(frozen=True)
class ProcedureInfo:
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
    "plain": ProcedureInfo(plain.Options, plain.train, plain.check, plain.fits),
    "smiler": ProcedureInfo(smiler.Options, smiler.train, smiler.check, smiler.fits),
    "heteroscedastic": ProcedureInfo(
        heteroscedastic.Options, heteroscedastic.train, heteroscedastic.check, heteroscedastic.fits
    ),
}


def _accept(point: EntryPoint, found: object) -> ProcedureInfo:
    if not isinstance(found, ProcedureInfo):
        raise TypeError(f"must name a labeldrop_bench.procedures.ProcedureInfo, got {found!r}")
    return found


GROUP = "labeldrop_bench.procedures"
REGISTRY = Registry[ProcedureInfo](
    "procedure", GROUP, {name: partial(PROCEDURES.__getitem__, name) for name in PROCEDURES}, _accept
)


def names() -> tuple[str, ...]:
    """Names of all procedures: ours, then those of other packages."""
    return REGISTRY.names()


@dataclass(frozen=True)
class Procedure:
    """A procedure with its options."""

    row: ProcedureInfo
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
        ValueError: there is no such procedure (names the closest one), or it is another package's and cannot be used.
        ValidationError: options that it refuses.
    """
    table = dict(strategy.procedure or {"name": "plain"})
    try:
        row = REGISTRY.get(str(table.pop("name", "")))
    except ValueError as error:
        raise ValueError(f"procedure.name: {error}") from error
    return Procedure(row, row.options.model_validate(table))
