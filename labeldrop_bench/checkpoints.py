"""The two files with weights in a run directory: where to go on, and the best epoch. Both load without running code."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from labeldrop_bench import records
from labeldrop_bench.errors import TrainingError

LAST, BEST, HISTORY = "last.pt", "checkpoint.pt", "history.csv"


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: counted from 1.
        loss: mean over the epoch's steps and over the processes.
        validation_dice: foreground Dice on what is annotated; None where this epoch was not validated.
        truth_dice: foreground Dice on all that is known of the validation split, hidden labels included, and without
            label noise. Nothing is decided by it.
        lr: learning rate after the last step.
        seconds: training and validation.
    """

    epoch: int
    loss: float
    validation_dice: float | None
    truth_dice: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Fit:
    """The epoch with the best validation Dice so far, and its weights on the CPU.

    Attributes:
        seconds: that training took, all rounds together.
    """

    epoch: int
    dice: float
    weights: dict[str, Tensor]
    seconds: float = 0.0


@dataclass
class Progress:
    """How far a fit has come."""

    best: Fit = field(default_factory=lambda: Fit(0, -1.0, {}))
    history: list[Epoch] = field(default_factory=list)


class Stateful(Protocol):
    """What has a state to save: a module, an optimizer, a schedule, a hook."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text."""

    def load_state_dict(self, state: Any) -> Any:  # noqa: ANN401 - torch's own classes differ
        """Take a state back."""


def save_last(
    directory: Path, parts: Mapping[str, Stateful], progress: Progress, order: torch.Generator, fabric: Fabric
) -> None:
    """Write where to go on. All processes call it; the first one writes."""
    rng = {device: cast(Tensor, fabric.all_gather(state)).cpu() for device, state in _rng(fabric).items()}
    if not fabric.is_global_zero:
        return
    state = {
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "best": dataclasses.asdict(progress.best),
        "history": [dataclasses.asdict(epoch) for epoch in progress.history],
        "order": order.get_state(),
        "rng": {device: states.view(fabric.world_size, -1) for device, states in rng.items()},
    }
    records.write_bytes(directory / LAST, _bytes(state))


def load_last(directory: Path, parts: Mapping[str, Stateful], order: torch.Generator, fabric: Fabric) -> Progress:
    """Take up a fit that was broken off; a new one if there is none.

    Raises:
        TrainingError: the file cannot be read, or another number of processes wrote it.
    """
    path = directory / LAST
    if not path.exists():
        return Progress()
    state = _read(path)
    if (processes := len(state["rng"]["cpu"])) != fabric.world_size:
        raise TrainingError(
            f"{path}: {processes} process(es) shared this fit until it was broken off, and now there are "
            f"{fabric.world_size}: start as many as before, or remove the file to begin the fit anew"
        )
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    order.set_state(state["order"])
    torch.set_rng_state(state["rng"]["cpu"][fabric.global_rank])
    if "cuda" in state["rng"]:
        torch.cuda.set_rng_state(state["rng"]["cuda"][fabric.global_rank], fabric.device)
    return Progress(Fit(**state["best"]), [Epoch(**row) for row in state["history"]])


def write_best(directory: Path, fit: Fit, config: records.RunConfig) -> None:
    """Write what `read_best` and `torch.load(path, weights_only=True)` give back, and remove where to go on."""
    records.write_bytes(directory / BEST, _bytes({**dataclasses.asdict(fit), "config": config.model_dump_json()}))
    (directory / LAST).unlink(missing_ok=True)


def read_best(directory: Path) -> Fit | None:
    """A fit that is finished; None if it is not.

    Raises:
        TrainingError: the file cannot be read.
    """
    if not (directory / BEST).exists():
        return None
    content = _read(directory / BEST)
    return Fit(**{f.name: content[f.name] for f in dataclasses.fields(Fit)})


def write_history(directory: Path, history: list[Epoch]) -> None:
    """Write history.csv; an epoch that was not validated has empty fields."""
    columns = [column.name for column in dataclasses.fields(Epoch)]
    text = records.to_csv(columns, map(dataclasses.asdict, history))
    records.write_text(directory / HISTORY, text)


def _rng(fabric: Fabric) -> dict[str, Tensor]:
    """The states of this process's generators, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(fabric.device)
    return states


def _read(path: Path) -> dict[str, Any]:
    """What `_bytes` wrote, on the CPU."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise almost anything
        raise TrainingError(f"{path}: cannot be read, remove it to begin the fit anew ({error})") from error
    return content


def _bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
