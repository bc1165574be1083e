"""Label dropout: hide labels at random so that a network cannot link a domain's look to its missing labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops, reference
from .constants import HasConstants

BACKENDS = {"fused": ops, "reference": reference}


class LabelDropout(HasConstants):
    """Marks each droppable label of each sample as not annotated, independently, with probability p.

    Islam et al. 2024, section 2 ("Label dropout"). Only `annotated` changes: the loss's rule then reads every pixel
    of a dropped label as background, so the image-sized target is never touched. The identity in eval mode.

    `p` and `classes` may be changed between calls, also of a compiled module, which is not compiled again for another
    number. Probabilities are float32 whatever type the module is cast to. They follow the labels to their device; in a
    compiled module on a GPU call `.to(device)` first, or they are copied there each time.

    Args:
        p: probability of dropping a label; or one for each of the L label values, the first, background's, being 0.
            Numbers, lists, arrays or tensors.
        classes: label values that may drop; None means all but background.
        backend: "fused" (a compiled kernel) or "reference" (plain PyTorch, on any device), which draw the same.

    Raises:
        TypeError: p or classes that are no numbers.
        ValueError: p outside [0, 1], background droppable, a label value that does not exist, unknown backend.
    """

    constants = ("_rates",)
    _rates: Tensor  # float32, [1], [L], or as long as `classes` reach

    def __init__(
        self, p: float | Sequence[float] | Tensor = 0.5, classes: Iterable[int] | None = None, backend: str = "fused"
    ) -> None:
        super().__init__()
        if backend not in BACKENDS:
            raise ValueError(f"LabelDropout: backend must be one of {sorted(BACKENDS)}, got {backend!r}")
        self.backend = backend
        # A tensor, so that a graph sees another p. One for all labels, one for each, or as many as `classes` reach.
        self._rates = torch.empty(0, dtype=torch.float32, device="cpu")
        self._set(_as_p(p), _as_classes(classes))

    @staticmethod
    def runs_on(device_type: str) -> bool:
        """Whether there is a compiled kernel for devices of a type ("cpu", "cuda")."""
        return ops.built_for(device_type, "label_dropout")

    @property
    def p(self) -> float | tuple[float, ...]:
        """Probability of dropping a label, or one for each label value."""
        return self._p

    @p.setter
    def p(self, value: float | Sequence[float] | Tensor) -> None:
        self._set(_as_p(value), self._classes)

    @property
    def classes(self) -> tuple[int, ...] | None:
        """Label values that may drop; None means all but background."""
        return self._classes

    @classes.setter
    def classes(self, value: Iterable[int] | None) -> None:
        self._set(self._p, _as_classes(value))

    def forward(self, annotated: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw which labels to hide.

        Args:
            annotated: `[N, L]` bool.
            generator: of the same device; None is that device's default one.

        Returns:
            `[N, L]` bool on the same device, without waiting for it.

        Raises:
            TypeError: annotated is no tensor.
            ValueError: annotated is not bool `[N, L]`, or L is not what p or classes ask for.
            RuntimeError: the backend is "fused" and no kernel is built for the device; vmap with that backend.
        """
        ops.check_tensors("LabelDropout", {"annotated": annotated})
        if annotated.ndim != 2 or annotated.dtype != torch.bool or annotated.shape[1] < 1:
            raise ValueError(
                f"LabelDropout: annotated must be a bool tensor [N, L] with at least one label, "
                f"got {annotated.dtype} with shape {tuple(annotated.shape)}"
            )
        if not self.training:
            return annotated
        if self.backend == "fused":
            ops.refuse_vmap("LabelDropout", {"annotated": annotated})
        device = annotated.device
        if self._rates.device != device and device.type != "meta" and not torch.compiler.is_compiling():
            self._rates = self._rates.to(device, non_blocking=True)
        key = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device, generator=generator)
        dropped: Tensor = BACKENDS[self.backend].label_dropout(annotated, self._per_label(annotated), key)
        return dropped

    def extra_repr(self) -> str:
        """Shown inside `repr`."""
        return f"p={self.p}, classes={self.classes}, backend={self.backend!r}"

    def _per_label(self, annotated: Tensor) -> Tensor:
        """`[L]` float32 on the device. Looks at no value, on which a compiled module would depend."""
        rates, num_labels = self._rates.to(annotated.device, non_blocking=True), annotated.shape[1]
        given = rates.shape[0]
        if self._reach == "each":
            if given != num_labels:
                raise ValueError(
                    f"LabelDropout: p must have one value for each of the {num_labels} labels, got {given}"
                )
            return rates
        if self._reach == "all":
            return F.pad(rates.expand(num_labels - 1), (1, 0))
        if given > num_labels:
            raise ValueError(f"LabelDropout: classes must be label values below L = {num_labels}, got {self._classes}")
        return F.pad(rates, (0, num_labels - given))

    def _set(self, p: float | tuple[float, ...], classes: tuple[int, ...] | None) -> None:
        """Keep both, and what they amount to: in place, where captured graphs read it, if its length is the same."""
        if isinstance(p, tuple):
            reach, rates = "each", list(p)
        elif classes is None:
            reach, rates = "all", [p]
        else:
            reach, rates = "some", [p] * (max(classes, default=0) + 1)
        if classes is not None:
            if max(classes, default=0) >= len(rates):
                raise ValueError(f"LabelDropout: classes must be label values below L = {len(rates)}, got {classes}")
            rates = [rate if label in classes else 0.0 for label, rate in enumerate(rates)]
        self._p, self._classes, self._reach = p, classes, reach
        values = torch.tensor(rates, dtype=torch.float32, device="cpu")
        if values.shape == self._rates.shape and not self._rates.is_inference():
            self._rates.copy_(values)
        else:
            self._rates = values.to(self._rates.device)


def _as_p(p: Any) -> float | tuple[float, ...]:  # noqa: ANN401 - checked here
    try:
        values = torch.as_tensor(p, dtype=torch.float64, device="cpu").tolist()
        rates = [values] if isinstance(values, float) else [float(rate) for rate in values]
    except (TypeError, ValueError, RuntimeError):
        rates = []
    if not rates or isinstance(p, bool):
        raise TypeError(f"LabelDropout: p must be a number, or one for each label, got {p!r}")
    if not all(0 <= rate <= 1 for rate in rates):
        raise ValueError(f"LabelDropout: p must lie in [0, 1], got {p}")
    if isinstance(values, float):
        return values
    if rates[0] != 0:
        raise ValueError(f"LabelDropout: p[0] is background's and must be 0, since it never drops, got p={p}")
    return tuple(rates)


def _as_classes(classes: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - checked here
    if classes is None:
        return None
    if not isinstance(classes, Iterable) or isinstance(classes, str):
        raise TypeError(f"LabelDropout: classes must be a list of label values, or None, got {classes!r}")
    values = tuple(ops.integer("LabelDropout", "classes", value) for value in classes)
    if any(value < 1 for value in values):
        raise ValueError(f"LabelDropout: classes must be label values from 1, background never drops: got {values}")
    return values
