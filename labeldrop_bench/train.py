"""Train one network: `fit`, which reads from top to bottom.

What is random and where it comes from: a run's seed decides initial weights, order, patches, augmentation and label
dropout, the data none of it. All strategies draw in the same order, so with one seed they start from the same weights
and see the same pictures. With a fixed number of threads a run on the CPU is repeatable bit for bit, also if it is
broken off and goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LRScheduler, OneCycleLR, PolynomialLR

from labeldrop_bench import checkpoints, losses, models
from labeldrop_bench.augment import make_augmentation
from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import IGNORED, Dataset, Samples
from labeldrop_bench.dropout import LabelDropout
from labeldrop_bench.errors import DivergenceError
from labeldrop_bench.evaluate import Loss, Predictor, validate
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import Patches, make_patches
from labeldrop_bench.records import ModelConfig, PatchConfig, RunConfig, StrategyConfig, TrainingConfig

__all__ = ["Epoch", "Fit", "Hook", "Learner", "fit"]


@dataclass
class Learner:
    """What a fit trains, and what its hook may exchange between epochs: the loss and the training samples.

    Attributes:
        network: as it is validated, without the wrapping for several processes.
        loss: of the next steps.
        samples: the training split.
        patches: what the network sees at once.
        fabric: device, precision and processes.
    """

    network: nn.Module
    loss: Loss
    samples: Samples
    patches: Patches
    fabric: Fabric

    @property
    def predictor(self) -> Predictor:
        """The network as it is now, to predict with."""
        return Predictor(self.network, self.loss, self.patches, self.fabric)


class Hook(Protocol):
    """What a procedure does inside a fit. It must do the same on every process."""

    def before_epoch(self, epoch: int, learner: Learner) -> None:
        """Called before each epoch, counted from 1."""

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on after a break: tensors, numbers and text."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take that back."""


def fit(
    config: RunConfig,
    dataset: Dataset,
    directory: Path,
    *,
    fabric: Fabric,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    hook: Hook | None = None,
) -> Fit:
    """Train, and take the best epoch by the validation split. What was broken off goes on; what is done is read back.

    Args:
        config: everything a run needs; `sweep.prepare` has checked it.
        dataset: what to train and validate on.
        directory: its own. checkpoint.pt is written last: its presence says that the fit is finished.
        fabric: device, precision and processes.
        on_epoch: called on the first process after every epoch.
        hook: what a procedure does between epochs.

    Returns:
        The best epoch, the same on every process.

    Raises:
        DivergenceError: the loss is not finite.
        TrainingError: a file to go on from cannot be read.
    """
    finished = checkpoints.read_best(directory)
    if finished is not None:
        return finished
    training = config.training
    Fabric.seed_everything(config.seed, verbose=False)
    learner = make_learner(config, dataset, fabric, everybody(fabric))
    steps = Steps(config, dataset, learner)
    torch.manual_seed(config.seed + (fabric.global_rank << 32))  # patches, augmentation, dropout: each process its own
    parts = {**steps.parts, **({"hook": hook} if hook else {})}
    progress = checkpoints.load_last(directory, parts, steps.order, fabric)

    for epoch in range(len(progress.history) + 1, training.epochs + 1):
        began = time.perf_counter()
        if hook is not None:
            hook.before_epoch(epoch, learner)
        mean = mean_loss(steps.epoch(learner), config, epoch, fabric)
        dice, truth = None, None
        if fabric.is_global_zero and (epoch % training.validate_every == 0 or epoch == training.epochs):
            dice, truth = validate(learner.predictor, dataset.validation, dataset.label_space)  # the others wait
            best = progress.best
            if best.epoch == 0 or math.isnan(best.dice) or dice > best.dice:
                progress.best = Fit(epoch, dice, copied_weights(learner.network))
        progress.history.append(Epoch(epoch, mean, dice, truth, steps.learning_rate, time.perf_counter() - began))
        if fabric.is_global_zero:
            checkpoints.write_history(directory, progress.history)
            fabric.call("on_epoch_end", directory, progress.history[-1])  # loggers
            on_epoch(progress.history[-1])
        if epoch % training.save_every == 0 and epoch < training.epochs:
            checkpoints.save_last(directory, parts, progress, steps.order, fabric)

    best = replace(progress.best, seconds=math.fsum(row.seconds for row in progress.history))
    best = fabric.broadcast(best)
    if fabric.is_global_zero:
        checkpoints.write_best(directory, best, config)
    fabric.barrier()
    return best


