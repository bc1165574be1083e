"""The fused operators: checks, registration with torch and autograd. One file each."""

from ..results import DiceSums
from ._checks import (
    check_gamma,
    check_labels,
    check_tensors,
    has_values,
    integer,
    refuse_gradient,
    refuse_transforms,
    refuse_vmap,
    squeeze_channel,
)
from ._cuda_build import BRING_A_COMPILER, CudaBuild, Driver, Gpu, cuda_problem, cuda_version
from ._dice_mean import EPSILON, DiceMean, DiceTerms, dice_mean
from ._direct import is_direct
from ._native import FLOATS, INTEGERS, built_for, cuda_build, folders, instruction_set
from ._pixel_kernel import accumulation_dtype
from ._pixel_operator import PIXEL_OPERATORS
from ._rule_tables import Formula, LabelSets, is_on_gpu, rule_tables
from ._tables import pack_tables
from .dice_sums import DiceWords, dice_inputs, dice_rows, dice_sums, pack_dice_tables, sums_of
from .drop_labels import drop_labels
from .label_dropout import label_dropout
from .label_flip import label_flip
from .predictive_variance import predictive_variance
from .set_cross_entropy import set_cross_entropy
from .sigmoid_focal import sigmoid_focal

__all__ = [
    "BRING_A_COMPILER",
    "EPSILON",
    "FLOATS",
    "INTEGERS",
    "PIXEL_OPERATORS",
    "CudaBuild",
    "DiceMean",
    "DiceSums",
    "DiceTerms",
    "DiceWords",
    "Driver",
    "Formula",
    "Gpu",
    "LabelSets",
    "accumulation_dtype",
    "built_for",
    "check_gamma",
    "check_labels",
    "check_tensors",
    "cuda_build",
    "cuda_problem",
    "cuda_version",
    "dice_inputs",
    "dice_mean",
    "dice_rows",
    "dice_sums",
    "drop_labels",
    "folders",
    "has_values",
    "instruction_set",
    "integer",
    "is_direct",
    "is_on_gpu",
    "label_dropout",
    "label_flip",
    "pack_dice_tables",
    "pack_tables",
    "predictive_variance",
    "refuse_gradient",
    "refuse_transforms",
    "refuse_vmap",
    "rule_tables",
    "set_cross_entropy",
    "sigmoid_focal",
    "squeeze_channel",
    "sums_of",
]
