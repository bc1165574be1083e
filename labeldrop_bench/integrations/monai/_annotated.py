"""Where MONAI's tensors carry what was annotated."""

from __future__ import annotations

from monai.data.meta_tensor import MetaTensor
from torch import Tensor

KEY = "annotated"  # of the metadata, and, unless another is named, of the data's dictionaries


def of_metadata(tensor: object) -> object:
    """What the metadata of a tensor says, or None."""
    return tensor.meta.get(KEY) if isinstance(tensor, MetaTensor) else None


def plain(tensor: Tensor) -> Tensor:
    """Without metadata, whose upkeep costs more than a small loss."""
    return tensor.as_subclass(Tensor) if isinstance(tensor, MetaTensor) else tensor


def for_samples(name: str, annotated: object, samples: int) -> Tensor:
    """`[N, L]`, where one row `[L]` is enough for a batch of one.

    Raises:
        TypeError: no tensor.
        ValueError: one row for several samples.
    """
    if not isinstance(annotated, Tensor):
        raise TypeError(
            f"{name}: annotated must be a bool tensor [N, L], got {annotated!r}: names become one by "
            f"MarkAnnotatedd, or by LabelSpace.annotated"
        )
    if annotated.ndim != 1:
        return annotated
    if samples != 1:
        raise ValueError(
            f"{name}: annotated must have a row for each of the {samples} samples, got one of shape "
            f"{list(annotated.shape)}: batches of MetaTensors are made by monai.data.DataLoader; torch's keeps the "
            f"metadata of the first sample alone"
        )
    return annotated.unsqueeze(0)
