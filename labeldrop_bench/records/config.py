"""What goes into a suite and into a run: a suite file, its strategies and conditions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from unicodedata import combining, normalize

from pydantic import Field, PositiveInt, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from labeldrop_bench.records.tables import (
    AugmentationConfig,
    DataConfig,
    ModelConfig,
    PatchConfig,
    Probability,
    Record,
    ScoringConfig,
    Seed,
    TrainingConfig,
)


class StrategyConfig(Record):
    """One `[[strategies]]` entry: a loss and a label dropout.

    Attributes:
        name: unique in the suite; the one trained on all labels is named `full`.
        loss: name of a loss (`labeldrop-bench losses` lists them), or names with `+` between for their sum.
        loss_options: options of the loss, such as `{ gamma = 1.0 }`.
        dropout: probability of hiding each droppable label in each sample.
        dropout_classes: names of the labels that may drop; None means all but background.
        full_labels: train on all labels (the upper bound).
        augmented: whether training images are changed as the `[augmentation]` table says.
        procedure: the scheme around the loss, if it takes more than one round of training: its `name`
            and its own options.
    """

    name: str
    loss: str
    loss_options: dict[str, Any] = Field(default_factory=dict)
    dropout: Probability = Field(default=0.0, ge=0, le=1)
    dropout_classes: tuple[str, ...] | None = None
    full_labels: bool = False
    augmented: bool = True
    procedure: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _full_is_full(self) -> StrategyConfig:
        if (self.name == "full") != self.full_labels:
            raise ValueError(
                f"the strategy trained on all labels, and only it, is named 'full': "
                f"got name={self.name!r} with full_labels={self.full_labels}"
            )
        return self


class ConditionConfig(Record):
    """One `[[conditions]]` entry: the strategies are compared anew with some keys of the suite changed.

    Attributes:
        name: unique in the suite.
        value: where the condition stands on the horizontal axis of a plot, if it is one of a series.
        data, model, patches, training, augmentation: keys of these tables, laid over the suite's.
    """

    name: str = Field(min_length=1)
    value: float | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    patches: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    augmentation: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _same_data_set(self) -> ConditionConfig:
        if "name" in self.data:
            raise ValueError(f"data.name: the data set is the same in all conditions, got {self.data['name']!r}")
        return self


_LONGEST = 200  # characters of a run's name; file systems store 255, and some names are made longer
TABLES = ("data", "model", "patches", "training", "augmentation")


class SuiteConfig(Record):
    """One suite file.

    Attributes:
        name: of the suite, and of its directory.
        title: one line, the heading of its leaderboard.
        description: what it shows.
        seeds: every strategy is trained once with each, in every condition.
        split_by_seed: whether the data set's own `seed`, of its splits, is that of the run: cross-validation.
        workers: how many runs go side by side; "auto": as many as there are GPUs, or cores for `training.threads`.
        data: which data set, and what training may see of it.
        model: the network.
        patches: what of an image the network sees at once.
        training: the optimizer and how long it works.
        augmentation: random changes of training images.
        scoring: how test images are scored.
        conditions: a leaderboard is made for each; none means the tables as they stand.
        standard: name of the strategy that takes what is unannotated for background: where the gap to `full` begins,
            and what the others are tested against. Without a strategy of this name no gap is given, and they are tested
            against the first that is not `full`.
        figures: pictures besides those that every leaderboard has.
        strategies: what is compared, each a loss with or without label dropout.
    """

    name: str
    title: str
    description: str = ""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    split_by_seed: bool = False
    workers: PositiveInt | Literal["auto"] = 1
    data: DataConfig
    model: ModelConfig = ModelConfig()
    patches: PatchConfig = PatchConfig()
    training: TrainingConfig = TrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    scoring: ScoringConfig = ScoringConfig()
    conditions: tuple[ConditionConfig, ...] = ()
    standard: str = "standard"
    figures: tuple[str, ...] = ()
    strategies: tuple[StrategyConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> SuiteConfig:
        conditions = [c.name for c in self.conditions]
        strategies = [s.name for s in self.strategies]
        for key, values in (("strategies", strategies), ("seeds", list(self.seeds)), ("conditions", conditions)):
            if len(set(values)) != len(values):
                raise ValueError(f"{key} must all differ, got {values}")
        if self.standard not in ("standard", *strategies):
            raise ValueError(f"standard must be the name of one of the strategies, {strategies}, got {self.standard!r}")
        names = [run.run for run in self.runs()]
        if len(set(names)) != len(names):
            raise ValueError(
                f"strategies and conditions must differ in more than punctuation and accents, for their runs are "
                f"named {names}"
            )
        if (longest := max(names, key=len))[_LONGEST:]:
            raise ValueError(f"names of strategies and conditions must be shorter: no file system stores {longest!r}")
        return self

    def runs(self) -> tuple[RunConfig, ...]:
        """Every run, condition after condition, all seeds of a strategy together, everything as in the file.

        With `split_by_seed` all strategies of a seed are together, since they share a data set.
        """
        shared = self.model_dump(include=set(TABLES))
        strategies = [strategy.model_dump() for strategy in self.strategies]
        runs = []
        for condition in self.conditions or (ConditionConfig(name="-"),):
            changes = condition.model_dump(include=set(TABLES))
            tables = {key: laid_over(shared[key], changes[key]) for key in TABLES}
            common = {
                "suite": self.name,
                "condition": condition.name if self.conditions else "",
                "scoring": self.scoring.model_dump(),
                **tables,
            }
            pairs = list(itertools.product(range(len(strategies)), self.seeds))
            if self.split_by_seed:
                pairs.sort(key=lambda pair: self.seeds.index(pair[1]))  # stable: strategies stay in order
            for number, seed in pairs:
                data = laid_over(tables["data"], {"seed": seed} if self.split_by_seed else {})
                run = {**common, "data": data, "strategy": strategies[number], "seed": seed}
                with self._blamed_on(condition):
                    runs.append(RunConfig.model_validate(run))
        return tuple(runs)

    @contextmanager
    def _blamed_on(self, condition: ConditionConfig) -> Iterator[None]:
        """Errors in the tables of a run are located in the condition that changed them."""
        try:
            yield
        except ValidationError as error:
            if not self.conditions:
                raise
            at = ("conditions", self.conditions.index(condition))
            details = [
                InitErrorDetails(
                    type=detail["type"],
                    loc=(*at, *detail["loc"]),
                    input=detail["input"],
                    ctx=detail.get("ctx", {}),
                )
                for detail in error.errors()
            ]
            raise ValidationError.from_exception_data(error.title, details) from error


def path_part(name: str) -> str:
    """A name as a part of paths, in ASCII, which every file system can store: letters lose their accents."""
    letters = (c if c.isascii() else f"u{ord(c):x}" for c in normalize("NFKD", name) if not combining(c))
    return re.sub(r"[^\w.-]+", "-", "".join(letters))


def laid_over(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with some keys changed; tables inside it are changed likewise, anything else is replaced."""
    changed = dict(table)
    for key, value in changes.items():
        inner = changed.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            changed[key] = laid_over(inner, value)
        else:
            changed[key] = value
    return changed


class RunConfig(Record):
    """Everything one training run needs."""

    suite: str
    condition: str = ""
    strategy: StrategyConfig
    seed: Seed
    data: DataConfig
    model: ModelConfig
    patches: PatchConfig
    training: TrainingConfig
    augmentation: AugmentationConfig
    scoring: ScoringConfig

    @property
    def run(self) -> str:
        """Name of the run and of its directory."""
        parts = [path_part(name) for name in (self.condition, self.strategy.name) if name]
        return f"{'_'.join(parts)}-seed{self.seed}"
