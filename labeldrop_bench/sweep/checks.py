"""Everything that can be wrong with a suite is found here, before anything is trained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import BaseModel, ValidationError

from labeldrop_bench import data, losses, procedures, train
from labeldrop_bench.data.base import Dataset, DatasetInfo, class_lookup, known_classes
from labeldrop_bench.data.check import never_shown
from labeldrop_bench.data.edits import edited
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.evaluate import check_scoring
from labeldrop_bench.patches import make_patches
from labeldrop_bench.records import DataConfig, RunConfig, StrategyConfig, SuiteConfig, closest, explain
from labeldrop_bench.run import own_labels, unknown_to_full
from labeldrop_bench.suites import Suite

Precision = Literal["bf16-mixed", "32-true"]


class Prepared:
    """A suite that has passed every check.

    Args:
        config: the suite; `data` has the data set's own defaults filled in.
        base: the data set as it is read, by the data set's own options.

    Attributes:
        config: as above.
        notes: what a person should know before anything is trained.
    """

    def __init__(self, config: SuiteConfig, base: Callable[[DataConfig], Dataset]) -> None:
        self.config, self._base = config, base
        self.notes: list[str] = []
        self._last: tuple[DataConfig, Dataset] | None = None

    def dataset(self, run: RunConfig) -> Dataset:
        """What a run trains on. The last one is kept, since runs of one condition follow one another."""
        if self._last is None or self._last[0] != run.data:
            self._last = None  # before the next one is made: two may not fit into memory
            self._last = (run.data, edited(self._base(run.data), run.data))
        return self._last[1]

    @property
    def first(self) -> tuple[RunConfig, Dataset]:
        """The first run and its data set."""
        run = self.config.runs()[0]
        return run, self.dataset(run)


def prepare(suite: Suite) -> Prepared:
    """Load the data set, and check every name and value of a suite that has to do with registered things.

    Raises:
        SuiteError: names the file, the key, and the closest match.
    """
    config = suite.config
    with _blame(suite, "data.name"):
        info = data.get(config.data.name)
    checked_options(suite, info, config.data.options, "data.")
    filled = _filled(config.data, info)
    base: dict[str, Dataset] = {}

    def load(table: DataConfig) -> Dataset:
        options = info.options.model_validate(table.options)
        key = options.model_dump_json()
        if key not in base:
            base.clear()  # conditions with other options follow one another
            base[key] = info.load(options)
        return base[key]

    prepared = Prepared(config.model_copy(update={"data": filled}), load)
    for condition in dict.fromkeys(run.condition for run in prepared.config.runs()):
        _check_condition(suite, prepared, info, condition)
    return prepared


def checked_options(suite: Suite, info: DatasetInfo, options: dict[str, Any], prefix: str) -> BaseModel:
    """A data set's own options.

    Raises:
        SuiteError: names the key, under a prefix, and the closest match.
    """
    try:
        return info.options.model_validate(options)
    except ValidationError as error:
        raise SuiteError(
            f"{suite.source}: {explain(error, info.options, options, prefix, DataConfig.model_fields)}"
        ) from error


def _filled(config: DataConfig, info: DatasetInfo) -> DataConfig:
    """The table with the data set's own defaults filled in."""
    options = info.options.model_validate(config.options).model_dump(mode="json")
    return DataConfig.model_validate({**config.model_dump(), **options})


def _check_condition(suite: Suite, prepared: Prepared, info: DatasetInfo, condition: str) -> None:
    """One run of each strategy stands for all its seeds."""
    runs = [run for run in prepared.config.runs() if run.condition == condition]
    prefix = f"conditions.{condition}." if condition else ""
    checked_options(suite, info, runs[0].data.options, f"{prefix}data.")
    with _blame(suite, f"{prefix}data"):
        dataset = prepared.dataset(runs[0])
    prepared.notes += [f"{f'{condition}: ' if condition else ''}{line}" for line in never_shown(dataset)]
    with _blame(suite, "scoring"):
        check_scoring(runs[0].scoring, dataset.label_space)
    for run in {run.strategy.name: run for run in runs}.values():
        _check_strategy(suite, run, dataset)
        if run.strategy.full_labels and (unknown := unknown_to_full(dataset)):
            prepared.notes.append(
                f"{f'{condition}: ' if condition else ''}full is no upper bound here: nobody annotated "
                f"{', '.join(unknown)}, which the losses that want all labels take for background there"
            )
    _check_run(suite, runs[0], dataset, prefix)


def choose_device(device: str, prepared: Prepared) -> str:
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
    _, dataset = prepared.first
    not_there = [
        s.name for s in prepared.config.strategies if not train.make_loss(s, dataset.label_space).runs_on("cuda")
    ]
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


