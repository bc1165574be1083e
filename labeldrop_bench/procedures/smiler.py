"""SMILEr: train, label what is certain of the missing classes, train anew with these labels, and again.

Petit, Thome et al. 2018 (algorithm 1). Round t of T: wherever class k is not covered by an annotated label, the pixels
that the last model takes for k are ranked, and the top gamma_t = t / T gamma become positives of k; all others stay
ignored. Then a new network is trained. Positives of earlier rounds stay.

The self-made labels are labels of their own, non-exhaustive ones: a pixel of "LA (self-made)" is LA, and a background
pixel beside it may be LA as well. So no loss changes; the rule `smile` does what the scheme asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from labeldrop_bench import rules
from labeldrop_bench.checkpoints import Epoch, Fit
from labeldrop_bench.data.base import Dataset, Samples
from labeldrop_bench.evaluate import Loss, Predictor
from labeldrop_bench.label_space import Label, LabelSpace
from labeldrop_bench.records import RunConfig
from labeldrop_bench.train import fit, make_learner


class Options(BaseModel):
    """Options of the procedure.

    Attributes:
        rounds: T, of labelling and training anew after the first training.
        gamma: share of the predicted positives that the last round takes.
        ranking: "score": the highest probability first; "deviation": the lowest standard deviation of the probability
            over Monte-Carlo passes with the network's dropout (Gal and Ghahramani 2016) first.
        passes: of the Monte-Carlo estimate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rounds: PositiveInt = 3
    gamma: float = Field(default=1.0, gt=0, le=1)
    ranking: Literal["score", "deviation"] = "score"
    passes: PositiveInt = 10


def check(options: Options, loss: Loss, config: RunConfig) -> None:
    """Raises ValueError if the loss has no probability for each class on its own, or the network no dropout to use."""
    if getattr(loss, "activation", None) != "sigmoid":
        raise ValueError(f"smiler needs a loss of the sigmoid family, such as smile, got {type(loss).__name__}")
    if options.ranking == "deviation" and config.model.dropout == 0:
        raise ValueError("smiler: ranking = 'deviation' needs a network with dropout: set model.dropout above 0")


def fits(options: Options) -> int:
    """The first training and one for each round."""
    return 1 + options.rounds


def train(
    options: Options,
    config: RunConfig,
    dataset: Dataset,
    directory: Path,
    fabric: Fabric,
    on_epoch: Callable[[Epoch], None],
) -> Fit:
    """All rounds. Each has a folder of its own but the last, so that finished rounds are not done again."""
    dataset = with_self_made_labels(dataset)
    result = fit(config, dataset, directory / "round0", fabric=fabric, on_epoch=on_epoch)
    seconds = [result.seconds]
    for t in range(1, options.rounds + 1):
        learner = make_learner(config, dataset, fabric)
        learner.network.load_state_dict(result.weights)
        fabric.to_device(learner.network)
        share = options.gamma * t / options.rounds
        dataset = replace(dataset, train=labelled(dataset, learner.predictor, share, options))
        here = directory if t == options.rounds else directory / f"round{t}"
        result = fit(config, dataset, here, fabric=fabric, on_epoch=on_epoch)
        seconds.append(result.seconds)
    return replace(result, seconds=math.fsum(seconds))


def with_self_made_labels(dataset: Dataset) -> Dataset:
    """The data set with a non-exhaustive label more for each foreground class; class k's is L - 1 + k."""
    space = dataset.label_space
    more = tuple(
        Label(f"{name} (self-made)", frozenset({c}), exhaustive=False)
        for c, name in enumerate(space.classes[1:], start=1)
    )

    def wider(samples: Samples) -> Samples:
        none = torch.zeros(len(samples), len(more), dtype=torch.bool)
        return replace(samples, annotated=torch.cat([samples.annotated, none], dim=1))

    return dataset.map(wider, LabelSpace(space.classes, space.labels + more))


def labelled(dataset: Dataset, predictor: Predictor, share: float, options: Options) -> Samples:
    """The training samples with the most certain positives of the unannotated classes as self-made labels.

    The label maps that hold such labels are kept in memory, a byte a pixel: they alone grow with the data set.

    Args:
        dataset: with self-made labels in its label space.
        predictor: of the last round.
        share: gamma_t, of the positives of each class in each image.
        options: how to rank.
    """
    samples, space = dataset.train, dataset.label_space
    first = space.num_labels - space.num_classes  # label value of class k's self-made label is first + k
    covered = rules.covered_classes(samples.annotated, *rules.membership(space))
    annotated, changed = samples.annotated.clone(), {}
    torch.manual_seed(0)  # of the Monte-Carlo passes: a round that is looked at again gives the same labels
    for i, image in enumerate(samples.images):
        missing = (~covered[i]).nonzero().flatten().tolist()
        if not missing:
            continue
        probability, certainty = certainties(predictor, image[None], options)
        before = samples.target[i]
        made = positives(probability, certainty, before == 0, missing, share)
        if not made.any():
            continue
        changed[i] = torch.where(made > 0, made + first, before.long()).to(torch.uint8)
        for k in made.unique().tolist():
            annotated[i, first + k] |= k > 0
    return replace(samples, target=samples.target.replaced(changed), annotated=annotated)


def certainties(predictor: Predictor, image: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """Probability and certainty (any scale, more is surer) of one image, each [K - 1, *spatial] float32 on the CPU."""
    predictor.network.eval()
    probability = _probability(predictor, image)
    if options.ranking == "score":
        return probability, probability
    for module in predictor.network.modules():
        if isinstance(module, _DropoutNd):
            module.train()
    mean, squares = torch.zeros(2, *probability.shape)
    for number in range(1, options.passes + 1):  # Welford's sums: a pass has a number for each class and pixel
        one = _probability(predictor, image)
        change = one - mean
        mean += change / number
        squares += change * (one - mean)
    return probability, -(squares / options.passes).clamp_(min=0).sqrt()


def _probability(predictor: Predictor, image: Tensor) -> Tensor:
    return predictor.loss.probabilities(predictor.logits(image))[0].cpu()


def positives(probability: Tensor, certainty: Tensor, free: Tensor, missing: list[int], share: float) -> Tensor:
    """The class that each pixel is newly labelled with, [*spatial] int64; 0 for none.

    Args:
        probability: [K - 1, *spatial]; above 0.5 is a predicted positive. A pixel that is one of two classes goes to
            the likelier one.
        certainty: the same shape; the most certain come first.
        free: [*spatial] bool, pixels that no label has taken yet.
        missing: classes that are unannotated in the image.
        share: of each class's predicted positives; rounded up to whole pixels.
    """
    made = torch.zeros(free.shape, dtype=torch.long)
    likelihood = torch.full(free.shape, 0.5)
    for k in missing:
        found = (probability[k - 1] > 0.5).flatten().nonzero().flatten()
        order = certainty[k - 1].flatten()[found].argsort(descending=True, stable=True)
        chosen = torch.zeros(free.numel(), dtype=torch.bool)
        chosen[found[order[: math.ceil(share * len(found))]]] = True
        takes = chosen.view(free.shape) & free & (probability[k - 1] > likelihood)
        made = torch.where(takes, k, made)
        likelihood = torch.where(takes, probability[k - 1], likelihood)
    return made
