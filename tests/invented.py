"""A finished suite directory with invented results: every run with its cases and its history."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from labeldrop_bench import records
from labeldrop_bench.records import (
    METRICS,
    CaseRow,
    Example,
    ResultRow,
    RunConfig,
    RunResult,
    StepCost,
    SuiteConfig,
)

EPOCHS = 12
COST = StepCost(seconds=0.002, peak_bytes=1 << 20, rounds=9, shape=(8, 4, 32, 32))
Level = Callable[[RunConfig, str, str], float]  # run, domain, class -> about what its Dice is
Sizes = Callable[[RunConfig, str, str], list[int]]  # run, domain, class -> pixels predicted in each case


def level(run: RunConfig, domain: str, name: str) -> float:
    """Better with dropout up to 0.5, worse where a class was unannotated, and each loss a little different."""
    strategy = run.strategy
    skill = zlib.crc32(strategy.loss.encode()) % 7 / 100
    if is_annotated(run, domain, name):
        return 0.84 + skill / 3
    return 0.45 + 3 * skill + 0.6 * strategy.dropout * (1.2 - strategy.dropout)


def is_annotated(run: RunConfig, domain: str, name: str) -> bool:
    """As the rows of a run would say."""
    if run.strategy.full_labels:
        return True
    return run.data.trains_on(domain, name)


def write_suite(
    directory: Path,
    suite: SuiteConfig,
    *,
    domains: dict[str, tuple[str, ...]],
    cases: int = 20,
    missing: Collection[str] = (),
    unfinished: Collection[str] = (),
    truth: bool = False,
    about: Level = level,
    unknown: Collection[tuple[str, str]] = (),
    unshown: Collection[tuple[str, str]] = (),
    sizes: Sizes | None = None,
) -> Path:
    """Write suite.json and the runs.

    Args:
        directory: where.
        suite: of which every run is invented.
        domains: the classes with truth in each.
        cases: of each domain.
        missing: names of runs that have not begun.
        unfinished: names of runs that have a history, up to the half of it, and no result.
        truth: whether `truth_dice` is recorded.
        about: the middle of the Dice of a cell.
        unknown: (domain, class) whose truth nobody knows.
        unshown: (domain, class) whose truth is known and shows nothing.
        sizes: a hundred pixels for a Dice of 1, if this is not given.
    """
    records.write_json(directory / "suite.json", suite)
    for run in suite.runs():
        if run.run not in missing:
            rng = np.random.default_rng(zlib.crc32(run.run.encode()))
            records.write_json(records.run_directory(directory, run) / "config.json", run)
            _write_history(directory, run, rng, 6 if run.run in unfinished else EPOCHS, truth)
            if run.run not in unfinished:
                _write_result(directory, run, rng, domains, cases, about, unknown=unknown, unshown=unshown, sizes=sizes)
    return directory


def _write_result(
    directory: Path, run: RunConfig, rng: np.random.Generator, domains: dict[str, tuple[str, ...]], cases: int,
    about: Level, *, unknown: Collection[tuple[str, str]], unshown: Collection[tuple[str, str]], sizes: Sizes | None,
) -> None:  # fmt: skip
    strategy, rows, of_cases = run.strategy, [], []
    shared = {
        "suite": run.suite, "run": run.run, "condition": run.condition, "strategy": strategy.name,
        "loss": strategy.loss, "dropout": strategy.dropout, "seed": run.seed,
    }  # fmt: skip
    annotated = {(d, name): is_annotated(run, d, name) for d, classes in domains.items() for name in classes}
    for domain, name in annotated:
        place = {"domain": domain, "class": name}
        values = np.clip(about(run, domain, name) + rng.normal(0, 0.015) + rng.normal(0, 0.06, cases), 0, 1)
        pixels = sizes(run, domain, name) if sizes else [round(100 * value) for value in values]
        scored = (domain, name) not in (*unknown, *unshown)
        by_metric = [other_metrics(value) for value in values]
        for metric in METRICS if (domain, name) not in unknown else ():
            mean = float(np.mean([value[metric] for value in by_metric])) if scored else None
            number = {"metric": metric, "value": mean, "n": cases * scored, "annotated": annotated[domain, name]}
            rows.append(ResultRow.model_validate({**shared, **place, **number}))
        for i, (value, size) in enumerate(zip(by_metric, pixels, strict=True)):
            case = {"case": f"{domain}{i:03}", "patient": f"{domain}{i // 2:03}", "size": size}
            scores = value if scored else dict.fromkeys(value)
            of_cases.append(CaseRow.model_validate({**case, **place, **scores}))
    for (domain, name), sighted in records.sightings(of_cases, annotated).items():
        for metric, (value, n) in sighted.items():
            place = {"domain": domain, "class": name, "annotated": annotated[domain, name]}
            rows.append(ResultRow.model_validate({**shared, **place, "metric": metric, "value": value, "n": n}))
    where = records.run_directory(directory, run)
    records.write_text(where / "cases.csv", records.cases_csv(of_cases))
    result = RunResult(
        run=run.run, rows=tuple(rows), best_epoch=3, validation_dice=0.9, seconds=10.0, cost=COST, split="0" * 64,
        environment={"torch": "2.13.0"},
    )  # fmt: skip
    records.write_json(where / "result.json", result)
    records.write_examples(where, [example(rng, domain) for domain in domains])


def other_metrics(dice: float) -> dict[str, float]:
    """All metrics of a case, as if they followed from its Dice."""
    return {"dice": dice, "hd95": 20 * (1 - dice), "nsd": dice**2, "ece": (1 - dice) / 4, "brier": (1 - dice) / 5}


def example(rng: np.random.Generator, domain: str) -> Example:
    """A disc of class 1 and what was found of it."""
    y, x = np.mgrid[:32, :32] - 16
    truth = (x**2 + y**2 < 100).astype(np.uint8)
    prediction = (x**2 + y**2 < rng.integers(49, 121)).astype(np.uint8)
    image = np.clip(128 * truth + rng.normal(60, 20, truth.shape), 0, 255).astype(np.uint8)
    return Example(f"{domain}000", domain, ("background", "LV", "LVM", "LA"), image, truth, prediction)


def _write_history(directory: Path, run: RunConfig, rng: np.random.Generator, epochs: int, truth: bool) -> None:
    end = 0.9 if run.strategy.full_labels else level(run, "nowhere", "")
    rows = []
    for epoch in range(1, epochs + 1):
        dice = end * (1 - np.exp(-epoch / 4)) + rng.normal(0, 0.01)
        validated = epoch % 2 == 0
        rows.append(
            {
                "epoch": epoch, "loss": 1 / epoch, "validation_dice": dice if validated else None,
                "truth_dice": dice - 0.02 if validated and truth else None, "lr": 0.1, "seconds": 1.0,
            }
        )  # fmt: skip
    where = records.run_directory(directory, run)
    records.write_text(where / "history.csv", records.to_csv(list(rows[0]), rows))
