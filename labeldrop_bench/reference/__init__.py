"""Plain PyTorch versions of the operators: the same signatures, readable first, used by tests and benchmarks."""

from .drop_labels import drop_labels
from .set_cross_entropy import set_cross_entropy

__all__ = ["drop_labels", "set_cross_entropy"]
