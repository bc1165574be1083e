"""Predictive variance as a citizen of PyTorch, and what it refuses."""

import pytest
import torch
from torch import nn

from labeldrop_bench import ops
from labeldrop_bench.ops._tables import pack_tables
from labeldrop_bench.ops.predictive_variance import _OPERATOR

KEY = torch.tensor([7])


def example(requires_grad=True):
    """Logits [2, 6, 6, 7], target, candidates and active [2, 4, 3]."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 6, 7, generator=generator).requires_grad_(requires_grad)
    target = torch.randint(0, 4, (2, 6, 7), generator=generator)
    target[0, 0] = -100
    candidates = torch.rand(2, 4, 3, generator=generator) < 0.4
    return logits, target, candidates, candidates | (torch.rand(2, 4, 3, generator=generator) < 0.5)


@pytest.mark.parametrize(
    ("reduction", "with_gradient"),
    [("mean", False), ("mean", True), ("sum", True), ("none", False)],
)
@pytest.mark.parametrize("parameters", [[2.0, 5.0, 0.0], [0.0, 5.0, 1.0]])
def test_opcheck(reduction, with_gradient, parameters):
    logits, target, candidates, active = example()
    weights = (None, torch.rand(3), torch.rand(2, 6, 7))
    inputs = (pack_tables("predictive_variance", candidates, active), *weights, KEY, parameters, -100)
    torch.library.opcheck(_OPERATOR.forward, (logits, target, *inputs, reduction, with_gradient))
    upstream, divisor = torch.randn(target.shape if reduction == "none" else ()), torch.tensor(3.0).double()
    # its derivative is refused on purpose, so its registration is checked without one
    torch.library.opcheck(_OPERATOR.backward, (upstream, divisor, logits.detach(), target, *inputs))


@pytest.mark.slow
def test_compiled_network_gets_the_same_gradients():
    torch.manual_seed(0)
    network = nn.Conv2d(1, 6, 3, padding=1)
    image = torch.randn(2, 1, 6, 7)
    _, target, candidates, active = example()

    def step(image, key):
        return ops.predictive_variance(network(image), target, candidates, active, key=key)

    compiled = torch.compile(step, fullgraph=True)
    results = []
    for function in (step, compiled):
        network.zero_grad()
        value = function(image, KEY)
        value.backward()
        results.append([value.detach(), *(p.grad.clone() for p in network.parameters())])
    # the same formula, but the convolution's sums may be ordered differently
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
    assert not torch.equal(compiled(image, None), compiled(image, None))  # a key is drawn in each call


def test_second_derivative_and_vmap_are_refused():
    logits, *rest = example()
    (gradient,) = torch.autograd.grad(ops.predictive_variance(logits, *rest), logits, create_graph=True)
    with pytest.raises(RuntimeError, match=r"predictive_variance: second derivatives.*reference"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match="predictive_variance: vmap is not implemented"):
        torch.vmap(lambda z: ops.predictive_variance(z, *rest, key=KEY))(torch.stack([logits, logits]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"samples": 0}, ValueError, "samples must be 1 to 4096, got 0"),
        ({"samples": 4097}, ValueError, "samples must be 1 to 4096, got 4097"),
        ({"samples": 2.0}, TypeError, "samples must be an integer, got 2.0"),
        ({"samples": True}, TypeError, "samples must be an integer, got True"),
        ({"gamma": -0.5}, ValueError, "gamma must be finite and not negative, .*got -0.5"),
        ({"gamma": float("nan")}, ValueError, "gamma must be finite and not negative, .*got nan"),
        ({"gamma": 1e39}, ValueError, r"gamma must be finite .*in float32 as well, got 1e\+39"),
        ({"average": "mean"}, ValueError, "average must be 'loss' or 'probability', got 'mean'"),
        ({"average": "probability", "gamma": 2.0}, ValueError, "gamma must be 0 with average='probability'.*got 2.0"),
        ({"key": torch.tensor([1.0])}, TypeError, "key must be int64, got torch.float32"),
        ({"key": torch.tensor(1)}, ValueError, r"key must have shape \[1\], got \[\]"),
        ({"key": torch.tensor([1], device="meta")}, ValueError, "key must be on the same device.*cpu, got meta"),
        (
            {"logits": torch.zeros(2, 3, 6, 7)},
            ValueError,
            r"logits must have 2 x 3 channels for tables of 3 classes \(first the classes' logits, then.*got 3",
        ),
        ({"active": torch.ones(2, 5, 3, dtype=torch.bool)}, ValueError, "candidates and active must have one shape"),
        ({"class_weight": torch.ones(6)}, ValueError, r"class_weight must have shape \[3\], got \[6\]"),
        ({"pixel_weight": -torch.ones(2, 6, 7)}, ValueError, "pixel_weight must be finite and not negative, got -1.0"),
        ({"reduction": "avg"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'avg'"),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    names = ("logits", "target", "candidates", "active")
    with pytest.raises(error, match=f"predictive_variance: {message}"):
        ops.predictive_variance(**dict(zip(names, example(), strict=True), **change))


def test_a_value_that_is_no_label_is_named_with_its_position():
    logits, target, candidates, active = example()
    target[1, 4, 3] = 9
    with pytest.raises(ValueError, match=r"predictive_variance: target values.*0 to 3.*got 9 at position \[1, 4, 3\]"):
        ops.predictive_variance(logits, target, candidates, active)