class Steps:
    """The training steps of a fit, an epoch at a time.

    Args:
        config: of the run.
        dataset: as for `fit`.
        learner: what is trained; its loss and samples may change from epoch to epoch.

    Attributes:
        order: draws the order of the samples, the same on every process.
        parts: what has a state that the next step depends on, by name.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, learner: Learner) -> None:
        fabric, training = learner.fabric, config.training
        self.per_image = config.patches.per_image
        self.number = steps_per_epoch(dataset, config)
        self.augment = make_augmentation(config.augmentation) if config.strategy.augmented else keep
        self.drop = make_dropout(config.strategy, dataset.label_space, fabric.device)
        self.model, self.optimizer = fabric.setup(learner.network, make_optimizer(learner.network, training))
        self.schedule = make_schedule(self.optimizer, training, self.number * training.epochs)
        self.order = torch.Generator().manual_seed(config.seed)
        self.parts = {"network": learner.network, "optimizer": self.optimizer, "schedule": self.schedule}

    def epoch(self, learner: Learner) -> Tensor:
        """Show every training sample; [steps], the loss of each."""
        fabric = learner.fabric
        # Made beforehand: a small tensor that stays from each step leaves gaps between large ones that go, which the
        # allocator does not fill again. They were 4 GiB in an epoch of 1200 steps.
        values = torch.empty(self.number, device=fabric.device)
        self.model.train()
        for step, index in enumerate(batches(len(learner.samples), self.number, self.per_image, self.order, fabric)):
            images, target, annotated = fabric.to_device(take(learner.samples, index, learner.patches))
            images, target = self.augment(images, target)
            loss = learner.loss(self.model(images), target, self.drop(annotated))
            self.optimizer.zero_grad()
            fabric.backward(loss)
            self.optimizer.step()
            self.schedule.step()
            values[step] = loss.detach()
        return values

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.schedule.get_last_lr()[0])


def everybody(fabric: Fabric) -> ProcessGroup | None:
    """All processes of a training, for a loss that looks at a whole batch; None if there is but one."""
    return torch.distributed.group.WORLD if fabric.world_size > 1 else None


def make_learner(
    config: RunConfig, dataset: Dataset, fabric: Fabric, process_group: ProcessGroup | None = None
) -> Learner:
    """Fresh weights, the strategy's loss, the training samples. With a group, all its processes call the loss."""
    loss = make_loss(config.strategy, dataset.label_space, fabric.device, process_group)
    network = make_network(config.model, config.patches, dataset, loss)
    return Learner(network, loss, dataset.train, make_patches(config.patches), fabric)


def label_values(space: LabelSpace, names: Sequence[str] | None) -> list[int] | None:
    """Label values by name; None stays None."""
    values = {label.name: value for value, label in enumerate(space.labels)}
    return None if names is None else [values[name] for name in names]


def make_loss(
    strategy: StrategyConfig,
    space: LabelSpace,
    device: torch.device | str = "cpu",
    process_group: ProcessGroup | None = None,
) -> Loss:
    """The strategy's loss with its options."""
    options = {"ignore_index": IGNORED, **strategy.loss_options}
    if process_group is not None and "process_group" in losses.options_of(strategy.loss):
        options["process_group"] = process_group
    return cast(Loss, losses.create(strategy.loss, label_space=space, **options).to(device))


