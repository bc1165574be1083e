"""The losses: a rule joined to a likelihood, and the table that names them.

Adding a loss is one class and one row of `LOSSES`. Other packages add theirs through the entry-point group
`labeldrop_bench.losses`; each entry point names a `LossInfo`, or just an nn.Module class with the constructor and the
methods of ours:

    [project.entry-points."labeldrop_bench.losses"]
    my_loss = "my_package.losses:INFO"
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

from torch import nn

from labeldrop_bench.plugins import Registry, owner, summary

from ._arguments import no_such_arguments
from .base import BACKENDS, PartialLabelLoss
from .compound import SumOfLosses
from .dice import AdaptiveDice, Dice, ExclusionDice, LeafDice, MarginalDice, SoftDice
from .sigmoid import (
    AdaptiveBinaryCrossEntropy,
    BinaryCrossEntropy,
    LabelFlip,
    PredictiveVariance,
    SigmoidLoss,
    Smile,
)
from .softmax import AdaptiveCrossEntropy, CrossEntropy, MarginalCrossEntropy, SetCrossEntropy

__all__ = [
    "BACKENDS",
    "GROUP",
    "LOSSES",
    "REGISTRY",
    "AdaptiveBinaryCrossEntropy",
    "AdaptiveCrossEntropy",
    "AdaptiveDice",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Dice",
    "ExclusionDice",
    "LabelFlip",
    "LeafDice",
    "LossInfo",
    "MarginalCrossEntropy",
    "MarginalDice",
    "PartialLabelLoss",
    "PredictiveVariance",
    "SetCrossEntropy",
    "SigmoidLoss",
    "Smile",
    "SoftDice",
    "SumOfLosses",
    "create",
    "info",
    "names",
    "options_of",
]


@dataclass(frozen=True)
class LossInfo:
    """One row of the table of losses: what `labeldrop-bench losses` shows.

    Attributes:
        module: what `create` makes: called with num_classes or label_space, ignore_index and its own options, it has
            `out_channels`, `predict`, `probabilities` and `runs_on` as `PartialLabelLoss` has.
        formula: of a pixel, or of a class in the Dice family.
        source: where it was published.
        channels: how many the network gives, K being the number of classes with background.
        options: those with which the name makes the module.
    """

    module: type[nn.Module]
    formula: str
    source: str
    channels: str = "K"
    options: Mapping[str, object] = field(default_factory=dict)


_SOFTMAX = "logsumexp(active) - logsumexp(candidates)"
_SIGMOID = "sum over classes of {0}(z, x)"
_DICE = "1 - 2 sum(p t) / (sum(p) + sum(t))"
_FOCAL = {"base": "focal"}


def _sigmoid_rows(name: str, module: type[nn.Module], says: str, source: str) -> dict[str, LossInfo]:
    return {
        name: LossInfo(module, f"{_SIGMOID.format('BCE')}, {says}", source, "K - 1"),
        f"{name}_focal": LossInfo(
            module, f"{_SIGMOID.format('focal')}, {says}", f"{source}; Lin et al. 2017", "K - 1", _FOCAL
        ),
    }


LOSSES: dict[str, LossInfo] = {
    "ce": LossInfo(CrossEntropy, f"{_SOFTMAX}, unannotated = background", "Islam et al. 2024, standard loss"),
    "adaptive_ce": LossInfo(
        AdaptiveCrossEntropy, f"{_SOFTMAX}, missing classes left out", "Mariscal-Harana et al. 2023"
    ),
    "marginal_ce": LossInfo(
        MarginalCrossEntropy, f"{_SOFTMAX}, background = background or missing", "Shi et al. 2021, marginal loss"
    ),
    **_sigmoid_rows("bce", BinaryCrossEntropy, "unannotated = no", "Islam et al. 2026"),
    **_sigmoid_rows("adaptive_bce", AdaptiveBinaryCrossEntropy, "missing classes left out", "Islam et al. 2026"),
    **_sigmoid_rows("smile", Smile, "missing classes left out of background", "Petit et al. 2018"),
    "label_flip": LossInfo(
        LabelFlip, "L(p, (1-x) q + x (1-q)) + L(q, p disagrees with x)", "McKinley et al. 2019", "2 (K - 1)"
    ),
    "predictive_variance": LossInfo(
        PredictiveVariance,
        "mean over t of L(z + sigma eps_t, x)",
        "Kendall and Gal 2017; McKinley et al. 2019",
        "2 (K - 1)",
    ),
    "dice": LossInfo(Dice, f"{_DICE}, unannotated = background", "Milletari et al. 2016"),
    "adaptive_dice": LossInfo(AdaptiveDice, f"{_DICE}, covered classes share p", "Mariscal-Harana et al. 2023"),
    "marginal_dice": LossInfo(MarginalDice, f"{_DICE}, missing p added to background's", "Shi et al. 2021"),
    "exclusion_dice": LossInfo(ExclusionDice, "2 sum(p e) / (sum(p) + sum(e)), e = certainly not", "Shi et al. 2021"),
    "leaf_dice": LossInfo(LeafDice, "1 - 2 sum(p t) / (sum(p^2) + sum(t)), t = one class alone", "Fidon et al. 2021"),
}


METHODS = ("forward", "predict", "probabilities", "runs_on")


def _accept(point: EntryPoint, found: Any) -> LossInfo:  # noqa: ANN401 - whatever somebody registers
    """The row of a loss of another package; a class alone is described by its docstring's first line."""
    if "+" in point.name:
        raise ValueError("the name must not have a '+', which stands between the terms of a sum")
    row = found if isinstance(found, LossInfo) else LossInfo(found, summary(found), owner(point), "not said")
    if not (isinstance(row.module, type) and issubclass(row.module, nn.Module)):
        raise TypeError(f"must name an nn.Module class or a LossInfo of one, got {row.module!r}")
    missing = [method for method in METHODS if not callable(getattr(row.module, method, None))]
    if missing:
        raise TypeError(f"{row.module.__name__} must have the methods {', '.join(METHODS)}; it has no {missing[0]}")
    return row


