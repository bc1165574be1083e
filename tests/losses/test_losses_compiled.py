"""Every loss, compiled for batches of any size, with options that change, cast, and with any default type."""

import inspect
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from every_loss import create, every_loss, example, value_and_gradient
from torch import nn
from torch._dynamo.utils import counters

import labeldrop_bench as lb

SIZES = range(2, 12)
# where a compiler makes a test slow
one_of_each_operator = pytest.mark.parametrize(
    "name", sorted({create(name).operator: name for name in lb.losses.names()}.values())
)

# ---- one graph for all sizes ----


def graphs(function, sizes, channels, **options):
    """How many graphs a compiled function of logits, target and annotated has after batches of these sizes."""
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", **options)
    for samples in sizes:
        logits = torch.randn(samples, channels, 4, 4, requires_grad=True)
        annotated = torch.ones(samples, 4, dtype=torch.bool)
        compiled(logits, torch.randint(0, 4, (samples, 4, 4)), annotated).backward()
    return counters["stats"]["unique_graphs"]


@cache
def graphs_of_cross_entropy(sizes, **options):
    return graphs(lambda z, t, a: F.cross_entropy(z, t), sizes, 4, **options)


def with_dropout(loss):
    """Loss of dropped annotations, and a term that keeps the rewritten target in the graph."""
    drop = lb.LabelDropout(0.3)
    return lambda z, t, a: loss(z, t, drop(a)) + 0 * lb.drop_labels(t, a).sum()


def assert_graphs_of_cross_entropy(name, **options):
    loss = create(name)
    usual = graphs_of_cross_entropy(SIZES, **options)
    assert graphs(with_dropout(loss), SIZES, loss.out_channels, **options) <= usual <= 2


@every_loss
def test_ten_batch_sizes_need_the_graphs_of_cross_entropy(name):
    assert_graphs_of_cross_entropy(name, dynamic=True)


@one_of_each_operator
def test_ten_batch_sizes_need_the_graphs_of_cross_entropy_by_default(name):
    assert_graphs_of_cross_entropy(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["marginal_ce", "smile", "marginal_ce+marginal_dice"])
def test_a_compiled_network_trains_with_a_smaller_last_batch(name):
    torch.compiler.reset()
    counters.clear()
    loss = create(name)
    torch.manual_seed(0)
    network = nn.Conv2d(1, loss.out_channels, 3, padding=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def forward(image, target, annotated):
        return loss(network(image), target, annotated)

    target = torch.randint(0, 4, (7, 8, 8))
    image = target.unsqueeze(1).float() - 1.5
    annotated = torch.ones(7, 4, dtype=torch.bool)
    values = []
    for _ in range(4):
        for part in (slice(0, 3), slice(3, 6), slice(6, 7)):
            optimizer.zero_grad()
            value = forward(image[part], target[part], annotated[part])
            value.backward()
            optimizer.step()
            values.append(value.item())
    assert values[-1] < values[2]  # the same last batch, learned
    assert counters["stats"]["unique_graphs"] <= 3  # torch makes one for a size, one for any, one for a batch of one


# ---- nothing frozen at the first call, nothing cast ----

OTHERS = {
    "ignore_index": 1,
    "reduction": "sum",
    "backend": "reference",
    "gamma": 1.5,
    "alpha": 0.25,
    "rule": "adaptive",
    "detach_target": True,
    "samples": 3,
    "average": "probability",
    "batch": True,
    "squared": True,
    "include_background": False,
}
# What the network and the buffers are made for; base, which gamma stands for; what has no bearing on one process's CPU.
FIXED = {"num_classes", "label_space", "activation", "class_weights", "base", "check_target", "process_group"}


def changeable(name):
    """Options of a loss that can be set later; those of a focal loss only where it is one."""
    options = set(inspect.signature(type(create(name))).parameters) - FIXED
    return sorted(options - (set() if getattr(create(name), "base", "focal") == "focal" else {"gamma", "alpha"}))


def assert_changes_count(name, compiled):
    def value(loss):
        torch.manual_seed(0)
        return loss(*example(loss))

    for option in changeable(name):
        torch.compiler.reset()
        if name == "predictive_variance" and option == "backend":
            continue  # without a key the reference draws other noise
        loss = create(name)
        called = torch.compile(loss, backend="aot_eager") if compiled else loss
        value(called)
        setattr(loss, option, OTHERS[option])
        torch.testing.assert_close(value(called), value(create(name, **{option: OTHERS[option]})), msg=option)


@pytest.mark.parametrize("name", lb.losses.names())
def test_an_option_that_is_changed_counts_from_the_next_call(name):
    assert_changes_count(name, compiled=False)


@pytest.mark.slow
@one_of_each_operator
def test_an_option_that_is_changed_counts_when_compiled(name):
    assert_changes_count(name, compiled=True)


def test_an_option_of_a_term_that_is_changed_counts_from_the_next_call():
    loss = create("marginal_ce+marginal_dice")
    arguments = example(loss)
    loss(*arguments)
    for term, option, other in (
        (0, "ignore_index", 1),
        (1, "batch", True),
        (0, "reduction", "sum"),
        (1, "squared", True),
    ):
        setattr(loss.terms[term], option, other)
        torch.testing.assert_close(loss(*arguments), sum(each(*arguments) for each in loss.terms))


@every_loss
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_a_cast_module_computes_the_same(name, cast):
    weights = {}
    if "class_weights" in inspect.signature(type(create(name))).parameters:
        weights["class_weights"] = [0.1, 0.3, 0.7, 1.1][create(name).activation == "sigmoid" :]  # inexact in half types
    loss = create(name, **weights)
    arguments = example(loss)
    torch.manual_seed(0)
    expected = loss(*arguments)
    torch.manual_seed(0)
    assert getattr(nn.Sequential(loss), cast)()[0](*arguments) == expected


@every_loss
@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_default_dtype(name, backend, dtype):
    logits, target, annotated = example(create(name))
    results = []
    for default in (torch.float32, dtype):
        torch.set_default_dtype(default)
        try:
            loss = create(name, backend=backend)
            results.append(value_and_gradient(lambda z, loss=loss: loss(z, target, annotated), logits))
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
