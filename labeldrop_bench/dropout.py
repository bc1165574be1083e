"""Label dropout: hide labels at random so that a network cannot link a domain's look to its missing labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import ops, reference

BACKENDS = {"fused": ops, "reference": reference}


class LabelDropout(nn.Module):
    """Marks each droppable label of each sample as not annotated, independently, with probability p.

    Islam et al. 2024, section 2 ("Label dropout"). Only `annotated` changes: the loss's rule then reads every pixel
    of a dropped label as background, so the image-sized target is never touched. The identity in eval mode.

    Args:
        p: probability of dropping a label; or one for each of the L label values, the first, background's, being 0.
        classes: label values that may drop; None means all but background.
        backend: "fused" (a compiled kernel) or "reference" (plain PyTorch, on any device), which draw the same.

    Raises:
        ValueError: p outside [0, 1], background droppable, a label value that does not exist, unknown backend.
    """

    def __init__(
        self, p: float | Sequence[float] = 0.5, classes: Sequence[int] | None = None, backend: str = "fused"
    ) -> None:
        super().__init__()
        if backend not in BACKENDS:
            raise ValueError(f"LabelDropout: backend must be one of {sorted(BACKENDS)}, got {backend!r}")
        self.backend = backend
        self.p = tuple(float(q) for q in p) if isinstance(p, Sequence) else float(p)
        self.classes = None if classes is None else tuple(classes)
        if not all(0 <= q <= 1 for q in ([self.p] if isinstance(self.p, float) else self.p)):
            raise ValueError(f"LabelDropout: p must lie in [0, 1], got {p}")
        if isinstance(self.p, tuple) and (not self.p or self.p[0] != 0):
            raise ValueError(f"LabelDropout: p[0] is background's and must be 0, since it never drops, got p={p}")
        if self.classes is not None and any(c < 1 for c in self.classes):
            raise ValueError(
                f"LabelDropout: classes must be label values from 1, background never drops: got {classes}"
            )
        # Copied to a device once, so that later calls need no transfer.
        self._on_device: dict[tuple[torch.device, int], Tensor] = {}

    @staticmethod
    def runs_on(device_type: str) -> bool:
        """Whether there is a compiled kernel for devices of a type ("cpu", "cuda")."""
        return ops.built_for(device_type, "label_dropout")

    def forward(self, annotated: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw which labels to hide.

        Args:
            annotated: `[N, L]` bool.
            generator: of the same device; None is that device's default one.

        Returns:
            `[N, L]` bool on the same device, without waiting for it.

        Raises:
            RuntimeError: the backend is "fused" and no kernel is built for the device.
        """
        if annotated.ndim != 2 or annotated.dtype != torch.bool:
            raise ValueError(
                f"LabelDropout: annotated must be a bool tensor [N, L], "
                f"got {annotated.dtype} with shape {tuple(annotated.shape)}"
            )
        if not self.training:
            return annotated
        device = annotated.device
        key = torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device, generator=generator)
        dropped: Tensor = BACKENDS[self.backend].label_dropout(
            annotated, self._probabilities(annotated.shape[1], device), key
        )
        return dropped

    def extra_repr(self) -> str:
        """Shown inside `repr`."""
        return f"p={self.p}, classes={self.classes}, backend={self.backend!r}"

    def _probabilities(self, num_labels: int, device: torch.device) -> Tensor:
        """`[L]` float32 on the device."""
        key = (device, num_labels)
        if key not in self._on_device:
            self._on_device[key] = torch.tensor(self._per_label(num_labels), device=device)
        return self._on_device[key]

    def _per_label(self, num_labels: int) -> list[float]:
        p = self.p if isinstance(self.p, tuple) else (0.0,) + (self.p,) * (num_labels - 1)
        if len(p) != num_labels:
            raise ValueError(f"LabelDropout: p must have one value for each of the {num_labels} labels, got {len(p)}")
        if self.classes is None:
            return list(p)
        if max(self.classes, default=0) >= num_labels:
            raise ValueError(f"LabelDropout: classes must be label values below L = {num_labels}, got {self.classes}")
        return [q if c in self.classes else 0.0 for c, q in enumerate(p)]
