"""The losses in MONAI's training: `docs/monai.md` shows how it goes together.

What was annotated travels in the label's metadata, `meta["annotated"]`: `MarkAnnotatedd` writes it, crops, collating
and deep supervision carry it, `PartialLabelLoss` and `AnnotatedOnly` read it. Everything here is made from arguments
that JSON can hold, so it may stand as `_target_` in a bundle's configuration.
"""

from labeldrop_bench.extras import require

require("labeldrop_bench.integrations.monai", "monai", extra="monai")

from .engines import PrepareBatch  # noqa: E402 - the sentence above comes before the import that would fail
from .loss import PartialLabelLoss  # noqa: E402
from .metrics import AnnotatedOnly  # noqa: E402
from .transforms import MarkAnnotatedd, MarkTargetd, PredictClasses, PredictClassesd  # noqa: E402

__all__ = [
    "AnnotatedOnly",
    "MarkAnnotatedd",
    "MarkTargetd",
    "PartialLabelLoss",
    "PredictClasses",
    "PredictClassesd",
    "PrepareBatch",
]
