"""Sums of soft Dice losses as a citizen of PyTorch: registration, compilation, and what the operator refuses."""

import pytest
import torch
from torch import nn

from labeldrop_bench import ops, reference


def example(dtype=torch.float32, requires_grad=True, num_classes=5):
    """Arguments of dice_sums; some pixels ignored, some classes merged."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, num_classes, 6, 7, generator=generator).to(dtype).requires_grad_(requires_grad)
    target = torch.randint(0, num_classes, (2, 6, 7), generator=generator)
    target[0, 0] = -100
    positive = torch.eye(num_classes, dtype=torch.bool).expand(2, -1, -1)
    merged = torch.zeros(2, num_classes, dtype=torch.bool)
    merged[1, 3:] = True
    everything = torch.ones_like(positive)
    return {
        "logits": logits,
        "target": target,
        "positive": positive,
        "counted": ~merged.unsqueeze(1) & everything,
        "active": everything,
        "merged": merged,
    }


def dice(sums):
    """A loss as the library's: one minus the mean Dice coefficient, and the cross-entropy."""
    intersection, prediction, truth, cross_entropy = sums
    return (1 - (2 * intersection + 1e-5) / (prediction + truth + 1e-5)).mean() + cross_entropy


def registered(arguments, with_cross_entropy, activation, squared, weight=None):
    """The arguments of the registered operators."""
    from labeldrop_bench.ops._tables import pack_tables

    tables = [arguments["active"], arguments["counted"], arguments["positive"] & arguments["counted"]]
    tables += [arguments["positive"]] if with_cross_entropy else []
    words = pack_tables("dice_sums", *tables), pack_tables("dice_sums", arguments["merged"].unsqueeze(1)).flatten(1)
    return arguments["logits"], arguments["target"], *words, weight, activation == "sigmoid", squared, -100


