"""The fused operators: checks, registration with torch and autograd. One file each."""

from ._checks import squeeze_channel
from ._native import built_for
from .drop_labels import drop_labels
from .set_cross_entropy import set_cross_entropy

__all__ = ["built_for", "drop_labels", "set_cross_entropy", "squeeze_channel"]
