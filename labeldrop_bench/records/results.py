"""What comes out of a run."""

from __future__ import annotations

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt

from labeldrop_bench.records.config import Record

COLUMNS = (
    "suite", "run", "condition", "strategy", "loss", "dropout", "seed", "domain", "class", "annotated", "metric",
    "value", "n",
)  # fmt: skip
CASE_COLUMNS = ("case", "patient", "domain", "class", "metric", "value")


class ResultRow(Record):
    """One number: a metric of one class in one domain's test set.

    Attributes:
        condition: the suite's condition; empty if it has none.
        class_: class name (column `class`).
        annotated: was the class drawn in that domain's training data?
        value: mean over the n images in which the metric is defined; None if there is none.
        n: number of those images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)
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


class RunResult(Record):
    """What a finished run leaves.

    Attributes:
        rows: the numbers.
        best_epoch: 1-based epoch whose weights were scored: the best validation foreground Dice.
        seconds: that training and scoring took, also where the run was broken off and went on.
        chosen: what a grid search chose, by key of the `[training]` table.
        environment: versions, device, threads, commit.
    """

    run: str
    rows: tuple[ResultRow, ...]
    best_epoch: PositiveInt
    validation_dice: float
    seconds: float
    chosen: dict[str, float] = Field(default_factory=dict)
    environment: dict[str, str]


class CaseRow(Record):
    """A metric of one class in one test case.

    Attributes:
        case, patient, domain: as the data set names them.
        class_: class name (column `class`).
        value: None where the metric is not defined.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)
    case: str
    patient: str
    domain: str
    class_: str = Field(alias="class")
    metric: str
    value: float | None
