"""What goes into a suite and into a run: the tables of a suite file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal
from unicodedata import combining, normalize

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

Probability = float


class Record(BaseModel):
    """Base of every record: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HiddenConfig(Record):
    """One entry of `[data] hidden`: labels that are there and that an experiment keeps from training.

    Attributes:
        labels: names of foreground labels.
        domains: where; None is everywhere.
        share: of the training samples of each domain, chosen by chance; validation keeps all of its labels. None hides
            the labels in all samples of all splits. Truth stays what it is either way.
        independently: choose other samples for each label; otherwise the same samples lose all of them.
        seed: of the choice; nothing to do with a run's seed.
    """

    labels: tuple[str, ...]
    domains: tuple[str, ...] | None = Field(None, min_length=1)
    share: float | None = Field(None, ge=0, le=1)
    independently: bool = False
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _chooses(self) -> HiddenConfig:
        if self.share is None and (self.independently or self.seed):
            raise ValueError("independently and seed choose the samples of a share: set share, or leave them out")
        return self


def _entries(hidden: object) -> object:
    """`hidden.B = ["LA"]` is short for an entry with these labels and this domain."""
    if not isinstance(hidden, Mapping):
        return hidden
    return [{"labels": labels, "domains": [domain]} for domain, labels in hidden.items()]


class DataConfig(BaseModel):
    """The `[data]` table. Keys beyond these belong to the data set (its own options) and are checked by it.

    Attributes:
        name: registered data set.
        classes: foreground classes to segment, the others becoming background; None means all.
        annotated: domain -> names of the foreground labels that its owners annotated; a domain that is not named has
            all that the data set says. What is not annotated is neither trained on as absent nor scored.
        annotated_file: CSV file with the columns case and label: a row for each label annotated in a case, an empty
            label for a case with nothing but background. A case that it does not name has what `annotated` says of its
            domain. A relative path begins at the folder of the suite file.
        hidden: labels that are there and that an experiment keeps from training: domain -> labels, or entries. They are
            still scored. The `hidden` of a condition takes the place of the suite's.
        train_domains: domains to train and validate on; None means all. The test split keeps all of them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    classes: tuple[str, ...] | None = None
    annotated: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    annotated_file: Path | None = None
    hidden: Annotated[tuple[HiddenConfig, ...], BeforeValidator(_entries)] = ()
    train_domains: tuple[str, ...] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The data set's own options."""
        return dict(self.model_extra or {})

    def trains_on(self, domain: str, label: str) -> bool:
        """Whether this table leaves a label to a domain's training samples, as far as the data set has it there."""
        hidden = any(
            label in entry.labels and domain in (entry.domains or (domain,)) and entry.share in (None, 1)
            for entry in self.hidden
        )
        return (
            domain in (self.train_domains or (domain,)) and label in self.annotated.get(domain, (label,)) and not hidden
        )


class ModelConfig(Record):
    """The `[model]` table.

    Attributes:
        name: registered network.
        channels: its widths, one per resolution level.
        dropout: probability with which its units drop while training (and in Monte-Carlo passes).
    """

    name: str = "unet"
    channels: tuple[PositiveInt, ...] = (16, 32, 64, 96)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class PatchConfig(Record):
    """The `[patches]` table: what of an image the network sees at once.

    Attributes:
        kind: "whole" images; "box": random boxes in training, sliding windows in prediction; "slab": some slices of a
            volume across one of its three axes, taken at random in training, of which the network labels the middle
            one; prediction goes through all slices of `planes` axes and averages the logits (McKinley et al. 2019).
        size: of a box, one number per axis; of a slab, height and width. Smaller images are padded.
        depth: slices of a slab, an odd number.
        planes: axes that a slab may lie across.
        per_image: boxes or slabs that each image gives in an epoch.
    """

    kind: Literal["whole", "box", "slab"] = "whole"
    size: tuple[PositiveInt, ...] = ()
    depth: PositiveInt = 7
    planes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    per_image: PositiveInt = 1

    @model_validator(mode="after")
    def _fits(self) -> PatchConfig:
        wanted = {"whole": (0,), "box": (2, 3), "slab": (2,)}[self.kind]
        if len(self.size) not in wanted:
            raise ValueError(f"size must have {' or '.join(map(str, wanted))} numbers for {self.kind}, got {self.size}")
        if self.kind == "slab" and (self.depth % 2 == 0 or not self.planes or len(set(self.planes)) < len(self.planes)):
            raise ValueError(f"a slab needs an odd depth and different planes, got {self.depth} and {self.planes}")
        return self


