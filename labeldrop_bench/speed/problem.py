"""One loss on one size of input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labeldrop_bench import losses

LAYOUTS = ("contiguous", "channels_last")
LABELS = ("blobs", "scattered")
CELLS = 8  # of the longest side of an image with blobs, which are about a cell wide
BACKGROUND = 2 / 3  # of the pixels
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
        labels: of the target. "blobs", as in images that people label: 12 % (4 classes, 256 x 256) to 40 % (14
            classes, 96 x 96 x 96) of the groups of eight neighbours have more than one label, which is what real
            label maps have too; or "scattered", each pixel's label drawn by itself: the worst case for kernels that
            share work between neighbours.
        upstream: the gradient that arrives at the loss: 1 from `backward()`, another one from deep supervision,
            gradient accumulation or a weighted sum.
        integer: type of the target: uint8, as label files have; or int64, which torch asks for.
    """

    loss: str
    num_classes: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    layout: str = "contiguous"
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    labels: str = "blobs"
    upstream: float = 1.0
    integer: torch.dtype = torch.uint8

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
            Logits `[N, C, *spatial]` that require a gradient; target `[N, *spatial]` with the labels 0 to K - 1;
            annotated `[N, K]` bool: in every other sample, the first among them, only the first half of the labels;
            all where peers compute the same loss.
        """
        generator = torch.Generator(device).manual_seed(0)
        batch, *spatial = self.shape
        channels_last = self.layout == "channels_last"
        sizes = [batch, *spatial, self.channels] if channels_last else [batch, self.channels, *spatial]
        logits = torch.randn(sizes, generator=generator, device=device, dtype=self.dtype)
        if channels_last:
            logits = logits.movedim(-1, 1)
        if self.labels == "blobs":
            target = _blobs(self.num_classes, self.shape, generator)
        else:
            target = torch.randint(
                0, self.num_classes, self.shape, generator=generator, device=device, dtype=torch.uint8
            )
        annotated = torch.ones(batch, self.num_classes, dtype=torch.bool, device=device)
        if self.loss not in ORDINARY:
            annotated[::2, (self.num_classes + 1) // 2 :] = False
        return logits.requires_grad_(), target.to(self.integer), annotated

    @property
    def logits_bytes(self) -> int:
        """Size of the logits: N x C x pixels x bytes of an element."""
        return torch.Size(self.shape).numel() * self.channels * self.dtype.itemsize

    @property
    def compulsory_bytes(self) -> int:
        """2 x logits + target: logits read once, gradient written once, target read once.

        No forward and backward pass can do with less; one that reads the logits twice gets no credit for it.
        """
        return 2 * self.logits_bytes + torch.Size(self.shape).numel() * self.integer.itemsize

    @property
    def special(self) -> str:
        """Options, and what else is not as usual: `samples=20`, `scattered labels`; empty if nothing is."""
        found = [f"{key}={value}" for key, value in self.options.items()]
        found += ["scattered labels"] * (self.labels == "scattered")
        found += [f"{dtype_name(self.integer)} target"] * (self.integer != torch.uint8)
        return ", ".join(found + [f"upstream {self.upstream:g}"] * (self.upstream != 1))

    @property
    def label(self) -> str:
        """Everything that tells this problem from others, in one word."""
        size = "x".join(map(str, self.shape))
        special = f"-{self.special}" if self.special else ""
        special = special.replace(", ", "-").replace(" ", "-").replace("=", "")
        return f"{self.loss}{special}-K{self.num_classes}-{size}-{dtype_name(self.dtype)}-{self.layout}"


def _blobs(num_classes: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Labels in blobs: each has a smooth random field, the largest wins, and where it is low there is background."""
    batch, *spatial = shape
    cells = [max(2, round(CELLS * size / max(spatial))) for size in spatial]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(spatial)]
    highest = torch.full(shape, -torch.inf, device=generator.device)
    target = torch.zeros(shape, dtype=torch.uint8, device=generator.device)
    for label in range(1, num_classes):
        coarse = torch.randn(batch, 1, *cells, generator=generator, device=generator.device)
        field = F.interpolate(coarse, tuple(spatial), mode=mode, align_corners=True)[:, 0]
        target[field > highest] = label
        highest = torch.maximum(highest, field)
    low = highest.flatten().kthvalue(math.ceil(BACKGROUND * highest.numel())).values
    return target.where(highest > low, 0)


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


Measurement = tuple[Problem, tuple[str, ...] | None]  # and the names of the peers; None: all that there are
STOCK = ("fused", "copy", "F.cross_entropy", "F.binary_cross_entropy", "MONAI")  # without the reference's plain forms


def default_measurements() -> tuple[Measurement, ...]:
    """What `labeldrop-bench speed` measures.

    Each loss at K = 14 beside everything; then, beside the stock implementations, families of losses over sizes, types
    and layouts, kinds of labels, another upstream gradient, and a step so small that it is all host.
    """
    flat, small_flat, volumes, cube = (16, 256, 256), (16, 64, 64), (2, 96, 96, 96), (1, 96, 96, 96)
    half = torch.bfloat16
    sizes = [
        *(Problem(loss, 4, flat) for loss in ("ce", "adaptive_ce", "marginal_ce", "bce", "dice", "ce+dice")),
        Problem("marginal_ce", 4, flat, labels="scattered"),
        Problem("marginal_ce", 4, flat, integer=torch.int64),
        *(Problem("marginal_ce", 4, flat, half, layout) for layout in LAYOUTS),
        *(Problem(loss, 4, small_flat) for loss in ("ce", "adaptive_ce", "marginal_ce")),
        *(Problem(loss, 4, (2, 8, 8)) for loss in ("ce", "adaptive_ce", "marginal_ce", "bce", "dice", "ce+dice")),
        *(Problem(loss, 14, volumes) for loss in ("ce", "adaptive_ce", "marginal_ce", "bce", "label_flip")),
        *(Problem(loss, 14, volumes) for loss in ("dice", "ce+dice")),
        Problem("predictive_variance", 14, volumes, options={"samples": 10}),
        Problem("marginal_ce", 14, volumes, labels="scattered"),
        *(Problem("marginal_ce", 14, volumes, half, layout) for layout in LAYOUTS),
        *(Problem("marginal_ce", num_classes, cube) for num_classes in (31, 64)),
        *(Problem("marginal_ce", 5, (2, 128, 128, 128), upstream=upstream) for upstream in (1.0, 0.5)),
    ]
    each = [Problem(loss, 14, (1, 64, 64, 64), options=options) for loss, options in loss_options()]
    return (*((problem, None) for problem in each), *((problem, STOCK) for problem in sizes))
