"""What a strategy's loss costs in a training step of a run: time and memory."""

from __future__ import annotations

import statistics
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labeldrop_bench.data.base import Dataset
from labeldrop_bench.records import RunConfig, StepCost
from labeldrop_bench.speed import memory
from labeldrop_bench.speed.timing import step_seconds
from labeldrop_bench.train import Learner, make_dropout, take

ROUNDS, BUDGET = 15, 2.0  # steps that are timed, fewer if they take longer than so many seconds


def step_cost(learner: Learner, config: RunConfig, dataset: Dataset) -> StepCost:
    """Label dropout, loss and the gradient to the logits, on a batch of the run's size and the network's own logits.

    Time is that of the process as it is, with other runs beside it if the suite has them run side by side. Memory on
    CUDA is what torch's allocator counts; on the CPU, the tensors that torch's operators return, while they live.
    """
    fabric, loss = learner.fabric, learner.loss
    index = torch.arange(min(config.training.batch_size, len(dataset.train)))
    images, target, annotated = fabric.to_device(take(dataset.train, index, learner.patches))
    with torch.no_grad(), fabric.autocast():
        logits = learner.network.eval()(images).detach().requires_grad_()
    drop = make_dropout(config.strategy, dataset.label_space, fabric.device)

    def step() -> None:
        logits.grad = None
        loss(logits, target, drop(annotated)).backward()

    first, _ = step_seconds(step, fabric.device), step_seconds(step, fabric.device)
    rounds = max(1, min(ROUNDS, int(BUDGET / max(first, 1e-6))))
    seconds = statistics.median(step_seconds(step, fabric.device) for _ in range(rounds))
    logits.grad = None
    return StepCost(
        seconds=seconds, peak_bytes=peak_bytes(step, fabric.device), rounds=rounds, shape=tuple(logits.shape)
    )


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """Run a step; the most memory in bytes that its tensors held at once beyond what was there before."""
    on_device = memory.peak_bytes(step, device) if device.type == "cuda" else None
    if on_device is not None:
        return on_device
    live = LiveBytes()
    with live:
        step()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators return, from when they are returned until they are freed.

    What an operator takes for itself and gives back before it returns is not seen, nor are storages that were there
    before and come back as views.

    Attributes:
        peak: the most bytes that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        kwargs = kwargs or {}
        given = {id_ for id_ in map(_storage, tree_leaves((args, kwargs))) if id_ is not None}
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            number = _storage(leaf)
            if number is not None and number not in given | self._known:
                self._count(leaf.untyped_storage(), number)
        return result

    def _count(self, storage: torch.UntypedStorage, number: int) -> None:
        size = storage.nbytes()
        self._known.add(number)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._freed, number, size)

    def _freed(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._live -= size


def _storage(leaf: object) -> int | None:
    return leaf.untyped_storage()._cdata if isinstance(leaf, Tensor) else None