def _check_run(suite: Suite, run: RunConfig, dataset: Dataset, prefix: str) -> None:
    """What training needs of a data set and a network."""
    space, validation = dataset.label_space, dataset.validation
    shown = validation.target.mapped(class_lookup(space)).counts[:, : space.num_classes] > 0
    if not (shown & known_classes(space, validation.annotated))[:, 1:].any():
        raise SuiteError(
            f"{suite.source}: {prefix}data: the validation split shows no class that is annotated as a label of its "
            f"own, so no epoch is best: leave it more labels, or take other samples"
        )
    with _blame(suite, f"{prefix}patches"):
        patches = make_patches(run.patches)
        axes, images = len(run.patches.size), dataset.train.images
        volume = 3 if run.patches.kind == "slab" else axes or images.ndim - 2
        if images.ndim - 2 != volume:
            raise ValueError(
                f"{run.patches.kind} of {axes} axes does not fit images of shape {tuple(images.shape[2:])}"
            )
        with torch.random.fork_rng():
            seen, target = patches.draw(dataset.train, torch.tensor([0]))
    with _blame(suite, f"{prefix}model"), torch.random.fork_rng():
        loss = train.make_loss(run.strategy, dataset.label_space)
        network = train.make_network(run.model, run.patches, dataset, loss).eval()
    shape = tuple(seen.shape[2:])
    cannot = f"{prefix}model: {run.model.name} with channels {list(run.model.channels)} cannot take {shape} images"
    with _blame(suite, cannot), torch.inference_mode():
        given = tuple(network(seen).shape)
    if given != (wanted := (1, loss.out_channels, *target.shape[1:])):
        raise SuiteError(
            f"{suite.source}: {prefix}model: {run.model.name} makes logits of shape {given} from {shape} images, and "
            f"patches of kind {run.patches.kind!r} need {wanted}"
        )
    check_batches(suite, run, dataset, prefix=prefix)


def check_batches(suite: Suite, run: RunConfig, dataset: Dataset, *, processes: int = 1, prefix: str = "") -> None:
    """See that the network can be trained on a process's share of the smallest batch that will come.

    Batch norm cannot normalise a single value of a channel: what is left of one sample where the coarsest features are
    one pixel. With two samples it can, whatever their size, so no more than two are tried.

    Args:
        suite: for the message.
        run: of the condition.
        dataset: of the run.
        processes: that share every batch.
        prefix: dotted key of the condition's tables.

    Raises:
        SuiteError: a process gets no sample, or the network cannot be trained on its share.
    """
    shown, size = len(dataset.train) * run.patches.per_image, min(point.batch_size for point in run.training.points())

    def share(size: int) -> int:
        return shown // math.ceil(shown / size) // processes

    where = f"{suite.source}: {prefix}training.batch_size: {size} gives batches of {shown // math.ceil(shown / size)}"
    if share(size) < 1:
        raise SuiteError(
            f"{where}, and each of the {processes} processes needs a sample: make it larger, or start fewer processes"
        )
    with torch.random.fork_rng(), torch.no_grad():
        network = train.make_network(
            run.model, run.patches, dataset, train.make_loss(run.strategy, dataset.label_space)
        )
        one, _ = make_patches(run.patches).draw(dataset.train, torch.tensor([0]))
        try:
            network.train()(one.expand(min(share(size), 2), *one.shape[1:]))
        except (ValueError, RuntimeError) as error:
            larger = next((s for s in range(size, shown + 1) if share(s) > 1), None)
            remedy = f"set it to {larger}, or take" if larger and share(size) == 1 else "take"
            raise SuiteError(
                f"{where}, and {run.model.name} with channels {list(run.model.channels)} cannot be trained on "
                f"{share(size)} of {tuple(one.shape[2:])} at a time: {remedy} larger images or patches, or fewer "
                f"levels in model.channels ({error})"
            ) from error


def _check_strategy(suite: Suite, run: RunConfig, dataset: Dataset) -> None:
    """The loss with its options, the procedure, and the names of the labels that may drop."""
    strategy = run.strategy
    key = f"{f'conditions.{run.condition}: ' if run.condition else ''}strategies.{strategy.name}"
    for name in (term.strip() for term in strategy.loss.split("+")):
        with _blame(suite, f"{key}.loss"):
            losses.info(name)
    with _blame(suite, f"{key}.loss_options"):
        loss = train.make_loss(strategy, dataset.label_space)
    with _blame(suite, f"{key}.procedure"):
        _procedure(suite, strategy, key).check(loss, run)
    if strategy.full_labels:
        with _blame(suite, f"{key}.full_labels"):
            own_labels(dataset.label_space)
    known = [label.name for label in dataset.label_space.labels[1:]]
    for name in strategy.dropout_classes or ():
        if name not in known:
            raise SuiteError(
                f"{suite.source}: {key}.dropout_classes: there is no foreground label {name!r}{closest(name, known)}"
            )


def _procedure(suite: Suite, strategy: StrategyConfig, key: str) -> procedures.Procedure:
    """The procedure of a strategy.

    Raises:
        SuiteError: one of its options, which it names.
        ValueError: there is no such procedure.
    """
    try:
        return procedures.make(strategy)
    except ValidationError as error:
        table = dict(strategy.procedure or {})
        options = procedures.REGISTRY.get(table.pop("name")).options
        raise SuiteError(f"{suite.source}: {explain(error, options, table, f'{key}.procedure.')}") from error


@contextmanager
def _blame(suite: Suite, key: str) -> Iterator[None]:
    """Say which key of which file an error comes from."""
    try:
        yield
    except SuiteError:
        raise  # says it already
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SuiteError(f"{suite.source}: {key}: {error}") from error
