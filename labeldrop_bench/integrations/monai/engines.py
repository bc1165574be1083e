"""What MONAI's trainers and evaluators take out of a batch."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.utils import PrepareBatch as _PrepareBatch
from monai.engines.utils import default_prepare_batch
from monai.utils.enums import CommonKeys

from ._annotated import KEY, of_metadata
from .loss import PartialLabelLoss


class PrepareBatch(_PrepareBatch):
    """Image and label as by default, and what was annotated to the loss.

    Needed where the label's metadata do not reach the loss: `compile=True`, `set_track_meta(False)`, `EnsureTyped` with
    track_meta=False.

    Args:
        loss: the one that the engine calls, or that its `DeepSupervisionLoss` does.
        source: key of the batch, `MarkAnnotatedd`'s.

    Raises:
        ValueError: at a batch that does not say what was annotated.
    """

    def __init__(self, loss: PartialLabelLoss, source: str = KEY) -> None:
        self.loss, self.source = loss, source

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,  # noqa: ANN401 - MONAI's
    ) -> Any:  # noqa: ANN401 - MONAI's
        """Image and label on the device."""
        annotated = batchdata.get(self.source, of_metadata(batchdata.get(CommonKeys.LABEL)))
        if annotated is None:
            raise ValueError(
                f"PrepareBatch: the batch has no {self.source!r}, which MarkAnnotatedd makes, got "
                f"{', '.join(batchdata)}"
            )
        self.loss.annotated = annotated.to(device=device, non_blocking=non_blocking)
        return default_prepare_batch(batchdata, device, non_blocking, **kwargs)
