"""The tables of a suite file that strategies and conditions share: data, network, patches, training, scoring."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from labeldrop_bench.records.words import Said

Probability = float
_ALONE = BeforeValidator(lambda names: (names,) if isinstance(names, str) else names)
Names = Annotated[tuple[str, ...], _ALONE, Said("a list of texts in quotes, or one alone")]
"""Names, or one without brackets."""
SomeNames = Annotated[
    tuple[str, ...], _ALONE, Said("a list of one or more texts in quotes, or one alone"), Field(min_length=1)
]
"""The same, but not none of them."""
Seed = Annotated[NonNegativeInt, Field(lt=2**32)]  # what all generators take


class Record(BaseModel):
    """Base of every record: immutable; an unknown key is an error, and so is a number that JSON cannot keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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

    labels: Names
    domains: SomeNames | None = None
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
        name: of a data set; `labeldrop-bench datasets` lists them.
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
    classes: Names | None = None
    annotated: dict[str, Names] = Field(default_factory=dict)
    annotated_file: Path | None = None
    hidden: Annotated[
        tuple[HiddenConfig, ...],
        BeforeValidator(_entries),
        Said("a table of DOMAIN = a list of labels, or a list of tables with labels and what else they need"),
    ] = ()
    train_domains: Names | None = None

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
        name: of a network; `labeldrop-bench models` lists them. "unet" is quick; "dynunet" is nearest to nnU-Net's, and
            the one for many classes.
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
        foreground: share of the boxes or slabs that have a pixel of some annotated label in their middle, each label as
            often as any other; the rest lie anywhere. 0 switches it off.
    """

    kind: Literal["whole", "box", "slab"] = "whole"
    size: tuple[PositiveInt, ...] = ()
    depth: PositiveInt = 7
    planes: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    per_image: PositiveInt = 1
    foreground: float = Field(default=1 / 3, ge=0, le=1)

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
        epochs: times that training goes through all images.
        batch_size: images, boxes or slabs of one step.
        optimizer: "sgd" with Nesterov momentum, "rmsprop", or "adamw".
        schedule: of the learning rate, over all steps: "one_cycle" up to the peak and down to nothing; "poly" down as
            (1 - t)^0.9; "cosine_restarts" from the peak to `final_learning_rate` every `restart_steps` steps.
        learning_rate: the peak of the schedule. AdamW moves every weight by about this much a step, so there it must be
            below 0.1, which suits SGD; 0.001 is usual.
        momentum: of SGD and RMSprop; for AdamW beta1, the decay of the mean gradient (beta2 is 0.999, epsilon 1e-8).
        weight_decay: for SGD and RMSprop added to the gradient, times the weight; for AdamW decoupled from it: a step
            takes `learning_rate * weight_decay` of each weight away (Loshchilov and Hutter 2019).
        final_learning_rate: where "cosine_restarts" ends each time.
        restart_steps: steps from one restart to the next, for "cosine_restarts".
        momentum: of the optimizer; "adamw" takes it for its first beta.
        weight_decay: of the weights towards zero, as the optimizer adds it to the gradient.
        precision: Lightning Fabric's word, or "auto": the faster of the two where the suite runs, by a step
            with each; "32-true" where the hardware has no bf16 arithmetic.
        validate_every: epochs between validations; the last epoch is always validated.
        save_every: epochs after which a run that is broken off can go on.
        grid: key of this table -> values to try, in all combinations; the one with the best validation Dice is scored.
        threads: of a run on the CPU, whose result it decides in the last digits; None leaves it to torch.
    """

    epochs: PositiveInt = 25
    batch_size: PositiveInt = 16
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "sgd"
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
    def _fits(self) -> TrainingConfig:
        if not all(self.grid.values()):
            raise ValueError(f"grid: every key needs at least one value, got {self.grid}")
        if self.grid:
            self.points()  # a value that its key refuses
        elif self.optimizer == "adamw" and self.learning_rate >= 0.1:
            raise ValueError(
                f"learning_rate must be below 0.1 for adamw, which moves every weight by about that much a step, got "
                f"{self.learning_rate} (0.1 is the default, for sgd); write for example learning_rate = 0.001"
            )
        return self


class AugmentationConfig(Record):
    """The `[augmentation]` table, after Islam et al. 2024, section 2: scaling, rotation, blur, brightness, contrast.

    Attributes:
        preset: "nnunet": nnU-Net's transforms with its chances and ranges (`labeldrop_bench.augment.NnUNet`); then no
            other key applies but `mirror`, and `probability = 0`. Without one the keys below say what is done.
        probability: chance of each transform for each image; 0 switches augmentation off.
        scale, brightness, contrast: largest relative change, e.g. 0.1 is 0.9 ... 1.1.
        rotation: largest angle in degrees.
        blur: largest standard deviation in pixels.
        mirror: whether the preset mirrors images along their axes. Set it to false where labels tell left from right.
    """

    preset: Literal["nnunet"] | None = None
    probability: Probability = Field(default=0.5, ge=0, le=1)
    scale: float = Field(default=0.15, ge=0, lt=1)
    rotation: float = Field(default=15.0, ge=0, le=180)
    blur: float = Field(default=1.0, ge=0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    mirror: bool = True

    @model_validator(mode="after")
    def _goes_together(self) -> AugmentationConfig:
        """Keys that do not apply stand at their defaults."""
        theirs = {"preset", "mirror"} if self.preset else set(type(self).model_fields) - {"mirror"}
        if self.preset and self.probability == 0:
            theirs |= {"probability"}
        of_other = [
            key
            for key, field in type(self).model_fields.items()
            if key not in theirs and getattr(self, key) != field.default
        ]
        if of_other:
            given = ", ".join(f"{key} = {getattr(self, key)!r}" for key in of_other)
            of = f"preset = {self.preset!r}" if self.preset else "no preset"
            raise ValueError(f"with {of} there is no {' and no '.join(of_other)} to choose: leave it out, got {given}")
        return self


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
