"""The fused loss, and what people would use without it.

A step is one forward and one backward pass. It ends with `torch.autograd.grad`, which hands over the gradient of the
logits as it is handed on to a network, without the copy that `.grad` of a leaf may add.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .problem import Problem

Step = Callable[[], None]
Stock = Callable[[Problem], Callable[[Tensor, Tensor], Tensor]]
CROSS_ENTROPIES = ("ce", "adaptive_ce", "marginal_ce")


def peer_names(problem: Problem) -> tuple[str, ...]:
    """Names of the peers of a problem.

    `fused`; `copy`, a clone of the logits; `eager`, the reference backend; `compile`, torch.compile of it, forward and
    backward; then the stock implementations of the same loss. For adaptive_ce and marginal_ce `F.cross_entropy` is not
    the same loss but the ordinary one: what partial labels cost.
    """
    return ("fused", "copy", "eager", "compile", *stock(problem))


def peers(problem: Problem, device: torch.device) -> dict[str, Callable[[], Step]]:
    """Peers by name; a peer is made when it is called, since making it may take long or fail."""
    logits, target, annotated = problem.tensors(device)
    wide_target = target.long()  # the only type that F.cross_entropy takes

    upstream = None if problem.upstream == 1 else torch.tensor(problem.upstream, device=device)

    def step(loss: Callable[..., Tensor], *arguments: Tensor) -> Step:
        def run() -> None:
            torch.autograd.grad(loss(logits, *arguments), logits, upstream)

        return run

    def copy() -> None:
        logits.detach().clone()

    def compiled() -> Step:
        torch._dynamo.reset()  # or it gives up after some shapes, and compiles for any shape from the second on
        loss = torch.compile(problem.create("reference"), fullgraph=True, dynamic=False)
        check_backward_is_compiled(loss(logits, target, annotated), logits)
        return step(loss, target, annotated)

    known: dict[str, Callable[[], Step]] = {
        "fused": lambda: step(problem.create(), target, annotated),
        "copy": lambda: copy,
        "eager": lambda: step(problem.create("reference"), target, annotated),
        "compile": compiled,
    }
    for name, make in stock(problem).items():
        known[name] = lambda make=make: step(make(problem), wide_target)  # type: ignore[misc]
    return {name: known[name] for name in peer_names(problem)}


def check_backward_is_compiled(value: Tensor, logits: Tensor) -> None:
    """Run the backward pass, and see that it is one compiled graph.

    The value's only node in the autograd graph must be the one that torch.compile makes of a compiled forward and
    backward pair, and it must lead to the logits directly: nothing is left for eager autograd to do.

    Raises:
        RuntimeError: it is not.
    """
    node = value.grad_fn
    inputs = [following for following, _ in node.next_functions if following is not None] if node else []
    leaves = all(type(following).__name__ == "AccumulateGrad" for following in inputs)
    if type(node).__name__ != "CompiledFunctionBackward" or len(inputs) != 1 or not leaves:
        raise RuntimeError(f"compile: the backward pass is not one compiled graph: {node} on top of {inputs}")
    torch.autograd.grad(value, logits)


def stock(problem: Problem) -> dict[str, Stock]:
    """Implementations of a loss in torch and MONAI."""
    if problem.options:
        return {}
    if problem.loss in CROSS_ENTROPIES:
        return {"F.cross_entropy": lambda _: F.cross_entropy}
    if problem.loss == "bce":
        return {"F.binary_cross_entropy": _binary_cross_entropy}
    if problem.loss == "dice":
        return {"MONAI": _monai_dice}
    return {"MONAI": _monai_dice_ce} if problem.loss == "ce+dice" else {}


def _binary_cross_entropy(problem: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    """Of logits `[N, K - 1, *spatial]`, one channel for each foreground class; mean over pixels, not over elements."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        one_hot = F.one_hot(target, problem.num_classes).movedim(-1, 1)[:, 1:].to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, one_hot) * (problem.num_classes - 1)

    return loss


# 1 - (2 I + e) / (P + T + e), e = 1e-5, per sample and class: ours, and MONAI's own default.
_MONAI_OPTIONS: dict[str, Any] = {
    "softmax": True, "to_onehot_y": True, "include_background": True, "batch": False, "reduction": "mean",
    "smooth_nr": 1e-5, "smooth_dr": 1e-5,
}  # fmt: skip


def _monai_dice(_: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    from monai.losses.dice import DiceLoss

    loss = DiceLoss(**_MONAI_OPTIONS)
    return lambda logits, target: loss(logits, target.unsqueeze(1))


def _monai_dice_ce(_: Problem) -> Callable[[Tensor, Tensor], Tensor]:
    from monai.losses.dice import DiceCELoss

    loss = DiceCELoss(**_MONAI_OPTIONS)
    return lambda logits, target: loss(logits, target.unsqueeze(1))
