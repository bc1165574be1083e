"""What a network predicts, and how well: validation while it trains, the test split at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from labeldrop_bench import metrics
from labeldrop_bench.data.arrays import Images
from labeldrop_bench.data.base import Dataset, Samples, class_lookup, known_classes
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.patches import Patches
from labeldrop_bench.records import (
    METRICS,
    MILLIMETRES,
    PIXELS,
    SOME_PIXELS,
    CaseRow,
    DistanceUnit,
    Example,
    ResultRow,
    RunConfig,
    ScoringConfig,
    sightings,
)

IMAGES_AT_ONCE = 64  # in prediction; volumes go one by one
PIXELS_AT_ONCE = 64 * 128 * 128  # fewer images if they are large: a network's features take some hundred times as much
STRIP = 1 << 24  # logits that are looked at together; a hundred classes of a volume have a hundred times as many


class Loss(Protocol):
    """What training needs of a registered loss, which is an `nn.Module` besides.

    `predict` and `probabilities` look at each pixel by itself: they get large images in strips.
    """

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

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Mean of the views."""
        first, *more = views = self.views(images)
        if not more:
            return first
        mean = first.clone()
        for view in more:
            mean += view
        return mean.div_(len(views))

    def classes(self, images: Images | Tensor) -> Iterator[Tensor]:
        """Class maps [m, *spatial] uint8 of any number of images, on the CPU, portion by portion."""
        self.network.eval()
        for part in portions(images):
            yield self._classes(self.logits(images[part]))

    def measured(
        self, images: Tensor, truth: Tensor, num_classes: int, bins: int, look: Callable[[Tensor], None]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class maps of a few images, and their calibration.

        Args:
            images: [n, channels, *spatial].
            truth: [n, *spatial] uint8 class map, or IGNORED.
            num_classes: K, background counted.
            bins: of the expected calibration error.
            look: is shown the logits, which are gone afterwards.

        Returns:
            [n, *spatial] uint8, and the two of `metrics.Calibration`, all on the CPU.
        """
        calibration, logits = metrics.Calibration(len(truth), num_classes, bins), self.logits(images)
        look(logits)
        classes = self._classes(logits)
        for strip in strips(logits):
            probabilities = self.loss.probabilities(logits[:, :, strip])[:, 1 - num_classes :]  # without background
            calibration.add(probabilities.cpu(), truth[:, strip])
        return classes, *calibration.result()

    def _classes(self, logits: Tensor) -> Tensor:
        """In a function of its own, so that the logits of one volume are gone when those of the next come."""
        return torch.cat([self.loss.predict(logits[:, :, s]).to(torch.uint8).cpu() for s in strips(logits)], 1)


def strips(logits: Tensor) -> list[slice]:
    """Cuts [n, channels, *spatial] along the first spatial axis into parts of about `STRIP` numbers."""
    rows = max(1, STRIP * logits.shape[2] // max(1, logits.numel()))
    return [slice(first, first + rows) for first in range(0, logits.shape[2], rows)]


def portions(images: Images | Tensor) -> list[slice]:
    """Which of the images [n, channels, *spatial] go through a network together; they cut all that lies beside."""
    fitting = max(1, PIXELS_AT_ONCE // math.prod(images.shape[2:]))
    size = min(IMAGES_AT_ONCE, fitting) if images.ndim <= 4 else 1
    return [slice(first, first + size) for first in range(0, len(images), size)]


def validate(predictor: Predictor, samples: Samples, space: LabelSpace) -> tuple[float, float]:
    """Foreground Dice against what is annotated, which is all that training may look at, and against the truth."""
    sides = (
        (samples.target.mapped(class_lookup(space)), known_classes(space, samples.annotated)),
        (samples.truth, samples.known),
    )
    dice = [_table(samples, space) for _ in sides]
    parts = portions(samples.images)
    for part, prediction in zip(parts, predictor.classes(samples.images), strict=True):
        for of, (maps, _) in zip(dice, sides, strict=True):
            of[part] = metrics.dice_per_image(prediction, maps[part], space.num_classes)
    annotated, truth = (float(metrics.mean_foreground(of, counts)) for of, (_, counts) in zip(dice, sides, strict=True))
    return annotated, truth


def score(
    predictor: Predictor, dataset: Dataset, config: RunConfig
) -> tuple[list[ResultRow], list[CaseRow], list[Example]]:
    """All metrics on the test split.

    A class is scored in the images whose truth of it is known, in domains where one of these shows it; where and how
    large it is predicted is recorded everywhere.

    Returns:
        Rows for each domain and class: of `METRICS` where there is truth, and of `SIGHTINGS`; a row for each case; and
        the examples that are kept: the first images of each domain, and what the network makes of them.
    """
    test, classes = dataset.test, dataset.label_space.classes
    of_domains = [(test.domain == d).nonzero().flatten().tolist() for d in range(len(dataset.domains))]
    kept = [i for indices in of_domains for i in indices[: config.scoring.examples]]
    examples: dict[int, Example] = {}

    def look(first: int, logits: Tensor) -> None:
        for i in kept:
            if first <= i < first + len(logits):
                examples[i] = _example(predictor.loss, dataset, i, logits[i - first : i - first + 1])

    values = measure(predictor, test, dataset.label_space, config.scoring, look)
    scored = _scored(dataset)
    values = {name: of.masked_fill(~scored, math.nan) if name in METRICS else of for name, of in values.items()}
    cases: dict[tuple[str, str], list[CaseRow]] = {}
    annotated, has_truth = {}, {}
    for number, (domain, here) in enumerate(zip(dataset.domains, of_domains, strict=True)):
        for c in range(1, len(classes)) if here else ():
            place = domain, classes[c]
            annotated[place] = _is_annotated(dataset, number, c)
            has_truth[place] = bool(test.known[here, c].any())
            cases[place] = [_case(test, i, place, {name: of[i, c].item() for name, of in values.items()}) for i in here]
    seen = sightings((case for of in cases.values() for case in of), annotated)
    rows = []
    for place, of_place in cases.items():
        of_metrics = {name: _mean([getattr(case, name) for case in of_place]) for name in METRICS}
        given = {**(of_metrics if has_truth[place] else {}), **seen[place]}
        rows += [_row(config, place, annotated[place], metric, *found) for metric, found in given.items()]
    return rows, [case for of_place in cases.values() for case in of_place], [examples[i] for i in kept]


def measure(
    predictor: Predictor,
    samples: Samples,
    space: LabelSpace,
    scoring: ScoringConfig,
    look: Callable[[int, Tensor], None] = lambda *_: None,
) -> dict[str, Tensor]:
    """Every metric of every class in every image, and "size", its pixels: name -> [n, K] float64 on the CPU.

    Args:
        predictor: what is measured.
        samples: and on what.
        space: classes.
        scoring: tolerances and bins.
        look: is shown the logits of each portion of images, and the number of the first of these.
    """
    tolerances = [scoring.tolerances.get(name, scoring.tolerance) for name in space.classes[1:]]
    in_mm = distance_unit(samples) == MILLIMETRES
    found = {name: _table(samples, space) for name in (*METRICS, "size")}
    predictor.network.eval()
    for part in portions(samples.images):
        truth = samples.truth[part]
        prediction, ece, brier = predictor.measured(
            samples.images[part], truth, space.num_classes, scoring.bins, partial(look, part.start)
        )
        hd95, nsd = metrics.surfaces_per_image(
            prediction, truth, space.num_classes, tolerances, spacing=samples.spacing[part] if in_mm else None
        )
        dice = metrics.dice_per_image(prediction, truth, space.num_classes)
        size = torch.stack([torch.bincount(image.flatten(), minlength=space.num_classes) for image in prediction])
        values = {"dice": dice, "hd95": hd95, "nsd": nsd, "ece": ece, "brier": brier, "size": size.double()}
        for name, of in found.items():
            of[part] = values[name]
    return found


def _table(samples: Samples, space: LabelSpace) -> Tensor:
    """[n, K] float64, to be filled portion by portion.

    Made beforehand: small tensors that stay between large ones that go leave gaps which the allocator does not fill
    again, of 0.1 MiB an image.
    """
    return torch.empty(len(samples), space.num_classes, dtype=torch.float64)


def distance_unit(samples: Samples) -> DistanceUnit:
    """Millimetres where the spacing of every image is known: a mean over two units would be of none."""
    unknown = samples.spacing.isnan().any(1)
    if bool(unknown.all()):
        return PIXELS
    return SOME_PIXELS if bool(unknown.any()) else MILLIMETRES


def check_scoring(scoring: ScoringConfig, space: LabelSpace) -> None:
    """Raises ValueError for a tolerance of a class that does not exist."""
    for name in scoring.tolerances:
        if name not in space.classes[1:]:
            close = get_close_matches(name, space.classes[1:], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(f"tolerances: there is no class {name!r}{hint} Known: {', '.join(space.classes[1:])}")


def _example(loss: Loss, dataset: Dataset, i: int, logits: Tensor) -> Example:
    """Of test image i with logits [1, channels, *spatial]; a map of flips shows the most likely one at each pixel."""
    test = dataset.test
    logits = logits[:, :, logits.shape[2] // 2] if logits.ndim == 5 else logits  # no more than is shown
    flips = getattr(loss, "flip_probability", None)
    maps = {} if flips is None else {"flip probability": _grey(flips(logits)[0].amax(0), 0.0, 1.0)}
    image = test.images[i][0]
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


def _scored(dataset: Dataset) -> Tensor:
    """[n, K] bool: which test images count for the scores of a class.

    The truth alone decides. With a class that no truth in a domain shows, one false positive would make a Dice of 0
    for the strategy that makes it, where the others have none.
    """
    test = dataset.test
    scored, shown = torch.zeros_like(test.known), test.truth.counts > 0
    for domain in range(len(dataset.domains)):
        for c in range(1, dataset.label_space.num_classes):
            known = test.known[:, c] & (test.domain == domain)
            scored[known, c] = bool(shown[known, c].any())
    return scored


def _case(test: Samples, i: int, place: tuple[str, str], values: dict[str, float]) -> CaseRow:
    scores = {name: _or_none(values[name]) for name in METRICS}
    of = {"case": test.cases[i], "patient": test.patients[i], "domain": place[0], "class": place[1]}
    return CaseRow.model_validate({**of, **scores, "size": int(values["size"])})


def _mean(values: list[float | None]) -> tuple[float | None, int]:
    """The mean over the images in which the metric is defined, and their number."""
    defined = [value for value in values if value is not None]
    return (math.fsum(defined) / len(defined) if defined else None), len(defined)


def _row(
    config: RunConfig, place: tuple[str, str], annotated: bool, metric: str, value: float | None, n: int
) -> ResultRow:
    strategy = config.strategy
    row = {
        "suite": config.suite,
        "run": config.run,
        "condition": config.condition,
        "strategy": strategy.name,
        "loss": strategy.loss,
        "dropout": strategy.dropout,
        "seed": config.seed,
        "domain": place[0],
        "class": place[1],
        "annotated": annotated,
        "metric": metric,
        "value": value,
        "n": n,
    }
    return ResultRow.model_validate(row)


def _is_annotated(dataset: Dataset, domain: int, c: int) -> bool:
    """Was the class annotated in any training sample of the domain?"""
    train = dataset.train
    return bool(known_classes(dataset.label_space, train.annotated)[train.domain == domain, c].any())


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
