"""Dice, and which classes count where.

Conventions. Dice of one class in one image is 2 |P and T| / (|P| + |T|), P and T being the pixels of the class in the
prediction and in the truth. Both empty: not a number, and left out of every mean. Truth empty, prediction not: 0.
Pixels whose truth is IGNORED are neither.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = 255  # as in `data.base`


def dice_per_image(prediction: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Dice of every class in every image.

    Args:
        prediction: [n, *spatial] integer class map, values 0 ... K-1.
        truth: the same shape, on the same device, values 0 ... K-1 or IGNORED; the integer dtypes may differ.
        num_classes: K, background counted.

    Returns:
        [n, K] float64: 2 |P and T| / (|P| + |T|), NaN where both are empty, 0 for false positives on an empty truth.

    Raises:
        TypeError: a map that is not of an integer dtype.
        ValueError: shapes that differ or have no image axis, or values outside 0 ... K-1.
    """
    if prediction.shape != truth.shape or prediction.ndim < 1:
        raise ValueError(
            f"dice_per_image: prediction and truth must have the same shape [n, *spatial], "
            f"got {tuple(prediction.shape)} and {tuple(truth.shape)}"
        )
    counts = truth != IGNORED
    predicted = _class_map("prediction", prediction, num_classes)
    true = _class_map("truth", truth.masked_fill(~counts, 0), num_classes)
    n = len(predicted)
    # One bin for each pair of image and class, and a last bin for the pixels that do not count.
    offset = torch.arange(n, device=predicted.device)[:, None] * num_classes
    bins = n * num_classes
    counts = counts.view_as(true)

    def count(classes: Tensor, where: Tensor) -> Tensor:
        index = torch.where(where, classes + offset, bins)
        return torch.bincount(index.flatten(), minlength=bins + 1)[:bins].view(n, num_classes).double()

    return 2 * count(true, counts & (predicted == true)) / (count(predicted, counts) + count(true, counts))


def foreground_dice(prediction: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
    """Mean foreground Dice over what is annotated: the mean over images for each class, then the mean over classes.

    A class that is not annotated in a sample does not count there: its pixels are background in the target, so a right
    prediction would be scored as wrong.

    Args:
        prediction: [n, *spatial] integer class map, values 0 ... K-1.
        target: the same shape, the labels as drawn.
        annotated: [n, K] bool, was class k drawn in this sample?

    Returns:
        Scalar float64; NaN if no annotated foreground class occurs in the prediction or the target of any sample.

    Raises:
        TypeError: a map that is not of an integer dtype.
        ValueError: shapes that do not fit, or values outside 0 ... K-1.
    """
    if annotated.ndim != 2 or len(annotated) != len(prediction):
        raise ValueError(
            f"foreground_dice: annotated must be [n, K] with n = {len(prediction)}, got {tuple(annotated.shape)}"
        )
    dice = dice_per_image(prediction, target, annotated.shape[1])
    counted = dice.masked_fill(~annotated.bool(), float("nan"))[:, 1:]
    return counted.nanmean(0).nanmean()


def _class_map(name: str, values: Tensor, num_classes: int) -> Tensor:
    """The map as int64 [n, pixels]."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"dice: {name} must be an integer class map, got {values.dtype}")
    flat = values.flatten(1).long() if values.ndim > 1 else values.long()[:, None]
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= num_classes):
        raise ValueError(
            f"dice: values of {name} must lie in 0 ... {num_classes - 1}, "
            f"got values from {int(flat.min())} to {int(flat.max())}"
        )
    return flat
