"""Train one network by one strategy and score it: `train`, which reads from top to bottom.

What is random and where it comes from: a run's seed decides initial weights, order, augmentation and label dropout,
the data none of it. All strategies draw in the same order, so with one seed they start from the same weights and see
the same pictures. With a fixed number of threads a run on the CPU is repeatable bit for bit.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR

from labeldrop_bench import environment, losses, metrics, models, records
from labeldrop_bench.augment import Augmentation
from labeldrop_bench.data.base import Dataset, Samples
from labeldrop_bench.dropout import LabelDropout
from labeldrop_bench.errors import TrainingError
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.records import ResultRow, RunConfig, RunResult, StrategyConfig, SuiteConfig, TrainingConfig

METRIC = "dice"
IMAGES_AT_ONCE = 64  # in prediction


class Loss(Protocol):
    """What training needs of a registered loss, which is an `nn.Module` besides."""

    out_channels: int

    def __call__(self, logits: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
        """Scalar."""

    def predict(self, logits: Tensor) -> Tensor:
        """[n, *spatial] class map."""

    def runs_on(self, device_type: str) -> bool:
        """Whether it has what it needs on a type of device: "cpu" or "cuda"."""


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv.

    Attributes:
        epoch: counted from 1.
        loss: mean over the epoch's steps and over the processes.
        validation_dice: foreground Dice on what is annotated; None where this epoch was not validated.
        lr: learning rate after the last step.
        seconds: training and validation.
    """

    epoch: int
    loss: float
    validation_dice: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Best:
    """The epoch with the best validation Dice so far, and its weights on the CPU."""

    epoch: int
    dice: float
    weights: dict[str, Tensor]


