"""What a network predicts, and how well: validation while it trains, the test split at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from labeldrop_bench import metrics
from labeldrop_bench.data.base import Dataset, Samples, class_map, known_classes
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import Patches
from labeldrop_bench.records import METRICS, CaseRow, Example, ResultRow, RunConfig, ScoringConfig

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
        return torch.cat([self.loss.predict(self.logits(images[part])).cpu() for part in portions(images)])


def portions(images: Tensor) -> list[slice]:
    """Which of the images [n, channels, *spatial] go through a network together; they cut all that lies beside."""
    size = IMAGES_AT_ONCE if images.ndim <= 4 else 1
    return [slice(first, first + size) for first in range(0, len(images), size)]


def validate(predictor: Predictor, samples: Samples, space: LabelSpace) -> tuple[float, float]:
    """Foreground Dice against what was drawn, which is all that training may look at, and against the truth."""
    prediction = predictor.classes(samples.images)
    drawn, truth = (
        metrics.foreground_dice(prediction, class_map(space, samples.target), known_classes(space, samples.annotated)),
        metrics.foreground_dice(prediction, samples.truth, samples.known),
    )
    return float(drawn), float(truth)


def score(predictor: Predictor, dataset: Dataset, config: RunConfig) -> tuple[list[ResultRow], list[CaseRow]]:
    """All metrics on the test split: for each domain and class that has ground truth there, and for each case."""
    test, classes = dataset.test, dataset.label_space.classes
    values = measure(predictor, test, dataset.label_space, config.scoring)
    rows, cases = [], []
    for number, domain in enumerate(dataset.domains):
        here = test.domain == number
        for c in range(1, len(classes)):
            scored = (here & test.known[:, c]).nonzero().flatten().tolist()
            if not scored:
                continue
            place = {"domain": domain, "class": classes[c]}
            drawn = _is_drawn(dataset, number, c)
            of = {metric: [_or_none(values[metric][i, c].item()) for i in scored] for metric in METRICS}
            rows += [_row(config, {**place, "metric": metric}, drawn, of[metric]) for metric in METRICS]
            for at, i in enumerate(scored):
                case = {"case": test.cases[i], "patient": test.patients[i]}
                metrics_of_case = {metric: of[metric][at] for metric in METRICS}
                cases.append(CaseRow.model_validate({**case, **place, **metrics_of_case}))
    return rows, cases


def measure(predictor: Predictor, samples: Samples, space: LabelSpace, scoring: ScoringConfig) -> dict[str, Tensor]:
    """Every metric of every class in every image: name -> [n, K] float64 on the CPU."""
    tolerances = [scoring.tolerances.get(name, scoring.tolerance) for name in space.classes[1:]]
    loss, parts = predictor.loss, []
    predictor.network.eval()
    for part in portions(samples.images):
        truth, logits = samples.truth[part], predictor.logits(samples.images[part])
        probabilities = loss.probabilities(logits)[:, -(space.num_classes - 1) :].cpu()  # without background
        prediction = loss.predict(logits).cpu()
        ece, brier = metrics.calibration_per_image(probabilities, truth, scoring.bins)
        hd95, nsd = metrics.surfaces_per_image(prediction, truth, space.num_classes, tolerances)
        dice = metrics.dice_per_image(prediction, truth, space.num_classes)
        parts.append({"dice": dice, "hd95": hd95, "nsd": nsd, "ece": ece, "brier": brier})
    return {name: torch.cat([part[name] for part in parts]) for name in METRICS}


def check_scoring(scoring: ScoringConfig, space: LabelSpace) -> None:
    """Raises ValueError for a tolerance of a class that does not exist."""
    for name in scoring.tolerances:
        if name not in space.classes[1:]:
            close = get_close_matches(name, space.classes[1:], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(f"tolerances: there is no class {name!r}{hint} Known: {', '.join(space.classes[1:])}")


def examples(predictor: Predictor, dataset: Dataset, number: int) -> list[Example]:
    """The first so many test images of each domain, and what the network makes of them."""
    test = dataset.test
    indices = [i for d in range(len(dataset.domains)) for i in (test.domain == d).nonzero().flatten()[:number].tolist()]
    predictor.network.eval()
    return [_example(predictor, dataset, i) for i in indices]


def _example(predictor: Predictor, dataset: Dataset, i: int) -> Example:
    """A flip-probability map shows the most likely flip of any class at a pixel."""
    test, loss = dataset.test, predictor.loss
    logits = predictor.logits(test.images[i : i + 1])
    flips = getattr(loss, "flip_probability", None)
    maps = {} if flips is None else {"flip probability": _grey(flips(logits)[0].amax(0), 0.0, 1.0)}
    image = test.images[i, 0].float()
    return Example(
        case=test.cases[i],
        domain=dataset.domains[int(test.domain[i])],
        classes=tuple(dataset.label_space.classes),
        image=_grey(image, image.min().item(), image.max().item()),
        truth=_slice(test.truth[i]),
        prediction=_slice(loss.predict(logits)[0]),
        maps=maps,
    )


def _grey(values: Tensor, low: float, high: float) -> NDArray[np.uint8]:
    return _slice((255 * (values - low) / max(high - low, 1e-12)).round().clamp(0, 255))


def _slice(values: Tensor) -> NDArray[np.uint8]:
    """[*spatial] as [H, W]; of a volume, its middle slice along the first axis."""
    flat = values[values.shape[0] // 2] if values.ndim == 3 else values
    array: NDArray[np.uint8] = flat.cpu().to(torch.uint8).numpy()
    return array


def _row(config: RunConfig, place: dict[str, str], drawn: bool, values: list[float | None]) -> ResultRow:
    """The mean over the images in which the metric is defined."""
    strategy = config.strategy
    defined = [value for value in values if value is not None]
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