def make_dropout(strategy: StrategyConfig, space: LabelSpace, device: torch.device) -> LabelDropout:
    """The strategy's label dropout; plain PyTorch, which draws the same, where there is no kernel for the device."""
    backend = "fused" if LabelDropout.runs_on(device.type) else "reference"
    return LabelDropout(strategy.dropout, label_values(space, strategy.dropout_classes), backend)


def make_network(config: ModelConfig, patches: PatchConfig, dataset: Dataset, loss: Loss) -> nn.Module:
    """The configured network for the images of a data set, with as many outputs as the loss asks for."""
    images = dataset.train.images
    network = models.create(
        config.name,
        spatial_dims=images.ndim - 2,
        in_channels=images.shape[1],
        out_channels=loss.out_channels,
        channels=config.channels,
        dropout=config.dropout,
    )
    # Two-dimensional convolutions are faster with channels last: 59 against 73 ms a step of the quick suite's network
    if images.ndim == 4:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def make_optimizer(network: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (Islam et al. 2024, section 2), RMSprop (McKinley et al. 2019, section 3) or AdamW.

    SGD and AdamW take a step in one kernel (`fused`), on the CPU as on CUDA: SGD 0.5 instead of 1.8 ms with the network
    of the quick suite. RMSprop has no such kernel.
    """
    weights, momentum = network.parameters(), training.momentum
    shared: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    if training.optimizer == "rmsprop":
        return torch.optim.RMSprop(weights, momentum=momentum, **shared)
    if training.optimizer == "adamw":
        return torch.optim.AdamW(weights, betas=(momentum, 0.999), fused=True, **shared)
    return torch.optim.SGD(weights, momentum=momentum, nesterov=momentum > 0, fused=True, **shared)


def make_schedule(optimizer: torch.optim.Optimizer, training: TrainingConfig, steps: int) -> LRScheduler:
    """The learning rate over all steps of a fit."""
    if training.schedule == "poly":
        return PolynomialLR(optimizer, total_iters=steps, power=0.9)
    if training.schedule == "cosine_restarts":
        return CosineAnnealingWarmRestarts(optimizer, training.restart_steps, eta_min=training.final_learning_rate)
    # cycle_momentum off: the momentum stays what the suite says
    return OneCycleLR(optimizer, max_lr=training.learning_rate, total_steps=steps, cycle_momentum=False)


def steps_per_epoch(dataset: Dataset, config: RunConfig) -> int:
    """How many batches it takes to show every training sample, `patches.per_image` times."""
    return math.ceil(len(dataset.train) * config.patches.per_image / config.training.batch_size)


def keep(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """No augmentation."""
    return images, target


def batches(n: int, steps: int, times: int, order: torch.Generator, fabric: Fabric) -> Iterator[Tensor]:
    """Indices of this process's share of each batch.

    Every sample comes so many times; batches are of one size, give or take a sample, and so are the processes' shares.
    """
    for batch in torch.randperm(n * times, generator=order).tensor_split(steps):
        yield batch[fabric.global_rank :: fabric.world_size] % n


def take(samples: Samples, index: Tensor, patches: Patches) -> tuple[Tensor, Tensor, Tensor]:
    """What a training step sees of some samples: images, target, annotated. Nothing else of the images is read."""
    return *patches.draw(samples, index), samples.annotated[index]


def mean_loss(values: Tensor, config: RunConfig, epoch: int, fabric: Fabric) -> float:
    """Mean of an epoch's losses; looked at once an epoch, so that no step waits for the device.

    Raises:
        DivergenceError: one of them is not finite.
    """
    by_step = cast(Tensor, fabric.all_reduce(values, reduce_op="mean")).cpu()
    wrong = (~by_step.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise DivergenceError(
            f"run {config.run}: the loss is {by_step[wrong[0]].item()} in epoch {epoch}, step {wrong[0] + 1} of "
            f"{len(by_step)}: lower training.learning_rate (now {config.training.learning_rate}), or set "
            f"training.precision to '32-true' (now {config.training.precision!r})"
        )
    return float(by_step.double().mean())


def copied_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: weight.detach().cpu().clone() for name, weight in network.state_dict().items()}