GROUP = "labeldrop_bench.losses"
REGISTRY = Registry[LossInfo]("loss", GROUP, {name: partial(LOSSES.__getitem__, name) for name in LOSSES}, _accept)


def names() -> tuple[str, ...]:
    """Every registered loss: ours, then those of other packages."""
    return REGISTRY.names()


def info(name: str) -> LossInfo:
    """The row of a loss.

    Raises:
        ValueError: there is none of that name (names the closest one).
        PluginError: another package's that cannot be used.
    """
    return REGISTRY.get(name)


def options_of(name: str) -> list[str]:
    """The keyword arguments of a loss, or of all terms of a sum, that `create` takes by this name."""
    return list(dict.fromkeys(option for row in _terms(name) for option in _arguments_of(row.module)))


def create(name: str, *, weights: Sequence[float] | None = None, **options: Any) -> nn.Module:  # noqa: ANN401
    """Make a loss by its registered name, or a sum of losses by their names with `+` between.

    Args:
        name: one of `names()`, or for example "marginal_ce+marginal_dice".
        weights: of a sum, one factor for each term; None is 1 for all.
        **options: the loss's keyword arguments, among them num_classes or label_space, and backend. Each term of a sum
            gets those that it knows.

    Raises:
        ValueError: no such loss (names the closest one), values that the loss refuses, or weights without a sum.
        TypeError: an option that the loss, or every term of a sum, does not know (says which one may be meant).
        PluginError: a loss of another package that cannot be used.
    """
    infos = _terms(name)
    if len(infos) == 1:
        if weights is not None:
            raise ValueError(
                f"losses.create: weights are for a sum of losses, got {weights!r} with {name!r}; for classes there is "
                f"class_weights"
            )
        return _made(name, infos[0], options)
    known = options_of(name)
    unknown = set(options).difference(known)
    if unknown:
        raise TypeError(f"losses.create: the terms of {name!r} have {no_such_arguments(unknown, known)}")
    modules: list[Any] = [
        _made(name, row, {key: options[key] for key in _arguments_of(row.module) if key in options}) for row in infos
    ]
    return SumOfLosses(modules, weights)


def _terms(name: str) -> list[LossInfo]:
    return [info(part.strip()) for part in name.split("+")]


def _made(name: str, row: LossInfo, options: Mapping[str, Any]) -> nn.Module:
    module = row.module(**{**row.options, **options})
    if not hasattr(module, "out_channels"):  # of another package: an attribute that only the constructor can give
        raise TypeError(f"losses.create: loss {name!r} must have out_channels, and {type(module).__name__} has none")
    return module


def _arguments_of(module: type[nn.Module]) -> list[str]:
    """The keyword arguments of a class; where it takes any (`**options`), also those of what it extends."""
    found: dict[str, None] = {}
    for ancestor in module.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        parameters = inspect.signature(vars(ancestor)["__init__"]).parameters
        named = [each for each in parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        found |= dict.fromkeys(each.name for each in named if each.name != "self")
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            break
    return list(found)
