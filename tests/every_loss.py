"""Every registered loss, and a sum of two, with something to call it with: a new one is tested without being named."""

import pytest
import torch

import labeldrop_bench as lb

NAMES = (*lb.losses.names(), "marginal_ce+marginal_dice")
every_loss = pytest.mark.parametrize("name", NAMES)


def create(name, **options):
    return lb.losses.create(name, num_classes=4, **options)


def example(loss, samples=2, size=4):
    """logits, target, annotated."""
    generator = torch.Generator().manual_seed(samples)
    logits = torch.randn(samples, loss.out_channels, size, size, generator=generator)
    target = torch.randint(0, 4, (samples, size, size), generator=generator)
    annotated = torch.ones(samples, 4, dtype=torch.bool)
    annotated[0, 3] = False
    return logits, target, annotated


def value_and_gradient(function, logits, factor=1.0):
    """Value and gradient, with the same noise each time."""
    torch.manual_seed(0)
    logits = logits.detach().clone().requires_grad_()
    value = function(logits)
    (factor * value).backward()
    return value.detach(), logits.grad
