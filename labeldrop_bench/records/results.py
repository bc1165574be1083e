"""What comes out of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt

from labeldrop_bench.records.tables import Record

COLUMNS = (
    "suite", "run", "condition", "strategy", "loss", "dropout", "seed", "domain", "class", "annotated", "metric",
    "value", "n",
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A measure of one class in one test image.

    Attributes:
        title: in a table's heading.
        is_distance: its values have a unit, which `RunResult.distances` names.
        higher_is_better: or lower.
    """

    title: str
    is_distance: bool
    higher_is_better: bool

    @property
    def direction(self) -> str:
        """In words."""
        return "higher is better" if self.higher_is_better else "lower is better"


DistanceUnit = Literal["mm", "pixels", "pixels, since the spacing of some images is not known"]
MILLIMETRES: DistanceUnit = "mm"
PIXELS: DistanceUnit = "pixels"
SOME_PIXELS: DistanceUnit = "pixels, since the spacing of some images is not known"
METRICS = {
    "dice": Metric("Dice", False, higher_is_better=True),
    "hd95": Metric("HD95", True, higher_is_better=False),
    "nsd": Metric("NSD", False, higher_is_better=True),
    "ece": Metric("ECE", False, higher_is_better=False),
    "brier": Metric("Brier", False, higher_is_better=False),
}
SIGHTINGS = ("presence", "size")
"""Metrics that need no truth and that nothing ranks by: see `records.sightings`."""
CASE_COLUMNS = ("case", "patient", "domain", "class", *METRICS, "size")


class ResultRow(Record):
    """One number: a metric of one class in one domain's test set.

    Attributes:
        condition: the suite's condition; empty if it has none.
        class_: class name (column `class`).
        annotated: was the class annotated in that domain's training data?
        metric: one of `METRICS`, if somebody knows the truth of the class in a test image of the domain, or one of
            `SIGHTINGS`.
        value: mean over the n images in which the metric is defined; None if there is none. A class that the truth of
            no test image of the domain shows has none by any of `METRICS`, whatever is predicted.
        n: number of those images.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, allow_inf_nan=True)  # JSON: none
    suite: str
    run: str
    condition: str = ""
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


class StepCost(Record):
    """What a loss costs in one training step: forward and backward pass on a batch of the run's own.

    Attributes:
        seconds: median.
        peak_bytes: the most memory that it held at once beyond logits and target, its gradient included.
        rounds: how many steps the median is of.
        shape: of the logits.
    """

    seconds: NonNegativeFloat
    peak_bytes: NonNegativeInt
    rounds: PositiveInt
    shape: tuple[PositiveInt, ...]


class RunResult(Record):
    """What a finished run leaves.

    Attributes:
        rows: the numbers.
        best_epoch: 1-based epoch whose weights were scored: the best validation foreground Dice.
        seconds: that training and scoring took, also where the run was broken off and went on.
        cost: of the loss.
        chosen: what a grid search chose, by key of the `[training]` table.
        distances: unit of HD95, and of the tolerances of NSD.
        split: SHA-256 of which case is in which split: only runs that have it in common can be compared.
        environment: versions, device, threads, commit.
    """

    run: str
    rows: tuple[ResultRow, ...]
    best_epoch: PositiveInt
    validation_dice: float
    seconds: float
    cost: StepCost
    chosen: dict[str, float] = Field(default_factory=dict)
    distances: DistanceUnit = PIXELS
    split: str
    environment: dict[str, str]


class RunFailure(Record):
    """Why a run could not go on (failure.json); gone once the run has been done after all.

    Attributes:
        message: one line or a few.
        traceback: where it happened; empty if the process was killed.
    """

    run: str
    message: str
    traceback: str


class CaseRow(Record):
    """One foreground class in one test case, whether or not anybody knows the truth there.

    Attributes:
        case, patient, domain: as the data set names them.
        class_: class name (column `class`).
        dice, hd95, nsd, ece, brier: see `METRICS` and `labeldrop_bench.metrics`; None where one is not defined. All are
            None where nobody knows the truth, and where that of no test image of the domain shows the class.
        size: pixels (voxels) that are predicted to be of the class; None where that was not recorded.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, allow_inf_nan=True)  # JSON: none
    case: str
    patient: str
    domain: str
    class_: str = Field(alias="class")
    dice: FiniteFloat | None
    hd95: FiniteFloat | None
    nsd: FiniteFloat | None
    ece: FiniteFloat | None
    brier: FiniteFloat | None
    size: NonNegativeInt | None

    @property
    def scored(self) -> bool:
        """Whether the class counts for the scores in this case."""
        return any(getattr(self, name) is not None for name in METRICS)
