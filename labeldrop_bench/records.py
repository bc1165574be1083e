"""What goes into a run and what comes out of it, as JSON and CSV.

Layout of a suite directory:

    suite.json                  SuiteConfig: everything that was asked for
    results.csv                 one row per run x domain x class x metric (COLUMNS)
    leaderboard.{md,csv,html}   and figures
    runs/<run>/config.json      RunConfig
    runs/<run>/result.json      RunResult; its presence says that the run is finished
    runs/<run>/history.csv      one row per epoch
    runs/<run>/checkpoint.pt    the best epoch's weights

Every file is written under a temporary name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

COLUMNS = (
    "suite", "run", "strategy", "loss", "dropout", "seed", "domain", "class", "annotated", "metric", "value", "n",
)  # fmt: skip

Probability = float


class Record(BaseModel):
    """Base of every record: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(BaseModel):
    """The `[data]` table. Keys beyond these belong to the data set (its own options) and are checked by it.

    Attributes:
        name: registered data set.
        drawn: domain -> names of the foreground classes drawn in its training and validation images; a domain that
            is not named has all of them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    drawn: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The data set's own options."""
        return dict(self.model_extra or {})


class ModelConfig(Record):
    """The `[model]` table: registered network and its widths, one per resolution level."""

    name: str = "unet"
    channels: tuple[PositiveInt, ...] = (16, 32, 64, 96)


class TrainingConfig(Record):
    """The `[training]` table.

    Attributes:
        learning_rate: the peak of the schedule.
        precision: Lightning Fabric's word, or "auto": the faster of the two where the suite runs, by a short trial.
        validate_every: epochs between validations; the last epoch is always validated.
        threads: of a run on the CPU, whose result it decides in the last digits; None leaves it to torch.
    """

    epochs: PositiveInt = 25
    batch_size: PositiveInt = 16
    optimizer: Literal["sgd"] = "sgd"
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    learning_rate: PositiveFloat = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    validate_every: PositiveInt = 1
    threads: PositiveInt | None = None


class AugmentationConfig(Record):
    """The `[augmentation]` table, after Islam et al. 2024, section 2: scaling, rotation, blur, brightness, contrast.

    Attributes:
        probability: chance of each transform for each image; 0 switches augmentation off.
        scale, brightness, contrast: largest relative change, e.g. 0.1 is 0.9 ... 1.1.
        rotation: largest angle in degrees.
        blur: largest standard deviation in pixels.
    """

    probability: Probability = Field(default=0.5, ge=0, le=1)
    scale: float = Field(default=0.15, ge=0, lt=1)
    rotation: float = Field(default=15.0, ge=0, le=180)
    blur: float = Field(default=1.0, ge=0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)


class StrategyConfig(Record):
    """One `[[strategies]]` entry: a loss and a label dropout.

    Attributes:
        name: unique in the suite; the one trained on all labels is named `full`.
        loss: registered loss name.
        loss_options: keyword arguments of the loss.
        dropout: probability of hiding each droppable label in each sample.
        dropout_classes: names of the labels that may drop; None means all but background.
        full_labels: train on all labels (the upper bound).
    """

    name: str
    loss: str
    loss_options: dict[str, Any] = Field(default_factory=dict)
    dropout: Probability = Field(default=0.0, ge=0, le=1)
    dropout_classes: tuple[str, ...] | None = None
    full_labels: bool = False

    @model_validator(mode="after")
    def _full_is_full(self) -> StrategyConfig:
        if (self.name == "full") != self.full_labels:
            raise ValueError(
                f"the strategy trained on all labels, and only it, is named 'full': "
                f"got name={self.name!r} with full_labels={self.full_labels}"
            )
        return self


class SuiteConfig(Record):
    """One suite file.

    Attributes:
        name: of the suite.
        title: one line, the heading of its leaderboard.
        description: what it shows.
        seeds: every strategy is trained once with each.
        workers: how many runs go side by side on the CPU; "auto": as many as there are cores for `training.threads`.
    """

    name: str
    title: str
    description: str = ""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    workers: PositiveInt | Literal["auto"] = 1
    data: DataConfig
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    strategies: tuple[StrategyConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> SuiteConfig:
        for key, values in (("strategies", [s.name for s in self.strategies]), ("seeds", list(self.seeds))):
            if len(set(values)) != len(values):
                raise ValueError(f"{key} must all differ, got {values}")
        names = [run.run for run in self.runs()]
        if len(set(names)) != len(names):
            raise ValueError(f"strategies must differ in more than punctuation, for their runs are named {names}")
        return self

    def runs(self) -> tuple[RunConfig, ...]:
        """Every run of the suite: strategies x seeds; all seeds of a strategy together, strategies in file order."""
        shared = self.model_dump(include={"data", "model", "training", "augmentation"})
        return tuple(
            RunConfig.model_validate({"suite": self.name, "strategy": strategy.model_dump(), "seed": seed, **shared})
            for strategy in self.strategies
            for seed in self.seeds
        )


class RunConfig(Record):
    """Everything one training run needs."""

    suite: str
    strategy: StrategyConfig
    seed: NonNegativeInt
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    augmentation: AugmentationConfig

    @property
    def run(self) -> str:
        """Name of the run and of its directory."""
        slug = re.sub(r"[^\w.-]+", "-", self.strategy.name)
        return f"{slug}-seed{self.seed}"


class ResultRow(Record):
    """One number: a metric of one class in one domain's test set.

    Attributes:
        class_: class name (column `class`).
        annotated: was the class drawn in that domain's training data?
        value: mean over the n images in which the metric is defined; None if there is none.
        n: number of those images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)
    suite: str
    run: str
    strategy: str
    loss: str
    dropout: float
    seed: int
    domain: str
    class_: str = Field(alias="class")
    annotated: bool
    metric: str
    value: float | None
    n: NonNegativeInt


class RunResult(Record):
    """What a finished run leaves.

    Attributes:
        rows: the numbers.
        best_epoch: 1-based epoch whose weights were scored: the best validation foreground Dice.
        seconds: wall-clock time of the run.
        environment: versions, device, threads, commit.
    """

    run: str
    rows: tuple[ResultRow, ...]
    best_epoch: PositiveInt
    validation_dice: float
    seconds: float
    environment: dict[str, str]


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either wholly there or not there at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same directory, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, record: BaseModel) -> None:
    """Write a record as indented JSON."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_suite(directory: Path) -> SuiteConfig:
    """The suite that a directory was made by."""
    return SuiteConfig.model_validate_json((directory / "suite.json").read_text())


def run_directory(directory: Path, config: RunConfig) -> Path:
    """Where a run keeps its files inside its suite's directory."""
    return directory / "runs" / config.run


def read_result(directory: Path, config: RunConfig) -> RunResult | None:
    """The result of a run, or None if it is not finished."""
    path = run_directory(directory, config) / "result.json"
    return RunResult.model_validate_json(path.read_text()) if path.exists() else None


def results_csv(rows: Iterable[ResultRow]) -> str:
    """Rows as the text of results.csv; a value that does not exist is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump(by_alias=True) for row in rows)
    return text.getvalue()
