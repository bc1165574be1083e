"""Generalised cross-entropy for partial labels: between cross-entropy and mean absolute error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labeldrop_bench import LabelSpace, rules
from labeldrop_bench.losses import LossInfo


class GeneralisedCrossEntropy(nn.Module):
    """`(1 - p^q) / q`, p being the probability of a pixel's candidates among its active classes (marginal rule).

    For q towards 0 it is the marginal cross-entropy -log p, for q = 1 the mean absolute error 1 - p, which a few wrong
    pixels hardly move. Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss for Training Deep Neural Networks with
    Noisy Labels", equation 6; there p is that of the one label.

    Args:
        num_classes: K, when label value c means class c.
        label_space: what label values mean; give this or num_classes.
        ignore_index: target value of pixels that count for nothing.
        q: in (0, 1].

    Raises:
        ValueError: both or none of num_classes and label_space, or q outside of its range.
    """

    member: Tensor  # [L, K]
    exhaustive: Tensor  # [L]

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        label_space: LabelSpace | None = None,
        ignore_index: int = -100,
        q: float = 0.7,
    ) -> None:
        super().__init__()
        if (num_classes is None) == (label_space is None):
            raise ValueError("GeneralisedCrossEntropy: give num_classes or label_space, and only one of them")
        if not 0 < q <= 1:
            raise ValueError(f"GeneralisedCrossEntropy: q must be above 0 and at most 1, got {q}")
        self.label_space = label_space or LabelSpace.of_classes(num_classes or 0)
        self.ignore_index, self.q = ignore_index, q
        member, exhaustive = rules.membership(self.label_space)
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("exhaustive", exhaustive, persistent=False)

    @property
    def out_channels(self) -> int:
        """How many channels the network must give: K."""
        return self.label_space.num_classes

    def forward(self, logits: Tensor, target: Tensor, annotated: Tensor | None = None) -> Tensor:
        """Mean over the pixels that count.

        Args:
            logits: [N, K, *spatial].
            target: [N, *spatial] label values, or ignore_index.
            annotated: [N, L] bool, was the label annotated in the sample? None: all were.
        """
        if annotated is None:
            annotated = torch.ones(len(logits), len(self.member), dtype=torch.bool, device=logits.device)
        candidates, active = rules.RULES["marginal"](annotated, self.member, self.exhaustive)  # [N, L, K] each
        counted = target != self.ignore_index  # [N, *spatial]
        label = torch.where(counted, target, 0).long()
        sample = torch.arange(len(target), device=target.device).view(-1, *[1] * (target.ndim - 1))
        may_be, looked_at = (table[sample, label].movedim(-1, 1) for table in (candidates, active))  # [N, K, *spatial]
        z = logits.float()
        # log p = logsumexp over candidates z - logsumexp over active z
        log_p = z.masked_fill(~may_be, -torch.inf).logsumexp(1) - z.masked_fill(~looked_at, -torch.inf).logsumexp(1)
        loss = -torch.expm1(self.q * log_p) / self.q
        return torch.where(counted, loss, 0).sum() / counted.sum().clamp_min(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """[N, K, *spatial]: softmax over classes."""
        return logits.softmax(dim=1)

    def predict(self, logits: Tensor) -> Tensor:
        """[N, *spatial] int64: the most probable class."""
        return logits.argmax(dim=1)

    def runs_on(self, device_type: str) -> bool:
        """Wherever torch does."""
        return True


INFO = LossInfo(
    GeneralisedCrossEntropy,
    formula="(1 - p^q) / q, p = probability of the candidates, marginal rule",
    source="Zhang and Sabuncu 2018",
    channels="K",
)
