"""Every loss once on each device that is there, small: what compute-sanitizer goes through in minutes.

That the kernels are right is shown elsewhere; here it is enough that each path through them runs: few classes and many,
both layouts, two types, sizes that are no multiple of anything.
"""

import pytest
import torch
from strategies import lay_out

import labeldrop_bench as lb

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
NAMES = [*lb.losses.names(), "marginal_ce+marginal_dice"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("num_classes", [3, 14, 40])
@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name, num_classes, layout, dtype, device):
    torch.manual_seed(0)
    loss = lb.losses.create(name, num_classes=num_classes).to(device)
    logits = lay_out(torch.randn(2, loss.out_channels, 13, 11).to(device, dtype), layout).requires_grad_()
    target = torch.randint(0, num_classes, (2, 13, 11), dtype=torch.uint8).to(device)
    annotated = (torch.arange(num_classes) < torch.tensor([[num_classes], [2]])).to(device)
    value = loss(logits, target, annotated)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_drop_labels(dtype, device):
    target = torch.randint(0, 4, (2, 13, 11), dtype=dtype)
    annotated = torch.tensor([[True, True, False, True], [True, False, True, True]])
    dropped = lb.drop_labels(target.to(device), annotated.to(device)).cpu()
    assert torch.equal(dropped, lb.reference.drop_labels(target, annotated))
