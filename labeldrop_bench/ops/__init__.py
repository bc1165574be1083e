"""The fused operators: checks, registration with torch and autograd. One file each."""

from ._checks import (
    check_gamma,
    check_labels,
    check_tensors,
    has_values,
    integer,
    refuse_gradient,
    refuse_vmap,
    squeeze_channel,
)
from ._cuda_build import BRING_A_COMPILER, CudaBuild, cuda_version, device_problem, driver_problem
from ._native import built_for, cuda_build, cuda_driver, folders, instruction_set
from .dice_sums import dice_sums
from .drop_labels import drop_labels
from .label_dropout import label_dropout
from .label_flip import label_flip
from .predictive_variance import predictive_variance
from .set_cross_entropy import set_cross_entropy
from .sigmoid_focal import sigmoid_focal

__all__ = [
    "BRING_A_COMPILER",
    "CudaBuild",
    "built_for",
    "check_gamma",
    "check_labels",
    "check_tensors",
    "cuda_build",
    "cuda_driver",
    "cuda_version",
    "device_problem",
    "dice_sums",
    "driver_problem",
    "drop_labels",
    "folders",
    "has_values",
    "instruction_set",
    "integer",
    "label_dropout",
    "label_flip",
    "predictive_variance",
    "refuse_gradient",
    "refuse_vmap",
    "set_cross_entropy",
    "sigmoid_focal",
    "squeeze_channel",
]
