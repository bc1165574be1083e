"""Sporadic-error rejection (McKinley et al. 2019, sections 2 and 3).

A sporadic error is a pixel whose label the network disagrees with although it thinks a wrong label there very unlikely:
p > 0.5 is not the label, and the flip probability q is below a threshold, in every view that is evaluated. Such
pixels are left out of training until the next search, which starts from the labels as annotated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from labeldrop_bench.data.base import IGNORED, Samples
from labeldrop_bench.evaluate import portions
from labeldrop_bench.losses import LabelFlip
from labeldrop_bench.train import Learner


class Rejection:
    """A hook that masks sporadic errors.

    The mask, and the label maps in which it masks something, are kept in memory, each a byte a pixel: they alone grow
    with the data set.

    Args:
        first: epoch before which errors are looked for first.
        every: epochs from one search to the next.
        threshold: of the flip probability.
    """

    def __init__(self, first: int, every: int, threshold: float) -> None:
        self.first, self.every, self.threshold = first, every, threshold
        self.samples: Samples | None = None  # as they were before anything was masked
        self.mask: Tensor | None = None
        self.found: list[dict[str, float]] = []  # of each search: epoch, pixels, share of the training pixels

    def before_epoch(self, epoch: int, learner: Learner) -> None:
        """Search if it is time to; otherwise what was found last stays masked."""
        self.samples = self.samples or learner.samples
        if epoch >= self.first and (epoch - self.first) % self.every == 0:
            # One process looks for all: running statistics of batch norm differ between processes, and so would masks
            fabric = learner.fabric
            mask = sporadic_errors(learner, self.samples, self.threshold) if fabric.is_global_zero else None
            mask = cast(Tensor, fabric.broadcast(mask))
            self.mask, pixels = mask, int(mask.sum())
            self.found.append({"epoch": epoch, "pixels": pixels, "share": pixels / mask.numel()})
        if self.mask is not None:
            of = self.samples.target
            masked = {i: of[i].masked_fill(self.mask[i], IGNORED) for i in range(len(of)) if self.mask[i].any()}
            learner.samples = replace(self.samples, target=of.replaced(masked))

    def state_dict(self) -> dict[str, Any]:
        """The pixels that are masked, and what each search has found."""
        return {} if self.mask is None else {"mask": self.mask, "found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.mask, self.found = state.get("mask"), state.get("found", [])


def sporadic_errors(learner: Learner, samples: Samples, threshold: float) -> Tensor:
    """[n, *spatial] bool: pixels with a label that the network thinks wrong, and did not expect to be.

    A pixel is left out for all classes if one of its class terms is such an error; terms that the rule leaves out are
    none.
    """
    loss = learner.loss
    assert isinstance(loss, LabelFlip)  # noqa: S101 - `heteroscedastic.check` has seen to it
    learner.network.eval()
    found = []
    for part in portions(samples.images):
        candidates, active = (row.cpu() for row in loss.table(samples.annotated[part].to(learner.fabric.device)))
        labels = samples.target[part]
        counts = labels != IGNORED
        labels = labels.masked_fill(~counts, 0).long()
        expected, is_active = (_looked_up(table, labels) for table in (candidates, active))
        wrong = is_active & counts[:, None]
        for logits in learner.predictor.views(samples.images[part]):
            disagrees = (loss.probabilities(logits).cpu() > 0.5) != expected
            wrong = wrong & disagrees & (loss.flip_probability(logits).cpu() < threshold)
        found.append(wrong.any(dim=1))
    return torch.cat(found)


def _looked_up(table: Tensor, labels: Tensor) -> Tensor:
    """[n, K - 1, *spatial] from a table [n, L, K - 1] by label values [n, *spatial]."""
    rows = torch.stack([entry[values] for entry, values in zip(table, labels, strict=True)])
    return rows.movedim(-1, 1)
