"""Sigmoid family: a yes or no for each foreground class; and the two losses that learn how noisy labels are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from labeldrop_bench import ops, rules
from labeldrop_bench.label_space import LabelSpace
from labeldrop_bench.sets import Program

from ._arguments import as_weights, check_choice, check_count
from ._kept_tables import on_device
from ._pixel_loss import PixelLoss

GAMMA = 2.0  # of the focal loss, where it is not given


class SigmoidLoss(PixelLoss):
    """What the losses of this family share. There is no channel for background: class k is channel k - 1.

    Args:
        rule: what a pixel says of a class that is not annotated: "standard" (it is not that class), "adaptive"
            (nothing), or "smile" (nothing if the pixel is background, otherwise that it is not that class).
        base: L, "bce" or "focal" (Lin et al. 2017).
        gamma: exponent of the focal loss, from 0; None is 2. Only with base="focal".
        class_weights: K - 1 factors of the classes' terms, background left out.
    """

    activation = "sigmoid"

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        rule: str,
        base: str,
        gamma: float | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
        check_target: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            label_space=label_space,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            check_target=check_target,
        )
        check_choice(self._name, "rule", rule, rules.SIGMOID_RULES)
        check_choice(self._name, "base", base, ("bce", "focal"))
        if gamma is not None and base != "focal":
            raise ValueError(f"{self._name}: gamma belongs to base='focal', got gamma={gamma} with base={base!r}")
        if gamma is not None:
            ops.check_gamma(self._name, gamma)
        self.rule, self.base = rule, base
        self.gamma = 0.0 if base == "bce" else GAMMA if gamma is None else float(gamma)
        foreground = self.label_space.num_classes - 1
        self.class_weights = as_weights(self._name, class_weights, foreground, "one for each foreground class")

    @rules.per_sample
    def table(self, annotated: Tensor) -> rules.Table:
        """`(candidates, active)`, each `[N, L, K-1]` bool, for `annotated` `[N, L]` bool."""
        return rules.binary(*self._rule()(annotated, *self._label_space_on(annotated.device)))

    def _rule(self) -> rules.Rule:
        return rules.SIGMOID_RULES[self.rule]

    def _formula(self, *_: Any) -> ops.Formula | None:  # noqa: ANN401 - there are none
        rule = self._set_rule(SigmoidLoss)
        return None if rule is None else _formula(rule)

    def extra_repr(self) -> str:
        """Shown inside `repr`."""
        own = ", ".join(f"{name}={value}" for name, value in self._own_options().items())
        return f"{super().extra_repr()}, rule={self.rule!r}, {own}"

    def _own_weight(self, class_weights: Tensor, annotated: Tensor) -> dict[str, Tensor]:
        return {"class_weight": class_weights.to(annotated.device)}

    def _kept_weight(self, logits: Tensor, *_: Tensor) -> dict[str, Tensor]:
        if self.class_weights is None:
            return {}
        dtype = ops.accumulation_dtype(logits)
        (weight,) = on_device(dtype, (self.class_weights,), logits.device, lambda weights: (weights.to(dtype),))
        return {"class_weight": weight}

    def _own_options(self) -> dict[str, Any]:
        return {"gamma": self.gamma}


@cache
def _formula(rule: rules.SetRule) -> ops.Formula | None:
    program = Program()
    return ops.Formula.of(program, rules.binary(*rule.formula(program), sets=Program), dropped=1)


class _RuledSigmoidLoss(SigmoidLoss):
    """BCE or focal loss with one rule.

    Args:
        alpha: weight of the yes terms of the focal loss, 1 - alpha that of the no terms; None weighs both with 1.
    """

    operator = "sigmoid_focal"
    its_rule: ClassVar[str]

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        base: str = "bce",
        alpha: float | None = None,
        gamma: float | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
        check_target: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            rule=self.its_rule,
            base=base,
            gamma=gamma,
            class_weights=class_weights,
            label_space=label_space,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            check_target=check_target,
        )
        if alpha is not None and base != "focal":
            raise ValueError(f"{self._name}: alpha belongs to base='focal', got alpha={alpha} with base={base!r}")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"{self._name}: alpha must lie in [0, 1], got {alpha}")
        self.alpha = alpha

    def _own_options(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "alpha": self.alpha}


class BinaryCrossEntropy(_RuledSigmoidLoss):
    """Sigmoid BCE or focal loss that takes what was not annotated for background."""

    its_rule = "standard"


class AdaptiveBinaryCrossEntropy(_RuledSigmoidLoss):
    """Sigmoid BCE or focal loss over the covered classes."""

    its_rule = "adaptive"


class Smile(_RuledSigmoidLoss):
    """Sigmoid BCE or focal loss in which background says nothing about a missing class.

    Petit et al. 2018: w_k = 1 where class k is annotated; where it is not, only where another class is.
    """

    its_rule = "smile"


class LabelFlip(SigmoidLoss):
    """Learns, besides the class, how likely its label is to be wrong (McKinley et al. 2019).

    With p = sigmoid(z), q = sigmoid(f) / 2 and a label x, `loss = L(p, (1-x) q + x (1-q)) + L(q, d)`, where d is 1
    where p > 0.5 disagrees with x. Logits `[N, 2 (K-1), *spatial]`: the class logits z, then the flip logits f.

    Args:
        detach_target: stop the gradient that reaches q through the soft target.
    """

    operator = "label_flip"
    channels_per_class = 2

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        rule: str = "smile",
        base: str = "focal",
        detach_target: bool = False,
        gamma: float | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
        check_target: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            rule=rule,
            base=base,
            gamma=gamma,
            class_weights=class_weights,
            label_space=label_space,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            check_target=check_target,
        )
        self.detach_target = detach_target

    def flip_probability(self, logits: Tensor) -> Tensor:
        """`[N, K-1, *spatial]` float32 (float64 for float64 logits): q, in (0, 0.5) for every finite flip logit."""
        self._check_logits(logits)
        flip = logits[:, self.label_space.num_classes - 1 :]
        flip = flip if flip.dtype == torch.float64 else flip.float()
        limits = torch.finfo(flip.dtype)
        return (flip.sigmoid() / 2).clamp(limits.tiny, (1 - limits.eps / 2) / 2)

    def _own_options(self) -> dict[str, Any]:
        return {"gamma": self.gamma, "detach_target": self.detach_target}


class PredictiveVariance(SigmoidLoss):
    """Learns, besides the class, the variance of its logit (Kendall and Gal 2017, as used by McKinley et al. 2019).

    `loss = mean over T samples of L(z + e^(s/2) eps, x)`, eps ~ N(0, 1). Logits `[N, 2 (K-1), *spatial]`: the class
    logits z, then the log-variances s. The noise comes from torch's generator's seed.

    Args:
        samples: T.
        average: "loss"; or "probability", for -log of the mean likelihood (base="bce").
    """

    operator = "predictive_variance"
    channels_per_class = 2

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        rule: str = "smile",
        base: str = "bce",
        samples: int = 10,
        average: str = "loss",
        gamma: float | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        backend: str = "fused",
        check_target: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            rule=rule,
            base=base,
            gamma=gamma,
            class_weights=class_weights,
            label_space=label_space,
            ignore_index=ignore_index,
            reduction=reduction,
            backend=backend,
            check_target=check_target,
        )
        check_choice(self._name, "average", average, ("loss", "probability"))
        if average == "probability" and base != "bce":
            raise ValueError(f"{self._name}: average='probability' needs a likelihood, base='bce', got base={base!r}")
        self.samples = check_count(self._name, "samples", samples, least=1)
        self.average = average

    def standard_deviation(self, logits: Tensor) -> Tensor:
        """`[N, K-1, *spatial]`: e^(s/2), of the class logits."""
        self._check_logits(logits)
        return (logits[:, self.label_space.num_classes - 1 :] / 2).exp()

    def _own_options(self) -> dict[str, Any]:
        return {"samples": self.samples, "gamma": self.gamma, "average": self.average}
