"""One run from its configuration to its result: edits of the data, grid search, procedure, scores, files."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from labeldrop_bench import environment, procedures, records
from labeldrop_bench.checkpoints import HISTORY, Epoch, Fit, write_best
from labeldrop_bench.cost import step_cost
from labeldrop_bench.data.base import IGNORED, Dataset, Samples
from labeldrop_bench.errors import DivergenceError
from labeldrop_bench.evaluate import distance_unit, score
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import RunConfig, RunResult
from labeldrop_bench.train import make_learner


def run(
    config: RunConfig,
    dataset: Dataset,
    directory: Path,
    *,
    fabric: Fabric,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> RunResult | None:
    """Train by the strategy, score its best epoch on the test split, write the run's files.

    Args:
        config: everything the run needs; `sweep.prepare` has checked it.
        dataset: what `config.data` describes, edits included.
        directory: the run's own. result.json is written last: its presence says that the run is finished.
        fabric: device, precision and processes.
        on_epoch: called on the first process after every epoch.

    Returns:
        The result; None on every process but the first.

    Raises:
        DivergenceError: the loss is not finite, at every point of the grid if there is one.
        TrainingError: a file to go on from cannot be read.
    """
    dataset = everything_known(dataset) if config.strategy.full_labels else dataset
    if fabric.is_global_zero:
        records.write_text(directory / "split.csv", split_csv(dataset))
    grid = config.training.grid
    config, best = search(config, dataset, directory, fabric, on_epoch)
    if not fabric.is_global_zero:
        return None
    began = time.perf_counter()
    learner = make_learner(config, dataset, fabric)
    learner.network.load_state_dict(best.weights)
    fabric.to_device(learner.network)
    rows, cases, examples = score(learner.predictor, dataset, config)
    result = RunResult(
        run=config.run,
        rows=tuple(rows),
        best_epoch=best.epoch,
        validation_dice=best.dice,
        seconds=best.seconds + time.perf_counter() - began,
        cost=step_cost(learner, config, dataset),
        chosen={key: float(getattr(config.training, key)) for key in grid},
        distances=distance_unit(dataset.test),
        split=split_digest(dataset),
        environment=environment.describe(fabric),
    )
    records.write_text(directory / "cases.csv", records.cases_csv(cases))
    records.write_examples(directory, examples)
    records.write_json(directory / "result.json", result)
    return result


def search(
    config: RunConfig, dataset: Dataset, directory: Path, fabric: Fabric, on_epoch: Callable[[Epoch], None]
) -> tuple[RunConfig, Fit]:
    """Train at every point of the grid, each in a folder of its own; the best validation Dice wins.

    A point whose loss is not finite loses, with a warning.

    Returns:
        The run with the winner's values, and its best epoch; `seconds` is that of all points together.
    """
    procedure = procedures.make(config.strategy)
    points = config.training.points()
    if len(points) == 1:
        config = config.model_copy(update={"training": points[0]})
        return config, procedure.train(config, dataset, directory, fabric, on_epoch)
    tried, failed = [], []
    for number, training in enumerate(points):
        point = config.model_copy(update={"training": training})
        try:
            tried.append((point, procedure.train(point, dataset, directory / f"grid{number}", fabric, on_epoch)))
        except DivergenceError as error:  # a rate that is too high is what a grid is there to find
            failed.append(str(error))
    if not tried:
        raise DivergenceError(f"run {config.run}: no point of the grid could be trained:\n  " + "\n  ".join(failed))
    if failed:
        text = "\n  ".join([f"{len(failed)} of the grid's {len(points)} points are out of the running:", *failed])
        warnings.warn(text, stacklevel=2)
    winner, best = max(tried, key=lambda pair: pair[1].dice)
    best = replace(best, seconds=math.fsum(fit.seconds for _, fit in tried))
    if fabric.is_global_zero:
        history = directory / f"grid{points.index(winner.training)}" / HISTORY
        records.write_bytes(directory / HISTORY, history.read_bytes())
        write_best(directory, best, winner)
    return winner, best


def epochs(config: RunConfig) -> int:
    """How many epochs the run trains for, all points of the grid and all rounds of the procedure together."""
    return len(config.training.points()) * procedures.make(config.strategy).fits * config.training.epochs


def everything_known(dataset: Dataset) -> Dataset:
    """The data set of the upper bound: all truth that is known takes the place of what is annotated.

    Raises:
        ValueError: a class has no label of its own.
    """
    value_of = own_labels(dataset.label_space)
    lookup = torch.full((256,), IGNORED, dtype=torch.uint8)
    lookup[list(value_of)] = torch.tensor(list(value_of.values()), dtype=torch.uint8)

    def of(samples: Samples) -> Samples:
        annotated = torch.zeros_like(samples.annotated)
        annotated[:, list(value_of.values())] = samples.known[:, list(value_of)]
        return replace(samples, target=samples.truth.mapped(lookup), annotated=annotated)

    return dataset.map(of)


def unknown_to_full(dataset: Dataset) -> list[str]:
    """Where `everything_known` is not everything: classes that are known in no training sample of a domain."""
    train, classes = dataset.train, dataset.label_space.classes
    return [
        f"{classes[c]} in {domain}"
        for d, domain in enumerate(dataset.domains)
        for c in (~train.known[train.domain == d].any(0)).nonzero().flatten().tolist()
        if (train.domain == d).any()
    ]


def own_labels(space: LabelSpace) -> dict[int, int]:
    """Class -> value of the exhaustive label that stands for it alone.

    Raises:
        ValueError: a class has none.
    """
    value_of = {
        next(iter(label.classes)): value
        for value, label in reversed(list(enumerate(space.labels)))
        if len(label.classes) == 1 and label.exhaustive
    }
    without = [name for c, name in enumerate(space.classes) if c not in value_of]
    if without:
        raise ValueError(
            f"full labels: every class needs a label of its own, and {', '.join(without)} has none; name the "
            f"strategies in the suite file, without full"
        )
    return dict(sorted(value_of.items()))


def split_csv(dataset: Dataset) -> str:
    """Which case is in which split, the labels that training sees in it, and the classes that can be scored in it."""
    labels, classes = [label.name for label in dataset.label_space.labels], dataset.label_space.classes
    rows = [
        {
            "case": samples.cases[i],
            "patient": samples.patients[i],
            "domain": dataset.domains[int(samples.domain[i])],
            "split": split,
            "annotated": _listed(labels, samples.annotated[i]),
            "known": _listed(classes, samples.known[i]),
        }
        for split, samples in dataset.splits().items()
        for i in range(len(samples))
    ]
    return records.to_csv(list(rows[0]), rows)


def _listed(names: Sequence[str], chosen: Tensor) -> str:
    """The foreground names that are chosen."""
    return "; ".join(names[v] for v in chosen.nonzero().flatten().tolist() if v)


def split_digest(dataset: Dataset) -> str:
    """SHA-256 of which case is in which split, whatever is annotated in it."""
    lines = [f"{split}\t{case}\n" for split, samples in dataset.splits().items() for case in samples.cases]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
