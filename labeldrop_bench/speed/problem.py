"""One loss on one size of input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from labeldrop_bench import losses

LAYOUTS = ("contiguous", "channels_last")
COMPOUNDS = ("ce+dice", "marginal_ce+marginal_dice")
# Options that are measured besides a loss's defaults.
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {"predictive_variance": ({"samples": 20},)}
# Losses for which an ordinary implementation computes the same number, if every label is annotated.
ORDINARY = ("ce", "bce", "dice", "ce+dice")
# Their plain form keeps every sample of every pixel: many seconds and gigabytes at 96^3 on two cores.
SAMPLED = ("predictive_variance",)


@dataclass(frozen=True)
class Problem:
    """One loss on one size of input.

    Attributes:
        loss: registered name, or several joined by "+".
        num_classes: K.
        shape: of the target, `(N, *spatial)`.
        dtype: of the logits.
        layout: of the logits, "contiguous" `[N, C, *spatial]` or "channels_last" (C varies fastest).
        options: of the loss, beyond num_classes and backend.
    """

    loss: str
    num_classes: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def create(self, backend: str = "fused") -> nn.Module:
        """The loss itself."""
        return losses.create(self.loss, num_classes=self.num_classes, backend=backend, **self.options)

    @cached_property
    def channels(self) -> int:
        """C, how many channels of logits the loss reads."""
        channels: int = self.create("reference").out_channels  # type: ignore[assignment] # nn.Module hides its type
        return channels

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """What the loss is called with, the same on every call for a device.

        Returns:
            Logits `[N, C, *spatial]` that require a gradient; uint8 target `[N, *spatial]` with the labels 0 to K - 1;
            annotated `[N, K]` bool, the first half of the labels, or all where peers compute the same loss.
        """
        generator = torch.Generator(device).manual_seed(0)
        batch, *spatial = self.shape
        channels_last = self.layout == "channels_last"
        sizes = [batch, *spatial, self.channels] if channels_last else [batch, self.channels, *spatial]
        logits = torch.randn(sizes, generator=generator, device=device, dtype=self.dtype)
        if channels_last:
            logits = logits.movedim(-1, 1)
        target = torch.randint(0, self.num_classes, self.shape, generator=generator, device=device, dtype=torch.uint8)
        first = self.num_classes if self.loss in ORDINARY else (self.num_classes + 1) // 2
        annotated = (torch.arange(self.num_classes, device=device) < first).repeat(batch, 1)
        return logits.requires_grad_(), target, annotated

    @property
    def logits_bytes(self) -> int:
        """Size of the logits: N x C x pixels x bytes of an element."""
        return torch.Size(self.shape).numel() * self.channels * self.dtype.itemsize

    @property
    def compulsory_bytes(self) -> int:
        """2 x logits + N x pixels: logits read once, gradient written once, uint8 target read once.

        No forward and backward pass can do with less; one that reads the logits twice gets no credit for it.
        """
        return 2 * self.logits_bytes + torch.Size(self.shape).numel()

    @property
    def name(self) -> str:
        """The loss and its options: `predictive_variance samples=20`."""
        return " ".join([self.loss, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def label(self) -> str:
        """Everything that tells this problem from others, in one word."""
        size = "x".join(map(str, self.shape))
        options = "".join(f"-{key}{value}" for key, value in self.options.items())
        return f"{self.loss}{options}-K{self.num_classes}-{size}-{dtype_name(self.dtype)}-{self.layout}"


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def loss_options() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every loss of ours with its defaults and its variants, then the compounds."""
    for name in losses.LOSSES:
        yield name, {}
        for options in VARIANTS.get(name, ()):
            yield name, options
    for compound in COMPOUNDS:
        yield compound, {}


def default_problems() -> tuple[Problem, ...]:
    """What `labeldrop-bench speed` measures: each loss at K = 14, then one loss over K and dtype."""
    cube, small = (1, 96, 96, 96), (1, 64, 64, 64)
    each = [Problem(loss, 14, small if loss in SAMPLED else cube, options=options) for loss, options in loss_options()]
    over = [Problem("marginal_ce", num_classes, cube) for num_classes in (4, 32)]
    half = [Problem("marginal_ce", num_classes, cube, torch.bfloat16) for num_classes in (4, 14, 32)]
    return (*each, *over, *half)
