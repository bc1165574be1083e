"""The schedule of a loss that learns how noisy labels are (McKinley et al. 2019, section 3).

Some epochs with the plain loss on the class logits alone, then the loss itself, then, if asked for, with sporadic
errors rejected. The paper's optimizer and learning rate (RMSprop, cosine annealing with restarts from 1e-4 to 1e-7
every 2000 steps) stand in the suite's `[training]` table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from labeldrop_bench import losses, records
from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.evaluate import Loss
from labeldrop_bench.losses import LabelFlip, SigmoidLoss
from labeldrop_bench.procedures.rejection import Rejection
from labeldrop_bench.records import RunConfig
from labeldrop_bench.train import Learner, fit

PLAIN = {"standard": "bce", "adaptive": "adaptive_bce", "smile": "smile"}  # by the rule of the noisy-label loss


class Options(BaseModel):
    """Options of the procedure.

    Attributes:
        warm_up: epochs with the plain loss; the paper takes 20 restarts.
        reject_from: first epoch before which sporadic errors are looked for; None never does. The paper waits for 100
            restarts after the warm-up.
        reject_every: epochs from one search to the next; the paper takes 20 restarts.
        threshold: flip probability below which a disagreement is a sporadic error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    warm_up: NonNegativeInt = 0
    reject_from: PositiveInt | None = None
    reject_every: PositiveInt = 20
    threshold: float = Field(default=1e-3, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _rejects_after_the_warm_up(self) -> Options:
        if self.reject_from is not None and self.reject_from <= self.warm_up:
            raise ValueError(
                f"reject_from must be an epoch after the warm-up, in which no flip probability is learnt: "
                f"got reject_from = {self.reject_from} with warm_up = {self.warm_up}"
            )
        return self


def check(options: Options, loss: Loss, config: RunConfig) -> None:
    """Raises ValueError if the loss learns no noise, or no flip probability where errors are to be rejected."""
    if not isinstance(loss, SigmoidLoss) or loss.channels_per_class != 2:
        raise ValueError(f"heteroscedastic needs label_flip or predictive_variance, got {type(loss).__name__}")
    if options.reject_from is not None and not isinstance(loss, LabelFlip):
        raise ValueError(f"heteroscedastic: reject_from needs label_flip, got {type(loss).__name__}")


def fits(options: Options) -> int:
    """One."""
    return 1


def train(
    options: Options,
    config: RunConfig,
    dataset: Dataset,
    directory: Path,
    fabric: Fabric,
    on_epoch: Callable[[Epoch], None],
) -> Fit:
    """One fit whose loss and samples change on the way; rejected.csv says how many pixels each search has found."""
    rejection = Rejection(options.reject_from, options.reject_every, options.threshold) if options.reject_from else None
    hook = Schedule(options.warm_up, rejection)
    best = fit(config, dataset, directory, fabric=fabric, on_epoch=on_epoch, hook=hook)
    if rejection is not None and rejection.found and fabric.is_global_zero:
        text = records.to_csv(list(rejection.found[0]), rejection.found)
        records.write_text(directory / "rejected.csv", text)
    return best


class Schedule:
    """A hook: the plain loss, then the loss itself, then with rejection.

    Args:
        warm_up: epochs with the plain loss.
        rejection: None to reject nothing.
    """

    def __init__(self, warm_up: int, rejection: Rejection | None = None) -> None:
        self.warm_up, self.rejection = warm_up, rejection
        self.full: Loss | None = None

    def before_epoch(self, epoch: int, learner: Learner) -> None:
        """Choose the loss; look for errors if it is time to."""
        self.full = self.full or learner.loss
        learner.loss = PlainLoss(self.full) if epoch <= self.warm_up else self.full
        if self.rejection is not None:
            self.rejection.before_epoch(epoch, learner)

    def state_dict(self) -> dict[str, Any]:
        """That of the rejection."""
        return self.rejection.state_dict() if self.rejection else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        if self.rejection is not None:
            self.rejection.load_state_dict(state)


class PlainLoss(nn.Module):
    """The loss with no noise in it, on the class logits of a network that gives noise logits as well.

    Args:
        full: label_flip or predictive_variance; whatever the plain loss has as well is taken over.
    """

    def __init__(self, full: Loss) -> None:
        super().__init__()
        assert isinstance(full, SigmoidLoss)  # noqa: S101 - `check` has seen to it
        self.full, self.out_channels = full, full.out_channels
        self.plain = losses.create(
            PLAIN[full.rule],
            label_space=full.label_space,
            base=full.base,
            gamma=full.gamma if full.base == "focal" else None,
            class_weights=full.class_weights,
            ignore_index=full.ignore_index,
            reduction=full.reduction,
            backend=full.backend,
        )

    def forward(self, logits: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
        """Scalar; `logits` [N, 2 (K-1), *spatial], target and annotated as for every loss."""
        value: Tensor = self.plain(logits[:, : self.out_channels // 2], target, annotated)
        return value

    def predict(self, logits: Tensor) -> Tensor:
        """As the full loss does."""
        return self.full.predict(logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """As the full loss does."""
        return self.full.probabilities(logits)

    def runs_on(self, device_type: str) -> bool:
        """As the full loss does."""
        return self.full.runs_on(device_type)
