"""Metrics that leave out what nobody annotated."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics.metric import CumulativeIterationMetric, IterationMetric
from torch import Tensor

from ._annotated import for_samples, of_metadata


class AnnotatedOnly(CumulativeIterationMetric):
    """A metric of MONAI's in which a class that was not annotated in a case counts for nothing there.

    Its score becomes NaN, which MONAI leaves out of every reduction and of `get_not_nans`. MONAI itself leaves out what
    the truth does not show (`ignore_empty=True`), and so also a class that was annotated, is nowhere, and is predicted.

    What was annotated is `y.meta["annotated"]`, of the batch or of each of its decollated samples, or is given.

    Args:
        metric: one that scores each class by itself: its values are `[N, C, ...]`, C being K, or K - 1 without
            background. `DiceMetric`, `MeanIoU`, `HausdorffDistanceMetric`, `ConfusionMatrixMetric` and their kin.

    Raises:
        TypeError: no metric that accumulates.
    """

    def __init__(self, metric: CumulativeIterationMetric) -> None:
        if not isinstance(metric, CumulativeIterationMetric):
            raise TypeError(f"AnnotatedOnly: metric must be a CumulativeIterationMetric of MONAI's, got {metric!r}")
        self.metric = metric
        super().__init__()

    def __call__(  # type: ignore[override]
        self,
        y_pred: Any,  # noqa: ANN401 - a tensor or a list of them
        y: Any,  # noqa: ANN401
        annotated: Tensor | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Tensor:
        """Score a batch, and keep the scores.

        Args:
            y_pred: `[N, C, *spatial]`, or a list of `[C, *spatial]`.
            y: the truth in the same form.
            annotated: `[N, K]` bool; None is what the metadata of `y` say.
            **options: of the metric.

        Raises:
            ValueError: nothing says what was annotated, or the metric does not score class by class.
        """
        values: Any = IterationMetric.__call__(self.metric, y_pred=y_pred, y=y, **options)
        rows = _annotated(y, annotated, len(y_pred))
        scores = list(values.shape) if isinstance(values, Tensor) else [type(values).__name__]
        if scores[0] != len(rows) or scores[1:2] not in ([rows.shape[1]], [rows.shape[1] - 1]):
            raise ValueError(
                f"AnnotatedOnly: annotated must be [N, K], and {type(self.metric).__name__} must score each class of "
                f"each case by itself, [N, K, ...] or without background [N, K - 1, ...], got {list(rows.shape)} and "
                f"scores {scores}"
            )
        rows = rows[:, rows.shape[1] - values.shape[1] :].to(values.device)
        kept: Tensor = torch.where(rows.reshape(*rows.shape, *[1] * (values.ndim - 2)), values.float(), torch.nan)
        self.metric.extend(kept)
        return kept

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **options: Any) -> Any:  # noqa: ANN401 - MONAI's
        return self.metric._compute_tensor(y_pred, y, **options)

    def aggregate(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - MONAI's
        """As the metric does."""
        return self.metric.aggregate(*args, **options)

    def get_buffer(self) -> Any:  # noqa: ANN401 - MONAI's
        """The scores of all cases."""
        return self.metric.get_buffer()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        """How many cases."""
        return len(self.metric)

    def reset(self) -> None:
        """Forget the scores."""
        self.metric.reset()  # type: ignore[no-untyped-call]


def _annotated(y: Any, given: Tensor | None, samples: int) -> Tensor:  # noqa: ANN401 - a tensor or a list of them
    """`[N, K]`."""
    if given is not None:
        return for_samples("AnnotatedOnly", given, samples)
    said = [of_metadata(each) for each in y] if isinstance(y, (list, tuple)) else of_metadata(y)
    if said is None or (isinstance(said, list) and any(each is None for each in said)):
        raise ValueError(
            "AnnotatedOnly: nothing says what was annotated: y.meta has no 'annotated', which MarkAnnotatedd writes; "
            "or call metric(y_pred, y, annotated)"
        )
    if isinstance(said, list):
        return torch.cat([for_samples("AnnotatedOnly", each, 1) for each in said])
    return for_samples("AnnotatedOnly", said, samples)
