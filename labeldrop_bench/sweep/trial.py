"""A training step that is taken before training: which precision is faster, how much memory a process needs."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from labeldrop_bench import train
from labeldrop_bench.evaluate import portions
from labeldrop_bench.patches import make_patches
from labeldrop_bench.sweep.checks import Precision, Prepared

ENOUGH = 1.0  # seconds of steps, after which no other one is taken
TIMES = 3  # as many times as long as the step in float32, and the one in bf16 is broken off
KEY = 'training.precision = "auto"'


def has_bf16(device: str) -> bool:
    """Whether the hardware itself multiplies bf16 numbers; without, a step in bf16 may take a hundred times as long.

    Args:
        device: "cpu", by what torch says of the instruction set (AVX-512 BF16, AMX, or BF16 of Arm), or "cuda".
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine().lower() in ("arm64", "aarch64"):
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def choose_precision(prepared: Prepared, device: str, note: Callable[[str], None]) -> Precision:
    """The suite's precision; for "auto", bf16 autocast if a training step of the network is faster with it.

    Args:
        prepared: the suite.
        device: "cpu" or "cuda".
        note: told what "auto" came to, and before a trial that there is one.
    """
    precision = prepared.first[0].training.precision
    if precision != "auto":
        return precision
    if not has_bf16(device):
        note(f"{KEY}: 32-true, since there is no bf16 arithmetic on this machine's {device}")
        return "32-true"
    note(f"{KEY}: taking a step of the network with bf16 and one without")
    single, half = _race(_Trial(prepared, device))
    shown = f"{half:.2g} s" if half < math.inf else f"more than {TIMES} times as long"
    chosen: Precision = "bf16-mixed" if half < single else "32-true"
    note(f"{KEY}: {chosen}; a step takes {single:.2g} s in float32, and {shown} with bf16")
    return chosen


def try_step(prepared: Prepared, device: str, precision: Precision) -> None:
    """Take a training step and hold as many logits as a prediction does, for a hundred classes of a volume gigabytes.

    After that the peak memory of this process is what a process that trains and scores needs.
    """
    _Trial(prepared, device).step(precision == "bf16-mixed")
    torch.ones(logits_at_once(prepared), device=device)


def logits_at_once(prepared: Prepared) -> int:
    """How many logits a prediction of the first run holds: those of all views, and their mean if there are several."""
    run, dataset = prepared.first
    images, patches = dataset.validation.images, run.patches
    held = 1 + len(patches.planes) if patches.kind == "slab" and len(patches.planes) > 1 else 1
    at_once = len(range(len(images))[portions(images)[0]])
    pixels = at_once * math.prod(images.shape[2:])
    return held * pixels * train.make_loss(run.strategy, dataset.label_space).out_channels


class _TooSlowError(Exception):
    """The step was broken off."""


class _Trial:
    """Training steps of the first run's network, with bf16 autocast or without."""

    def __init__(self, prepared: Prepared, device: str) -> None:
        run, dataset = prepared.first
        self.device, self.ends = device, math.inf
        loss = train.make_loss(run.strategy, dataset.label_space)
        with torch.random.fork_rng():
            self.network = train.make_network(run.model, run.patches, dataset, loss).to(device)
            index = torch.arange(min(run.training.batch_size, len(dataset.train)))
            self.images = make_patches(run.patches).draw(dataset.train, index)[0].to(device)
        for module in self.network.modules():
            module.register_forward_hook(self._watch)

    def step(self, bf16: bool, limit: float = math.inf) -> float:
        """Seconds of a step.

        Raises:
            _TooSlowError: it takes longer than a limit, which is looked at behind every layer.
        """
        began = time.perf_counter()
        self.ends = began + limit
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            value = self.network(self.images).float().square().mean()
        value.backward()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def _watch(self, _: nn.Module, __: object, output: object) -> None:
        self._look()
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(self._look)

    def _look(self, *_: object) -> None:
        if time.perf_counter() > self.ends:
            raise _TooSlowError


def _race(trial: _Trial) -> tuple[float, float]:
    """Seconds of the fastest step in float32 and in bf16, infinite if that was broken off: quick ones are repeated."""
    best, began = {False: math.inf, True: math.inf}, time.perf_counter()
    while True:
        best[False] = min(best[False], trial.step(False))
        try:
            best[True] = min(best[True], trial.step(True, limit=max(ENOUGH, TIMES * best[False])))
        except _TooSlowError:
            return best[False], math.inf
        if time.perf_counter() - began > ENOUGH:
            return best[False], best[True]