class TrainingConfig(Record):
    """The `[training]` table.

    Attributes:
        optimizer: "sgd" with Nesterov momentum, or "rmsprop".
        schedule: of the learning rate, over all steps: "one_cycle" up to the peak and down to nothing; "poly" down as
            (1 - t)^0.9; "cosine_restarts" from the peak to `final_learning_rate` every `restart_steps` steps.
        learning_rate: the peak of the schedule.
        precision: Lightning Fabric's word, or "auto": the faster of the two where the suite runs, by a step
            with each; "32-true" where the hardware has no bf16 arithmetic.
        validate_every: epochs between validations; the last epoch is always validated.
        save_every: epochs after which a run that is broken off can go on.
        grid: key of this table -> values to try, in all combinations; the one with the best validation Dice is scored.
        threads: of a run on the CPU, whose result it decides in the last digits; None leaves it to torch.
    """

    epochs: PositiveInt = 25
    batch_size: PositiveInt = 16
    optimizer: Literal["sgd", "rmsprop"] = "sgd"
    schedule: Literal["one_cycle", "poly", "cosine_restarts"] = "one_cycle"
    learning_rate: PositiveFloat = 0.1
    final_learning_rate: float = Field(default=0.0, ge=0)
    restart_steps: PositiveInt = 2000
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    validate_every: PositiveInt = 1
    save_every: PositiveInt = 10
    grid: dict[Literal["learning_rate", "batch_size", "momentum", "weight_decay"], tuple[float, ...]] = {}
    threads: PositiveInt | None = None

    def points(self) -> tuple[TrainingConfig, ...]:
        """Every combination of the grid's values as a table without a grid; this table alone if there is none."""
        table = self.model_dump(exclude={"grid"})
        keys, values = list(self.grid), itertools.product(*self.grid.values())
        return tuple(TrainingConfig.model_validate({**table, **dict(zip(keys, v, strict=True))}) for v in values)

    @model_validator(mode="after")
    def _grid_fits(self) -> TrainingConfig:
        if not all(self.grid.values()):
            raise ValueError(f"grid: every key needs at least one value, got {self.grid}")
        if self.grid:
            self.points()  # a value that its key refuses
        return self


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


class ScoringConfig(Record):
    """The `[scoring]` table: how test images are scored.

    Attributes:
        tolerance: of the normalised surface Dice, for classes that `tolerances` does not name: in millimetres where the
            spacing of every test image is known, in pixels otherwise.
        tolerances: class name -> its own tolerance, in the same unit.
        bins: of the expected calibration error.
        examples: test images of each domain that are kept, with truth and prediction, for the page to show.
    """

    tolerance: PositiveFloat = 1.0
    tolerances: dict[str, PositiveFloat] = {}
    bins: PositiveInt = 15
    examples: NonNegativeInt = 2


class StrategyConfig(Record):
    """One `[[strategies]]` entry: a loss and a label dropout.

    Attributes:
        name: unique in the suite; the one trained on all labels is named `full`.
        loss: registered loss name.
        loss_options: keyword arguments of the loss.
        dropout: probability of hiding each droppable label in each sample.
        dropout_classes: names of the labels that may drop; None means all but background.
        full_labels: train on all labels (the upper bound).
        augmented: whether training images are changed as the `[augmentation]` table says.
        procedure: the scheme around the loss, if it takes more than one round of training: its `name` (see
            `labeldrop_bench.procedures`) and its own options.
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
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    patches: dict[str, Any] = {}
    training: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}

    @model_validator(mode="after")
    def _same_data_set(self) -> ConditionConfig:
        if "name" in self.data:
            raise ValueError(f"data.name: the data set is the same in all conditions, got {self.data['name']!r}")
        return self


TABLES = ("data", "model", "patches", "training", "augmentation")


class SuiteConfig(Record):
    """One suite file.

    Attributes:
        name: of the suite.
        title: one line, the heading of its leaderboard.
        description: what it shows.
        seeds: every strategy is trained once with each, in every condition.
        split_by_seed: whether the data set's own `seed`, of its splits, is that of the run: cross-validation.
        workers: how many runs go side by side; "auto": as many as there are GPUs, or cores for `training.threads`.
        conditions: a leaderboard is made for each; none means the tables as they stand.
        standard: name of the strategy that takes what is unannotated for background: where the gap to `full` begins,
            and what the others are tested against. Without a strategy of this name no gap is given, and they are tested
            against the first that is not `full`.
        figures: pictures besides the leaderboard (`labeldrop_bench.leaderboard.figures`).
    """

    name: str
    title: str
    description: str = ""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
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
    seed: NonNegativeInt
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
