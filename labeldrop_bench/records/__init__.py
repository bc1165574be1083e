"""What goes into a run and what comes out of it, as JSON and CSV.

Layout of a suite directory:

    suite.json                  SuiteConfig: everything that was asked for
    precision.json              device -> precision that training.precision = "auto" came to: later calls do alike
    results.csv                 one row per run x domain x class x metric (COLUMNS)
    leaderboard.{md,csv,html}   and figures
    challenger.csv              Dice of every test case, for the R package challengeR
    runs/<run>/config.json      RunConfig
    runs/<run>/split.csv        which case is in which split, its annotated and its known labels
    runs/<run>/result.json      RunResult; its presence says that the run is finished
    runs/<run>/cases.csv        one row per test case x foreground class, with all METRICS and the size (CASE_COLUMNS)
    runs/<run>/examples.npz     a few test images with truth and prediction
    runs/<run>/failure.json     RunFailure: why a run could not go on; removed when it is finished
    runs/<run>/history.csv      one row per epoch
    runs/<run>/tensorboard/     event files, if they were asked for
    runs/<run>/checkpoint.pt    the best epoch's weights
    runs/<run>/last.pt          where a run that was broken off goes on; removed when it is finished

Every file is written under a temporary name and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

from labeldrop_bench.records.agreement import disagreements
from labeldrop_bench.records.config import (
    ConditionConfig,
    RunConfig,
    StrategyConfig,
    SuiteConfig,
    laid_over,
    path_part,
)
from labeldrop_bench.records.differences import differences
from labeldrop_bench.records.examples import Example, read_examples, write_examples
from labeldrop_bench.records.files import (
    cases_csv,
    read_cases,
    read_failure,
    read_result,
    read_suite,
    results_csv,
    run_directory,
    to_csv,
    write_bytes,
    write_failure,
    write_json,
    write_text,
)
from labeldrop_bench.records.mistakes import closest, explain
from labeldrop_bench.records.results import (
    CASE_COLUMNS,
    COLUMNS,
    METRICS,
    MILLIMETRES,
    PIXELS,
    SIGHTINGS,
    SOME_PIXELS,
    CaseRow,
    DistanceUnit,
    Metric,
    ResultRow,
    RunFailure,
    RunResult,
    StepCost,
)
from labeldrop_bench.records.sightings import sightings
from labeldrop_bench.records.tables import (
    AugmentationConfig,
    DataConfig,
    HiddenConfig,
    ModelConfig,
    Names,
    PatchConfig,
    Record,
    ScoringConfig,
    SomeNames,
    TrainingConfig,
)
from labeldrop_bench.records.words import Said, meanings, toml, toml_key, words, words_of

__all__ = [
    "CASE_COLUMNS",
    "COLUMNS",
    "METRICS",
    "MILLIMETRES",
    "PIXELS",
    "SIGHTINGS",
    "SOME_PIXELS",
    "AugmentationConfig",
    "CaseRow",
    "ConditionConfig",
    "DataConfig",
    "DistanceUnit",
    "Example",
    "HiddenConfig",
    "Metric",
    "ModelConfig",
    "Names",
    "PatchConfig",
    "Record",
    "ResultRow",
    "RunConfig",
    "RunFailure",
    "RunResult",
    "Said",
    "ScoringConfig",
    "SomeNames",
    "StepCost",
    "StrategyConfig",
    "SuiteConfig",
    "TrainingConfig",
    "cases_csv",
    "closest",
    "differences",
    "disagreements",
    "explain",
    "laid_over",
    "meanings",
    "path_part",
    "read_cases",
    "read_examples",
    "read_failure",
    "read_result",
    "read_suite",
    "results_csv",
    "run_directory",
    "sightings",
    "to_csv",
    "toml",
    "toml_key",
    "words",
    "words_of",
    "write_bytes",
    "write_examples",
    "write_failure",
    "write_json",
    "write_text",
]  # fmt: skip
