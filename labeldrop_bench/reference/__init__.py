"""Plain PyTorch versions of the operators: the same signatures, readable first, used by tests and benchmarks."""

from .dice_sums import dice_sums
from .drop_labels import drop_labels
from .label_dropout import label_dropout
from .label_flip import label_flip
from .predictive_variance import predictive_variance
from .set_cross_entropy import set_cross_entropy
from .sigmoid_focal import sigmoid_focal

__all__ = [
    "dice_sums",
    "drop_labels",
    "label_dropout",
    "label_flip",
    "predictive_variance",
    "set_cross_entropy",
    "sigmoid_focal",
]
