"""nnU-Net's scores without what was not annotated: a prediction there is neither right nor wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import save_summary_json
from numpy.typing import NDArray
from torch import Tensor

from .annotations import Annotations

SCORER = "compute_metrics_on_folder"  # what nnU-Net's modules import, each under this name
Counts = dict[str, NDArray[np.float32]]


def hard_counts(logits: Tensor, target: Tensor, annotated: Tensor, ignore_label: int | None) -> Counts:
    """True positives, false positives and false negatives of a batch, under the names of nnU-Net's validation step.

    Args:
        logits: `[N, K, *spatial]`.
        target: `[N, 1, *spatial]` label values.
        annotated: `[N, K]` bool: what counts.
        ignore_label: pixels with this value count for nothing.

    Returns:
        Three arrays `[K - 1]`, without background.
    """
    samples, classes = annotated.shape
    truth, predicted = target[:, 0].long(), logits.argmax(dim=1)
    counts = torch.ones_like(truth, dtype=torch.bool) if ignore_label is None else truth != ignore_label
    first = classes * torch.arange(samples, device=truth.device).view(-1, *[1] * (truth.ndim - 1))

    def pixels(values: Tensor, where: Tensor) -> Tensor:
        found = torch.bincount((values + first)[where], minlength=samples * classes).view(samples, classes)
        return torch.where(annotated, found, 0).sum(dim=0)[1:]

    tp = pixels(truth, counts & (predicted == truth))
    sums = {"tp_hard": tp, "fp_hard": pixels(predicted, counts) - tp, "fn_hard": pixels(truth, counts) - tp}
    return {name: value.float().cpu().numpy() for name, value in sums.items()}


@contextlib.contextmanager
def only_annotated(annotations: Annotations, modules: Iterable[ModuleType]) -> Iterator[None]:
    """While this is open, what these modules of nnU-Net score, they score where it was annotated."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            original = getattr(module, SCORER)
            stack.callback(setattr, module, SCORER, original)
            setattr(module, SCORER, _scorer(original, annotations))
        yield


def _scorer(original: Callable[..., dict[str, Any]], annotations: Annotations) -> Callable[..., dict[str, Any]]:
    """nnU-Net's function that scores a folder, which then leaves out what was not annotated."""

    def score(
        folder_ref: str,
        folder_pred: str,
        output_file: str | None,
        image_reader_writer: object,
        file_ending: str,
        *args: Any,  # noqa: ANN401 - nnU-Net's
        **kwargs: Any,  # noqa: ANN401 - nnU-Net's
    ) -> dict[str, Any]:
        result = original(folder_ref, folder_pred, None, image_reader_writer, file_ending, *args, **kwargs)
        leave_out(result, annotations, file_ending)
        if output_file is not None:
            save_summary_json(result, output_file)
        return result

    return score


def leave_out(summary: dict[str, Any], annotations: Annotations, file_ending: str) -> None:
    """Change the content of a summary.json in place: what was not annotated becomes NaN, and means are without it.

    `mean` gets `n_cases` for each class: those whose Dice its mean is of. A class that no case scores is NaN, and
    `foreground_mean` is of the others.
    """
    cases = summary["metric_per_case"]
    for case in cases:
        name = PurePath(case["prediction_file"]).name.removesuffix(file_ending)
        for label in annotations.missing(name):
            case["metrics"][label] = dict.fromkeys(case["metrics"][label], float("nan"))
    for label, means in summary["mean"].items():
        for metric in means:
            means[metric] = _mean(case["metrics"][label][metric] for case in cases)
        means["n_cases"] = sum(not np.isnan(case["metrics"][label]["Dice"]) for case in cases)
    for metric in summary["foreground_mean"]:
        summary["foreground_mean"][metric] = _mean(means[metric] for means in summary["mean"].values())


def _mean(values: Iterable[float]) -> float:
    """Of those that are there; NaN if none is."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")
