"""Set cross-entropy as a citizen of PyTorch: registration, compilation, autocast, DDP, and what it refuses."""

import pytest
import torch
from torch import nn
from two_processes import run_in_two_processes

import labeldrop_bench as lb
from labeldrop_bench import ops
from labeldrop_bench.ops._pixel_operator import wants_gradient
from labeldrop_bench.ops._tables import pack_tables
from labeldrop_bench.ops.set_cross_entropy import _OPERATOR


def example(dtype=torch.float32, num_classes=5, requires_grad=True):
    """logits, target, candidates, active; some labels not annotated, some pixels ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, num_classes, 6, 7, generator=generator).to(dtype).requires_grad_(requires_grad)
    target = torch.randint(0, num_classes, (2, 6, 7), generator=generator)
    target[0, 0] = -100
    annotated = torch.ones(2, num_classes, dtype=torch.bool)
    annotated[1, 2:] = False
    return logits, target, *lb.MarginalCrossEntropy(num_classes=num_classes).table(annotated)


@pytest.mark.parametrize(
    ("reduction", "with_gradient"),
    [("mean", False), ("mean", True), ("sum", False), ("sum", True), ("none", False)],
)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_opcheck(reduction, with_gradient, channels_last, weighted):
    logits, target, candidates, active = example()
    if channels_last:
        logits = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    weights = (torch.rand(2, 5), None, torch.rand(2, 6, 7)) if weighted else (None, None, None)
    inputs = (pack_tables("set_cross_entropy", candidates, active), *weights, None, [], -100)
    torch.library.opcheck(_OPERATOR.forward, (logits, target, *inputs, reduction, with_gradient))
    upstream, divisor = torch.randn(target.shape if reduction == "none" else ()), torch.tensor(3.0).double()
    # its derivative is refused on purpose, so its registration is checked without one
    torch.library.opcheck(_OPERATOR.backward, (upstream, divisor, logits.detach(), target, *inputs))


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_network_gets_the_same_gradients(reduction):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    loss = lb.AdaptiveCrossEntropy(num_classes=4, reduction=reduction)
    image = torch.randn(2, 1, 16, 16)
    target = torch.randint(0, 4, (2, 16, 16))
    annotated = torch.tensor([[True, True, True, True], [True, True, True, False]])

    def step(image):
        return loss(network(image), target, annotated).sum()

    gradients = []
    for function in (step, torch.compile(step, fullgraph=True)):
        network.zero_grad()
        value = function(image)
        value.backward()
        gradients.append([value.detach(), *(p.grad.clone() for p in network.parameters())])
    # the same formula, but convolutions may be fused differently
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def test_autocast():
    torch.manual_seed(0)
    network = nn.Conv2d(1, 4, 3)
    image, target = torch.randn(2, 1, 10, 10), torch.randint(0, 4, (2, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image)
        loss = lb.CrossEntropy(num_classes=4)(logits, target)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert network.weight.grad.dtype == torch.float32
    exact = nn.functional.cross_entropy(network(image).double(), target).item()
    assert loss.item() == pytest.approx(exact, rel=2**-7)


_DDP = """
network = torch.nn.Conv2d(1, 4, 3, padding=1)
image, target = torch.randn(4, 1, 8, 8), torch.randint(0, 4, (4, 8, 8))
loss = lb.AdaptiveCrossEntropy(num_classes=4)
loss(network(image), target).backward()
alone = [p.grad.clone() for p in network.parameters()]
network.zero_grad()
join()
parallel = DistributedDataParallel(network)
loss(parallel(image[mine]), target[mine]).backward()
torch.testing.assert_close([p.grad for p in network.parameters()], alone)
"""


@pytest.mark.slow
def test_distributed_data_parallel_gives_the_gradient_of_the_whole_batch(tmp_path):
    run_in_two_processes(_DDP, tmp_path)


def test_second_derivative_is_refused():
    logits, target, candidates, active = example()
    loss = ops.set_cross_entropy(logits, target, candidates, active)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match=r"set_cross_entropy: second derivatives.*reference"):
        gradient.square().sum().backward()


def test_vmap_is_refused():
    logits, target, candidates, active = example(requires_grad=False)
    with pytest.raises(RuntimeError, match="set_cross_entropy: vmap is not implemented"):
        torch.vmap(lambda z: ops.set_cross_entropy(z, target, candidates, active))(torch.stack([logits, logits]))


def test_no_gradient_is_formed_when_none_is_wanted():
    logits = example()[0]
    assert wants_gradient(logits)
    assert not wants_gradient(logits.detach())
    assert not wants_gradient(logits.half())
    with torch.no_grad():
        assert not wants_gradient(logits)


# ---- bad input ----


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": torch.zeros(2, 5)}, ValueError, r"logits must be \[N, K, \*spatial\].*got shape \[2, 5\]"),
        ({"logits": torch.zeros(2, 5, 6, 7, dtype=torch.int32)}, TypeError, "logits must be one of.*got torch.int32"),
        (
            {"target": torch.zeros(2, 6, 8, dtype=torch.uint8)},
            ValueError,
            r"target must be.*\[2, 6, 7\].*got \[2, 6, 8\]",
        ),
        ({"target": torch.zeros(2, 6, 7)}, TypeError, "target must be one of uint8.*got torch.float32"),
        (
            {"target": torch.zeros(2, 6, 7, dtype=torch.uint8, device="meta")},
            ValueError,
            "target must be on the same device.*cpu, got meta",
        ),
        (
            {"candidates": torch.zeros(2, 5, 4, dtype=torch.bool)},
            ValueError,
            "logits must have 4 channels for tables of 4",
        ),
        ({"candidates": torch.zeros(2, 5, dtype=torch.bool)}, ValueError, r"candidates must be \[N, L, K\]"),
        ({"active": torch.zeros(2, 5, 5)}, TypeError, "active must be bool, got torch.float32"),
        ({"active": torch.ones(2, 6, 5, dtype=torch.bool)}, ValueError, "candidates and active must have one shape"),
        ({"reduction": "avg"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    logits, target, candidates, active = example()
    arguments = {"logits": logits, "target": target, "candidates": candidates, "active": active, **change}
    with pytest.raises(error, match=f"set_cross_entropy: {message}"):
        ops.set_cross_entropy(**arguments)


@pytest.mark.parametrize("value", [5, -1, 300, -(2**40)])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_a_value_that_is_no_label_is_named_with_its_position(value, with_gradient):
    logits, target, candidates, active = example(requires_grad=with_gradient)
    target[1, 4, 3] = value
    target[1, 5, 0] = value
    with pytest.raises(
        ValueError,
        match=rf"set_cross_entropy: target values.*0 to 4 or ignore_index = -100, got {value} at position \[1, 4, 3\]",
    ):
        ops.set_cross_entropy(logits, target, candidates, active)


def test_a_backend_that_is_not_built_is_named(monkeypatch):
    from labeldrop_bench.ops import _native

    monkeypatch.setitem(_native._MODULES, "cpu", None)
    with pytest.raises(
        RuntimeError, match=r"set_cross_entropy: there is no compiled kernel for device 'cpu'.*pip install"
    ):
        ops.set_cross_entropy(*example())


@pytest.mark.parametrize("place", [0, 7, 16, 19])
@pytest.mark.parametrize("value", [2**32, 2**32 + 1, -(2**32) + 1, 2**63 - 1, -(2**63), -1, 2])
def test_labels_of_64_bits_are_read_whole(isa, value, place):
    """One whose lower half is a label is none; as ignore_index it hides its own pixels alone."""
    logits = torch.randn(1, 3, 20)
    tables = torch.eye(2, 3, dtype=torch.bool)[None], torch.ones(1, 2, 3, dtype=torch.bool)
    target = torch.ones(1, 20, dtype=torch.int64)
    expected = ops.set_cross_entropy(logits, target, *tables, reduction="none")
    target[0, place] = value
    with pytest.raises(ValueError, match=f"set_cross_entropy: .*{value}"):
        ops.set_cross_entropy(logits, target, *tables, reduction="none")
    expected[0, place] = 0
    loss = ops.set_cross_entropy(logits, target, *tables, ignore_index=value, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