@pytest.mark.parametrize("mode", ["softmax", "cross-entropy", "sigmoid"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(mode, channels_last, weighted, dtype):
    from labeldrop_bench.ops._dice_operator import _backward, _forward

    arguments = example(dtype)
    if channels_last:
        logits = arguments["logits"].detach().to(memory_format=torch.channels_last)
        arguments["logits"] = logits.requires_grad_()
    weight = torch.rand(2, 6, 7) if weighted else None
    inputs = registered(arguments, mode == "cross-entropy", mode, squared=True, weight=weight)
    torch.library.opcheck(_forward, inputs)
    upstream = torch.randn(2, 5), torch.randn(2, 5), torch.randn(())
    # its derivative is refused on purpose, so its registration is checked without one
    torch.library.opcheck(_backward, (*upstream, arguments["logits"].detach(), *inputs[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("with_cross_entropy", [False, True])
def test_compiled_network_gets_the_same_gradients(with_cross_entropy):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))
    image = torch.randn(2, 1, 6, 7)
    others = example()
    candidates = others["positive"] if with_cross_entropy else None

    def step(image):
        return dice(ops.dice_sums(**{**others, "logits": network(image)}, candidates=candidates))

    gradients = []
    for function in (step, torch.compile(step, fullgraph=True)):
        network.zero_grad()
        value = function(image)
        value.backward()
        gradients.append([value.detach(), *(p.grad.clone() for p in network.parameters())])
    # the same formula, but convolutions may be fused differently
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["intersection", "prediction", "cross_entropy"])
def test_a_loss_of_one_of_the_sums_alone(part):
    gradients = []
    for backend in (ops, reference):
        arguments = example(torch.float64)
        sums = backend.dice_sums(**arguments, candidates=arguments["positive"])
        getattr(sums, part).square().sum().backward()
        gradients.append(arguments["logits"].grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_result_types_and_layout(dtype):
    arguments = example(dtype)
    arguments["logits"] = arguments["logits"].detach().to(memory_format=torch.channels_last).requires_grad_()
    sums = ops.dice_sums(**arguments, candidates=arguments["positive"])
    assert [each.dtype for each in sums] == [torch.float32] * 4
    assert [each.requires_grad for each in sums] == [True, True, False, True]
    dice(sums).backward()
    assert arguments["logits"].grad.dtype == dtype
    assert arguments["logits"].grad.is_contiguous(memory_format=torch.channels_last)


def test_retained_graph_gives_the_same_gradient_twice():
    arguments = example()
    loss = dice(ops.dice_sums(**arguments))
    (first,) = torch.autograd.grad(loss, arguments["logits"], retain_graph=True)
    (second,) = torch.autograd.grad(loss, arguments["logits"])
    assert torch.equal(first, second)


def test_second_derivative_is_refused():
    arguments = example()
    loss = dice(ops.dice_sums(**arguments))
    (gradient,) = torch.autograd.grad(loss, arguments["logits"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"dice_sums: second derivatives.*reference"):
        gradient.square().sum().backward()


def test_vmap_is_refused():
    arguments = example(requires_grad=False)
    logits = arguments.pop("logits")
    with pytest.raises(RuntimeError, match="dice_sums: vmap is not implemented"):
        torch.vmap(lambda z: ops.dice_sums(z, **arguments))(torch.stack([logits, logits]))


# ---- bad input ----


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": torch.zeros(2, 5)}, ValueError, r"logits must be \[N, K, \*spatial\].*got shape \[2, 5\]"),
        ({"logits": torch.zeros(2, 4, 6, 7)}, ValueError, "logits must have 5 channels.*got 4"),
        ({"target": torch.zeros(2, 6, 7)}, TypeError, "target must be one of uint8.*got torch.float32"),
        ({"positive": torch.zeros(2, 5, 5)}, TypeError, "positive must be bool, got torch.float32"),
        (
            {"counted": torch.ones(2, 6, 5, dtype=torch.bool)},
            ValueError,
            "active and counted and positive must have one shape",
        ),
        ({"active": torch.ones(1, 5, 5, dtype=torch.bool)}, ValueError, r"active must be \[N, L, K\] = \[2, L, 5\]"),
        ({"pixel_weight": torch.ones(2, 6)}, ValueError, r"pixel_weight must have shape \[2, 6, 7\], got \[2, 6\]"),
        ({"pixel_weight": torch.ones(2, 6, 7).long()}, TypeError, "pixel_weight must be of a floating type"),
        ({"pixel_weight": -torch.ones(2, 6, 7)}, ValueError, "pixel_weight must be finite and not negative, got -1.0"),
        ({"merged": torch.zeros(2, 5)}, TypeError, "merged must be bool, got torch.float32"),
        (
            {"merged": torch.zeros(2, 4, dtype=torch.bool)},
            ValueError,
            r"merged must be \[N, K\] = \[2, 5\], got \[2, 4\]",
        ),
        (
            {"merged": torch.zeros(2, 5, dtype=torch.bool, device="meta")},
            ValueError,
            "merged must be on the same device.*cpu, got meta",
        ),
        ({"candidates": torch.ones(2, 5, 5)}, TypeError, "candidates must be bool, got torch.float32"),
        ({"activation": "relu"}, ValueError, "activation must be 'softmax' or 'sigmoid', got 'relu'"),
        (
            {"activation": "sigmoid", "candidates": torch.ones(2, 5, 5, dtype=torch.bool)},
            ValueError,
            "candidates.*need activation='softmax', got 'sigmoid'",
        ),
    ],
)
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"dice_sums: {message}"):
        ops.dice_sums(**{**example(), **change})


@pytest.mark.parametrize("value", [5, -1, 300, -(2**40)])
@pytest.mark.parametrize("mode", ["softmax", "cross-entropy", "sigmoid"])
def test_a_value_that_is_no_label_is_named_with_its_position(value, mode):
    arguments = example()
    arguments["target"][1, 4, 3] = value
    arguments["target"][1, 5, 0] = value
    options = {"activation": "sigmoid"} if mode == "sigmoid" else {}
    options |= {"candidates": arguments["positive"]} if mode == "cross-entropy" else {}
    with pytest.raises(
        ValueError,
        match=rf"dice_sums: target values.*0 to 4 or ignore_index = -100, got {value} at position \[1, 4, 3\]",
    ):
        ops.dice_sums(**arguments, **options)


def test_a_backend_that_is_not_built_is_named(monkeypatch):
    from labeldrop_bench.ops import _native

    monkeypatch.setitem(_native._MODULES, "cpu", None)
    with pytest.raises(RuntimeError, match=r"dice_sums: there is no compiled kernel for device 'cpu'.*pip install"):
        ops.dice_sums(**example())