def train(
    config: RunConfig,
    dataset: Dataset,
    directory: Path,
    *,
    fabric: Fabric,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> RunResult | None:
    """Train, take the best epoch by the validation split, score it on the test split, write the run's files.

    Args:
        config: everything the run needs; `sweep.prepare` has checked it.
        dataset: what `config.data` describes.
        directory: the run's own. result.json is written last: its presence says that the run is finished.
        fabric: device, precision and processes.
        on_epoch: called on the first process after every epoch.

    Returns:
        The result; None on every process but the first.

    Raises:
        TrainingError: the loss is not finite.
    """
    started = time.perf_counter()
    training, strategy, space = config.training, config.strategy, dataset.label_space
    dataset = everything_drawn(dataset) if strategy.full_labels else dataset
    samples = dataset.train

    Fabric.seed_everything(config.seed, verbose=False)
    loss_of = make_loss(strategy, space, fabric.device)
    network = make_network(config, dataset, loss_of)
    augment = Augmentation(config.augmentation)
    drop = make_dropout(strategy, space, fabric.device)
    model, optimizer = fabric.setup(network, make_optimizer(network, training))
    steps = steps_per_epoch(dataset, training)
    schedule = make_schedule(optimizer, training, steps * training.epochs)
    order = torch.Generator().manual_seed(config.seed)  # the same on every process
    torch.manual_seed(config.seed + (fabric.global_rank << 32))  # augmentation and dropout: each process its own

    best = Best(0, -1.0, {})
    history: list[Epoch] = []
    for epoch in range(1, training.epochs + 1):
        began = time.perf_counter()
        values = []
        model.train()
        for index in batches(len(samples), steps, order, fabric):
            images, target, annotated = fabric.to_device(take(samples, index))
            images, target = augment(images, target)
            loss = loss_of(model(images), target, drop(annotated))
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            schedule.step()
            values.append(loss.detach())
        mean = mean_loss(values, config, epoch, fabric)
        if not fabric.is_global_zero:
            continue  # the first process validates and writes; the others wait for it in the next step
        dice = None
        if epoch % training.validate_every == 0 or epoch == training.epochs:
            dice = validate(network, loss_of, dataset.validation, fabric)
            best = best if best.dice >= dice else Best(epoch, dice, copied_weights(network))
        history.append(Epoch(epoch, mean, dice, float(schedule.get_last_lr()[0]), time.perf_counter() - began))
        records.write_text(directory / "history.csv", history_csv(history))
        on_epoch(history[-1])

    if not fabric.is_global_zero:
        return None
    network.load_state_dict(best.weights)
    write_checkpoint(directory / "checkpoint.pt", best, config)
    result = RunResult(
        run=config.run,
        rows=score(network, loss_of, dataset, config, fabric),
        best_epoch=best.epoch,
        validation_dice=best.dice,
        seconds=time.perf_counter() - started,
        environment=environment.describe(fabric),
    )
    records.write_json(directory / "result.json", result)
    return result


def everything_drawn(dataset: Dataset) -> Dataset:
    """The data set of the upper bound: all ground truth there is takes the place of what was drawn."""

    def of(samples: Samples) -> Samples:
        return dataclasses.replace(samples, target=samples.truth, annotated=samples.truth_annotated)

    return dataclasses.replace(
        dataset, train=of(dataset.train), validation=of(dataset.validation), test=of(dataset.test)
    )


def label_values(space: LabelSpace, names: Sequence[str] | None) -> list[int] | None:
    """Label values by name; None stays None."""
    values = {label.name: value for value, label in enumerate(space.labels)}
    return None if names is None else [values[name] for name in names]


def make_loss(strategy: StrategyConfig, space: LabelSpace, device: torch.device | str = "cpu") -> Loss:
    """The strategy's loss with its options."""
    return cast(Loss, losses.create(strategy.loss, label_space=space, **strategy.loss_options).to(device))


def make_dropout(strategy: StrategyConfig, space: LabelSpace, device: torch.device) -> LabelDropout:
    """The strategy's label dropout; plain PyTorch, which draws the same, where there is no kernel for the device."""
    backend = "fused" if LabelDropout.runs_on(device.type) else "reference"
    return LabelDropout(strategy.dropout, label_values(space, strategy.dropout_classes), backend)


def make_network(config: RunConfig | SuiteConfig, dataset: Dataset, loss: Loss) -> nn.Module:
    """The configured network for the images of a data set, with as many outputs as the loss asks for."""
    images = dataset.train.images
    network = models.create(
        config.model.name,
        spatial_dims=images.ndim - 2,
        in_channels=images.shape[1],
        out_channels=loss.out_channels,
        channels=config.model.channels,
    )
    # Two-dimensional convolutions are faster with channels last: 59 against 73 ms a step of the quick suite's network
    if images.ndim == 4:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def make_optimizer(network: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (Islam et al. 2024, section 2)."""
    return torch.optim.SGD(
        network.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.momentum > 0,
        weight_decay=training.weight_decay,
        fused=True,  # 0.5 instead of 1.8 ms a step
    )


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig, steps: int) -> LRScheduler:
    """The learning rate over all steps of a run: up to its peak and down to nothing, or down as (1 - t)^0.9."""
    if training.schedule == "poly":
        return PolynomialLR(optimizer, total_iters=steps, power=0.9)
    # cycle_momentum off: the momentum stays what the suite says
    return OneCycleLR(optimizer, max_lr=training.learning_rate, total_steps=steps, cycle_momentum=False)


def steps_per_epoch(dataset: Dataset, training: TrainingConfig) -> int:
    """How many batches it takes to show every training sample once."""
    return math.ceil(len(dataset.train) / training.batch_size)


def batches(n: int, steps: int, order: torch.Generator, fabric: Fabric) -> Iterator[Tensor]:
    """Indices of this process's share of each batch.

    Every sample comes once; batches are of one size, give or take a sample, and so are the processes' shares.
    """
    for batch in torch.randperm(n, generator=order).tensor_split(steps):
        yield batch[fabric.global_rank :: fabric.world_size]


def take(samples: Samples, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a training step sees of some samples: images, target, annotated."""
    return samples.images[index], samples.target[index], samples.annotated[index]


def mean_loss(values: Sequence[Tensor], config: RunConfig, epoch: int, fabric: Fabric) -> float:
    """Mean of an epoch's losses; looked at once an epoch, so that no step waits for the device.

    Raises:
        TrainingError: one of them is not finite.
    """
    by_step = cast(Tensor, fabric.all_reduce(torch.stack(list(values)), reduce_op="mean")).cpu()
    wrong = (~by_step.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise TrainingError(
            f"run {config.run}: the loss is {by_step[wrong[0]].item()} in epoch {epoch}, step {wrong[0] + 1} of "
            f"{len(by_step)}: lower training.learning_rate (now {config.training.learning_rate}), or set "
            f"training.precision to '32-true' (now {config.training.precision!r})"
        )
    return float(by_step.double().mean())


def copied_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()}


@torch.inference_mode()
def predict(network: nn.Module, loss: Loss, images: Tensor, fabric: Fabric) -> Tensor:
    """Class maps [n, *spatial] int64, on the CPU."""
    network.eval()
    maps = []
    for chunk in torch.split(images, IMAGES_AT_ONCE):
        with fabric.autocast():
            logits = network(fabric.to_device(chunk))
        maps.append(loss.predict(logits).cpu())
    return torch.cat(maps)


def validate(network: nn.Module, loss: Loss, samples: Samples, fabric: Fabric) -> float:
    """Foreground Dice on what is annotated."""
    prediction = predict(network, loss, samples.images, fabric)
    return float(metrics.foreground_dice(prediction, samples.target, samples.annotated))


def score(network: nn.Module, loss: Loss, dataset: Dataset, config: RunConfig, fabric: Fabric) -> tuple[ResultRow, ...]:
    """Dice on the test split, for each domain and each class that has ground truth there."""
    test, training, classes = dataset.test, dataset.train, dataset.label_space.classes
    prediction = predict(network, loss, test.images, fabric)
    dice = metrics.dice_per_image(prediction, test.truth, len(classes))
    dice = dice.masked_fill(~test.truth_annotated, math.nan)
    rows = []
    for number, domain in enumerate(dataset.domains):
        here = test.domain == number
        for c in range(1, len(classes)):
            if not test.truth_annotated[here, c].any():
                continue
            defined = dice[here, c]
            defined = defined[~defined.isnan()]
            row = {
                "suite": config.suite,
                "run": config.run,
                "strategy": config.strategy.name,
                "loss": config.strategy.loss,
                "dropout": config.strategy.dropout,
                "seed": config.seed,
                "domain": domain,
                "class": classes[c],
                "annotated": bool(training.annotated[training.domain == number, c].any()),
                "metric": METRIC,
                "value": float(defined.mean()) if len(defined) else None,
                "n": len(defined),
            }
            rows.append(ResultRow.model_validate(row))
    return tuple(rows)


def history_csv(history: Sequence[Epoch]) -> str:
    """Epochs as the text of history.csv; an epoch that was not validated has an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(epoch) for epoch in history)
    return text.getvalue()


def write_checkpoint(path: Path, best: Best, config: RunConfig) -> None:
    """What `torch.load(path, weights_only=True)` gives back: {"weights", "epoch", "config"}, the last one as JSON."""
    content = io.BytesIO()
    torch.save({"weights": best.weights, "epoch": best.epoch, "config": config.model_dump_json()}, content)
    records.write_bytes(path, content.getvalue())
