"""Everything that can be wrong with a suite is found here, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ValidationError
from torch.utils.benchmark import Timer

from labeldrop_bench import data, losses, models, train
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import DataConfig, StrategyConfig, SuiteConfig
from labeldrop_bench.suites import Suite, closest, explain

Precision = Literal["bf16-mixed", "32-true"]


@dataclass(frozen=True)
class Prepared:
    """A suite that has passed every check.

    Attributes:
        config: the suite; `data` has the data set's own defaults filled in.
        dataset: loaded once for all runs.
    """

    config: SuiteConfig
    dataset: Dataset


def prepare(suite: Suite) -> Prepared:
    """Load the data set, and check every name and value of a suite that has to do with registered things.

    Raises:
        SuiteError: names the file, the key, and the closest match.
    """
    config = suite.config
    with _blame(suite, "data.name"):
        info = data.get(config.data.name)
    try:
        options = info.options.model_validate(config.data.options)
    except ValidationError as error:
        text = explain(error, info.options, config.data.options, prefix="data.")
        raise SuiteError(f"{suite.source}: {text}") from error
    with _blame(suite, "data"):
        dataset = info.load(options, config.data.drawn)
    _check_dataset(suite, dataset)
    for strategy in config.strategies:
        _check_strategy(suite, strategy, dataset)
    filled = DataConfig(name=config.data.name, drawn=config.data.drawn, **options.model_dump(mode="json"))
    return Prepared(config.model_copy(update={"data": filled}), dataset)


def choose_device(device: str, config: SuiteConfig, dataset: Dataset) -> str:
    """Where to compute, "cpu" or "cuda"; "auto" is CUDA where there is a device and every loss has its kernel there.

    Raises:
        SuiteError: no such choice, or no CUDA for torch or for a loss.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SuiteError(f"--device: there is no choice {device!r}{closest(device, ('auto', 'cpu', 'cuda'))}")
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise SuiteError("--device cuda: torch finds no CUDA device here; use --device cpu, or install torch for CUDA")
    not_there = [s.name for s in config.strategies if not train.make_loss(s, dataset.label_space).runs_on("cuda")]
    if device == "auto" and not_there:
        warnings.warn(
            f"--device auto: training on the CPU, although there is a CUDA device, because the losses of these "
            f"strategies have no CUDA kernel in this installation: {', '.join(not_there)}",
            stacklevel=2,
        )
        return "cpu"
    if not_there:
        raise SuiteError(
            f"--device cuda: the losses of these strategies have no CUDA kernel in this installation: "
            f'{", ".join(not_there)}; use --device cpu, or give them loss_options = {{ backend = "reference" }}'
        )
    return "cuda"


def choose_precision(config: SuiteConfig, dataset: Dataset, device: str) -> Precision:
    """The suite's precision; for "auto", bf16 autocast if a training step of the network is faster with it.

    Which one it is depends on the processor: without instructions for bf16 matrix products (AMX, or a GPU's), a step
    took 2.0 to 2.3 times as long with it as without it.
    """
    if config.training.precision != "auto":
        return config.training.precision
    loss = train.make_loss(config.strategies[0], dataset.label_space)
    network = train.make_network(config, dataset, loss).to(device)
    images = dataset.train.images[: config.training.batch_size].to(device)

    def seconds(bf16: bool) -> float:
        def step() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                value = network(images).float().square().mean()
            value.backward()

        timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
        return min(timer.timeit(1).mean for _ in range(4))  # timeit runs it once before, for warming up

    return "bf16-mixed" if seconds(True) < seconds(False) else "32-true"


def _check_dataset(suite: Suite, dataset: Dataset) -> None:
    """What training needs of a data set and a network."""
    space, images = dataset.label_space, dataset.train.images
    config = suite.config
    if any(label.classes != {value} for value, label in enumerate(space.labels)):
        raise SuiteError(
            f"{suite.source}: data.name: Dice needs label values that are classes, "
            f"got the labels {[label.name for label in space.labels]} for the classes {list(space.classes)}"
        )
    if not dataset.validation.target.any():
        raise SuiteError(f"{suite.source}: data.drawn: the validation split shows no foreground, so no epoch is best")
    if config.augmentation.probability > 0 and images.ndim != 4:
        raise SuiteError(
            f"{suite.source}: augmentation.probability: must be 0, since images are changed in two dimensions only, "
            f"got {config.augmentation.probability} and images of shape {tuple(images.shape[1:])}"
        )
    with _blame(suite, "model"), torch.random.fork_rng():
        network = models.create(
            config.model.name,
            spatial_dims=images.ndim - 2,
            in_channels=images.shape[1],
            out_channels=space.num_classes,
            channels=config.model.channels,
        )
    with _blame(suite, f"model: {config.model.name} with channels {config.model.channels} cannot take the images"):
        network.eval()(images[:1])


def _check_strategy(suite: Suite, strategy: StrategyConfig, dataset: Dataset) -> None:
    """The loss with its options, and the names of the labels that may drop."""
    key = f"strategies.{strategy.name}"
    for name in (term.strip() for term in strategy.loss.split("+")):
        if name not in losses.names():
            hint = closest(name, losses.names())
            raise SuiteError(f"{suite.source}: {key}.loss: there is no loss {name!r}{hint}")
    with _blame(suite, f"{key}.loss_options"):
        train.make_loss(strategy, dataset.label_space)
    known = [label.name for label in dataset.label_space.labels[1:]]
    for name in strategy.dropout_classes or ():
        if name not in known:
            raise SuiteError(
                f"{suite.source}: {key}.dropout_classes: there is no foreground label {name!r}{closest(name, known)}"
            )


@contextmanager
def _blame(suite: Suite, key: str) -> Iterator[None]:
    """Say which key of which file an error comes from."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SuiteError(f"{suite.source}: {key}: {error}") from error
