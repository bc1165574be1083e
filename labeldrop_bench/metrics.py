"""How well a class is found in an image: overlap, surfaces, calibration.

Conventions. P and T are the pixels of a class in the prediction and in the truth. Pixels whose truth is IGNORED are in
neither, and do not count for calibration.

| metric | formula | P and T empty | one of them empty |
|---|---|---|---|
| dice | 2 |P and T| / (|P| + |T|) | undefined | 0 |
| hd95 | the larger of the 95th percentiles of the distances from either surface to the other | undefined | diagonal of the image |
| nsd | share of both surfaces that is at most a tolerance away from the other | undefined | 0 |
| ece | sum over bins b of n_b / n |mean p in b - share of T in b| | defined | defined |
| brier | mean of (p - [T])^2 | defined | defined |

Distances are in millimetres where the spacing of the pixels is given, and in pixels otherwise.

Undefined is NaN, and left out of every mean. A strategy that misses a class altogether must not be better off than one
that finds a part of it: this is why the distance is then the largest there can be. Surface distances come from MONAI
(normalised surface Dice: Nikolov et al. 2021).
"""  # noqa: E501 - a table

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

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


def surfaces_per_image(
    prediction: Tensor, truth: Tensor, num_classes: int, tolerances: Sequence[float], *, spacing: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """HD95 and normalised surface Dice of every foreground class in every image.

    Args:
        prediction: [n, *spatial] integer class map, values 0 ... K-1; two or three spatial dimensions.
        truth: the same shape, values 0 ... K-1 or IGNORED.
        num_classes: K, background counted.
        tolerances: of the surface Dice, one for each foreground class, in the unit of the distances.
        spacing: [n, d] millimetres between pixels along each of the d axes of every image; None counts in pixels.

    Returns:
        Two [n, K] float64, in millimetres or pixels and in [0, 1], as the table above says; NaN for background.

    Raises:
        ValueError: not K-1 tolerances, or a spacing of another shape or that is not positive.
    """
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance  # slow to import
    from monai.metrics.surface_dice import compute_surface_dice

    if len(tolerances) != num_classes - 1:
        raise ValueError(
            f"surfaces_per_image: tolerances must be one for each of the {num_classes - 1} foreground classes, "
            f"got {len(tolerances)}"
        )
    n, *sizes = truth.shape
    if spacing is not None and (spacing.shape != (n, len(sizes)) or not bool((spacing > 0).all())):
        raise ValueError(
            f"surfaces_per_image: spacing must be positive and of shape {(n, len(sizes))}, one number for each axis of "
            f"every image, got shape {tuple(spacing.shape)} with values {spacing.flatten().tolist()[:6]}"
        )
    apart = None if spacing is None else spacing.tolist()
    counts = truth != IGNORED
    predicted, true = (one_hot(image.masked_fill(~counts, 0), num_classes) for image in (prediction, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of every class that is empty; the table says what it scores
        hd95 = compute_hausdorff_distance(predicted, true, percentile=95, spacing=apart).double()
        nsd = compute_surface_dice(predicted, true, list(tolerances), spacing=apart).double()
    found, there = predicted[:, 1:].flatten(2).any(2), true[:, 1:].flatten(2).any(2)
    edges = torch.tensor(sizes, dtype=torch.float64) * (1 if spacing is None else spacing.double())
    diagonal = edges.expand(n, -1).norm(dim=1, keepdim=True)  # [n, 1]
    background = torch.full((n, 1), math.nan, dtype=torch.float64)

    def settled(values: Tensor, missed: Tensor) -> Tensor:
        values = values.where(found == there, missed).masked_fill(~(found | there), math.nan)
        return torch.cat([background, values], 1)

    return settled(hd95, diagonal), settled(nsd, torch.zeros(n, 1, dtype=torch.float64))


def calibration_per_image(probabilities: Tensor, truth: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Expected calibration error and Brier score of every foreground class in every image, one against the rest.

    Args:
        probabilities: [n, K-1, *spatial] float, of the foreground classes.
        truth: [n, *spatial] integer class map on the same device, values 0 ... K-1 or IGNORED.
        bins: of equal width in [0, 1], for the error (Guo et al. 2017, eq. 3, for one class against the rest).

    Returns:
        Two [n, K] float64; NaN for background, and where no pixel counts.
    """
    n, foreground = probabilities.shape[:2]
    p = probabilities.flatten(2).double()
    counts = (truth != IGNORED).flatten(1)[:, None].expand_as(p)
    is_true = truth.flatten(1)[:, None] == torch.arange(1, foreground + 1, device=truth.device)[:, None]
    squares = (p - is_true.double()).square()
    pixels = counts.sum(2)
    brier = squares.masked_fill(~counts, 0).sum(2) / pixels
    # one place for each image, class and bin, and a last one for the pixels that do not count
    index = (p * bins).long().clamp(0, bins - 1)
    index = index + bins * torch.arange(n * foreground, device=p.device).view(n, foreground, 1)
    index = index.masked_fill(~counts, bins * n * foreground).flatten()

    def sums(values: Tensor) -> Tensor:
        total = torch.bincount(index, values.double().flatten(), minlength=bins * n * foreground + 1)
        return total[:-1].view(n, foreground, bins)

    error = (sums(p) - sums(is_true)).abs().sum(2) / pixels
    background = torch.full((n, 1), math.nan, dtype=torch.float64, device=p.device)
    return torch.cat([background, error], 1), torch.cat([background, brier], 1)


def one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """[n, *spatial] integer class map as [n, K, *spatial] bool."""
    return torch.stack([classes == c for c in range(num_classes)], dim=1)


def foreground_dice(prediction: Tensor, target: Tensor, annotated: Tensor) -> Tensor:
    """Mean foreground Dice over what is annotated: the mean over images for each class, then the mean over classes.

    A class that is not annotated in a sample does not count there: its pixels are background in the target, so a right
    prediction would be scored as wrong.

    Args:
        prediction: [n, *spatial] integer class map, values 0 ... K-1.
        target: the same shape, the labels as annotated.
        annotated: [n, K] bool, was class k annotated in this sample?

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
    return mean_foreground(dice_per_image(prediction, target, annotated.shape[1]), annotated)


def mean_foreground(dice: Tensor, annotated: Tensor) -> Tensor:
    """The mean of Dice [n, K] as `foreground_dice` takes it, for what was computed a few images at a time."""
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
