"""What a network predicts, and how well: validation while it trains, Dice on the test split at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from labeldrop_bench import metrics
from labeldrop_bench.data.base import Dataset, Samples, class_map, known_classes
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import Patches
from labeldrop_bench.records import CaseRow, ResultRow, RunConfig

METRIC = "dice"
IMAGES_AT_ONCE = 64  # in prediction; volumes go one by one


class Loss(Protocol):
    """What training needs of a registered loss, which is an `nn.Module` besides."""

    out_channels: int

    def __call__(self, logits: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
        """Scalar."""

    def predict(self, logits: Tensor) -> Tensor:
        """[n, *spatial] class map."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """[n, channels, *spatial]: what the class map is taken from."""

    def runs_on(self, device_type: str) -> bool:
        """Whether it has what it needs on a type of device: "cpu" or "cuda"."""


@dataclass(frozen=True)
class Predictor:
    """A network with all that it takes to predict."""

    network: nn.Module
    loss: Loss
    patches: Patches
    fabric: Fabric

    @torch.inference_mode()
    def views(self, images: Tensor) -> list[Tensor]:
        """Logits of a few images on the device, once for each view; float32 also where the network gives bf16."""
        with self.fabric.autocast():
            views = self.patches.views(self.network, self.fabric.to_device(images))
        return [logits.float() for logits in views]

    def logits(self, images: Tensor) -> Tensor:
        """Mean of the views."""
        views = self.views(images)
        return views[0] if len(views) == 1 else torch.stack(views).mean(0)

    def classes(self, images: Tensor) -> Tensor:
        """Class maps [n, *spatial] int64 of any number of images, on the CPU."""
        self.network.eval()
        return torch.cat([self.loss.predict(self.logits(chunk)).cpu() for chunk in chunks(images)])


def chunks(images: Tensor) -> tuple[Tensor, ...]:
    """Images in portions that go through a network together."""
    return torch.split(images, IMAGES_AT_ONCE if images.ndim <= 4 else 1)


def validate(predictor: Predictor, samples: Samples, space: LabelSpace) -> tuple[float, float]:
    """Foreground Dice against what was drawn, which is all that training may look at, and against the truth."""
    prediction = predictor.classes(samples.images)
    drawn, truth = (
        metrics.foreground_dice(prediction, class_map(space, samples.target), known_classes(space, samples.annotated)),
        metrics.foreground_dice(prediction, samples.truth, samples.known),
    )
    return float(drawn), float(truth)


def score(predictor: Predictor, dataset: Dataset, config: RunConfig) -> tuple[list[ResultRow], list[CaseRow]]:
    """Dice on the test split: for each domain and class that has ground truth there, and for each case."""
    test, classes = dataset.test, dataset.label_space.classes
    dice = metrics.dice_per_image(predictor.classes(test.images), test.truth, len(classes))
    rows, cases = [], []
    for number, domain in enumerate(dataset.domains):
        here = test.domain == number
        for c in range(1, len(classes)):
            scored = (here & test.known[:, c]).nonzero().flatten().tolist()
            if not scored:
                continue
            values = [dice[i, c].item() for i in scored]
            place = {"domain": domain, "class": classes[c], "metric": METRIC}
            rows.append(_row(config, place, _is_drawn(dataset, number, c), values))
            for i, value in zip(scored, values, strict=True):
                case = {"case": test.cases[i], "patient": test.patients[i], "value": _or_none(value)}
                cases.append(CaseRow.model_validate({**case, **place}))
    return rows, cases


def _row(config: RunConfig, place: dict[str, str], drawn: bool, values: list[float]) -> ResultRow:
    """The mean over the images in which Dice is defined."""
    strategy = config.strategy
    defined = [value for value in values if not math.isnan(value)]
    row = {
        "suite": config.suite,
        "run": config.run,
        "condition": config.condition,
        "strategy": strategy.name,
        "loss": strategy.loss,
        "dropout": strategy.dropout,
        "seed": config.seed,
        "annotated": drawn,
        "value": math.fsum(defined) / len(defined) if defined else None,
        "n": len(defined),
    }
    return ResultRow.model_validate({**row, **place})


def _is_drawn(dataset: Dataset, domain: int, c: int) -> bool:
    """Was the class drawn in any training sample of the domain?"""
    train = dataset.train
    return bool(known_classes(dataset.label_space, train.annotated)[train.domain == domain, c].any())


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
