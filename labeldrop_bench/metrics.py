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
that finds a part of it: this is why the distance is then the largest there can be.

The surface of a class is its pixels with a neighbour, across an edge (in a volume a face), that is of another class or
outside of the image (normalised surface Dice: Nikolov et al. 2021). Distances are looked up in a k-d tree of surface
pixels: MONAI's functions give the same numbers, from a map of distances over the image for each class, which for a
hundred classes in a volume takes minutes. Nothing here is one-hot: memory does not grow with the number of classes.
"""  # noqa: E501 - a table

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = 255  # as in `data.base`
ROUNDING = 1e-9  # relative: of coordinates in millimetres, whose differences are compared with a tolerance


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
    apart = (torch.ones(n, len(sizes)) if spacing is None else spacing).double().cpu()
    diagonals = (torch.tensor(sizes) * apart).norm(dim=1).tolist()
    unknown = truth == IGNORED
    predicted, true = (image.masked_fill(unknown, 0) for image in (prediction, truth))
    hd95, nsd = torch.full((2, n, num_classes), math.nan, dtype=torch.float64)
    for i in range(n):
        surfaces = [_surfaces(image[i].cpu(), apart[i], num_classes) for image in (predicted, true)]
        for c, (found, there) in enumerate(zip(*surfaces, strict=True)):
            if c and (len(found) or len(there)):
                hd95[i, c], nsd[i, c] = _apart(found, there, tolerances[c - 1], diagonals[i])
    return hd95, nsd


def _surfaces(classes: Tensor, spacing: Tensor, num_classes: int) -> list[NDArray[np.float64]]:
    """The places [m, d] of the surface pixels of each class, in units of the spacing, from a class map [*spatial]."""
    surface = torch.zeros(classes.shape, dtype=torch.bool)
    for axis, size in enumerate(classes.shape):
        differs = classes.narrow(axis, 1, size - 1) != classes.narrow(axis, 0, size - 1)
        surface.narrow(axis, 1, size - 1).logical_or_(differs)
        surface.narrow(axis, 0, size - 1).logical_or_(differs)
        surface.select(axis, 0).fill_(True)
        surface.select(axis, -1).fill_(True)
    places = surface.nonzero()
    values = classes[surface].long()
    places = places[values.argsort(stable=True)].double() * spacing
    return [part.numpy() for part in places.split(torch.bincount(values, minlength=num_classes).tolist())]


def _apart(
    found: NDArray[np.float64], there: NDArray[np.float64], tolerance: float, diagonal: float
) -> tuple[float, float]:
    """HD95 and normalised surface Dice of two surfaces [m, d], of which one may be empty."""
    from scipy.spatial import KDTree  # slow to import

    if not len(found) or not len(there):
        return diagonal, 0.0
    # Sliding midpoints: pixels on a grid have many equal coordinates, at which medians are slow to find
    trees = [KDTree(places, balanced_tree=False, compact_nodes=False) for places in (found, there)]
    distances = [trees[1].query(found)[0], trees[0].query(there)[0]]
    near = sum(np.count_nonzero(d <= tolerance * (1 + ROUNDING)) for d in distances)
    return max(float(np.percentile(d, 95)) for d in distances), near / (len(found) + len(there))


class Calibration:
    """Expected calibration error and Brier score of every foreground class in every image, one against the rest.

    Images may come in parts, for instance a volume some slices at a time: sums are kept, class after class.

    Args:
        n: number of images.
        num_classes: K, background counted.
        bins: of equal width in [0, 1], for the error (Guo et al. 2017, eq. 3, for one class against the rest).
    """

    def __init__(self, n: int, num_classes: int, bins: int) -> None:
        self.bins = bins
        self._excess = torch.zeros(num_classes - 1, n, bins, dtype=torch.float64)  # sums of p - [T]
        self._squares = torch.zeros(num_classes - 1, n, dtype=torch.float64)
        self._pixels = torch.zeros(n, dtype=torch.int64)

    def add(self, probabilities: Tensor, truth: Tensor) -> None:
        """Take in pixels of all images.

        Args:
            probabilities: [n, K-1, *spatial] float, of the foreground classes.
            truth: [n, *spatial] integer class map on the same device, values 0 ... K-1 or IGNORED.
        """
        labels = truth.flatten(1)
        unknown, n = labels == IGNORED, len(labels)
        first = self.bins * torch.arange(n, device=labels.device)[:, None]  # one place for each image and bin
        for c, of_class in enumerate(probabilities.unbind(1)):
            p = of_class.flatten(1).double()
            index = (p * self.bins).long().clamp_(0, self.bins - 1).add_(first)
            excess = (p - (labels == c + 1).double()).masked_fill_(unknown, 0)
            sums = torch.bincount(index.flatten(), excess.flatten(), minlength=n * self.bins)
            self._excess[c] += sums.view(n, self.bins).cpu()
            self._squares[c] += excess.square_().sum(1).cpu()
        self._pixels += (~unknown).sum(1).cpu()

    def result(self) -> tuple[Tensor, Tensor]:
        """Both, [n, K] float64; NaN for background, and where no pixel counts."""
        error, brier = (of.T / self._pixels[:, None] for of in (self._excess.abs().sum(2), self._squares))
        background = torch.full((len(error), 1), math.nan, dtype=torch.float64)
        return torch.cat([background, error], 1), torch.cat([background, brier], 1)


def calibration_per_image(probabilities: Tensor, truth: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """`Calibration` of whole images: [n, K-1, *spatial] probabilities and their truth [n, *spatial]."""
    calibration = Calibration(len(truth), probabilities.shape[1] + 1, bins)
    calibration.add(probabilities, truth)
    return calibration.result()


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
