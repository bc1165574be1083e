"""Fused partial-label segmentation losses, label dropout, and the benchmark that ranks them."""

from importlib.metadata import PackageNotFoundError, version

from . import losses, ops, reference, rules
from .dropout import LabelDropout
from .label_space import Label, LabelSpace, annotated
from .losses.compound import SumOfLosses
from .losses.dice import AdaptiveDice, Dice, ExclusionDice, LeafDice, MarginalDice
from .losses.sigmoid import AdaptiveBinaryCrossEntropy, BinaryCrossEntropy, LabelFlip, PredictiveVariance, Smile
from .losses.softmax import AdaptiveCrossEntropy, CrossEntropy, MarginalCrossEntropy
from .ops import drop_labels

try:
    __version__ = version("labeldrop-bench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"

__all__ = [
    "AdaptiveBinaryCrossEntropy",
    "AdaptiveCrossEntropy",
    "AdaptiveDice",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Dice",
    "ExclusionDice",
    "Label",
    "LabelDropout",
    "LabelFlip",
    "LabelSpace",
    "LeafDice",
    "MarginalCrossEntropy",
    "MarginalDice",
    "PredictiveVariance",
    "Smile",
    "SumOfLosses",
    "annotated",
    "drop_labels",
    "losses",
    "ops",
    "reference",
    "rules",
]


def __dir__() -> list[str]:
    """The public names alone: modules that Python has imported into the package are no part of its interface."""
    return [*__all__, "__version__"]
