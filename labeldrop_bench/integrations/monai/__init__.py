"""The losses in MONAI's training: `docs/monai.md` shows how it goes together.

What was annotated travels in the label's metadata, `meta["annotated"]`: `MarkAnnotatedd` writes it, crops, collating
and deep supervision carry it, `PartialLabelLoss` and `AnnotatedOnly` read it. Everything here is made from arguments
that JSON can hold, so it may stand as `_target_` in a bundle's configuration.
"""

from .engines import PrepareBatch
from .loss import PartialLabelLoss
from .metrics import AnnotatedOnly
from .transforms import MarkAnnotatedd, PredictClasses, PredictClassesd

__all__ = [
    "AnnotatedOnly",
    "MarkAnnotatedd",
    "PartialLabelLoss",
    "PredictClasses",
    "PredictClassesd",
    "PrepareBatch",
]
