"""Tables that the device makes of a rule's formula, against those that torch makes of it."""

import re
from pathlib import Path

import pytest
import torch
from emulation.device import ORDERS
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import annotations, label_spaces

import labeldrop_bench as lb
from labeldrop_bench import Label, LabelSpace, ops, rules
from labeldrop_bench.sets import Program

SUMS = ("marginal_ce+marginal_dice", "adaptive_ce+adaptive_dice", "ce+exclusion_dice")
NAMES = [*lb.losses.names(), *SUMS]


def halves(classes):
    """A super-label of every second class, none of which has a label of its own, and one that is not exhaustive."""
    names = tuple(f"c{k}" for k in range(classes))
    labels = [Label("background", frozenset({0})), Label("all of them", frozenset(range(1, classes)), exhaustive=False)]
    labels += [Label(f"only c{k}", frozenset({k})) for k in range(1, classes, 2)]
    return LabelSpace(names, (*labels, Label("every second", frozenset(range(2, classes, 2)) or frozenset({1}))))


def terms(name, **options):
    """A loss, and the partner with which it shares its tables."""
    loss = lb.losses.create(name, **options)
    first, *others = getattr(loss, "terms", [loss])
    return (others[0], first) if others and others[0].can_share(first) else (first,)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(space=label_spaces(max_classes=70), order=st.sampled_from(ORDERS), data=st.data())
def test_the_device_makes_the_tables_that_torch_makes(emulated_cuda, name, space, order, data):
    compare(emulated_cuda, terms(name, label_space=space), data.draw(annotations(2, space.num_labels)), order)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 31, 32, 33, 64, 65, 512])
def test_any_number_of_classes(emulated_cuda, name, classes):
    space = halves(classes)
    annotated = torch.rand(3, space.num_labels, generator=torch.Generator().manual_seed(classes)) < 0.6
    annotated[:, 0] = True
    compare(emulated_cuda, terms(name, label_space=space), annotated, 2)
    compare(emulated_cuda, terms(name, label_space=space), None, 0)


@pytest.mark.parametrize("name", lb.losses.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_and_options_are_seen(emulated_cuda, name, dtype):
    space, annotated = halves(5), torch.tensor([[True, False, True, False, True], [True, True, False, True, False]])
    (loss,) = terms(name, label_space=space)
    weights = [0.1, 0.3, 0.7, 1.1, 0.0][: loss.out_channels // loss.channels_per_class]  # inexact in half types
    compare(emulated_cuda, terms(name, label_space=space, class_weights=weights), annotated, 1, dtype)
    if isinstance(loss, lb.losses.dice.SoftDice):
        for options in ({"include_background": False}, {"activation": "sigmoid"}):
            compare(emulated_cuda, terms(name, label_space=space, **options), annotated, 1, dtype)


def compare(emulated_cuda, asked, annotated, order, dtype=torch.float32):
    loss, *partner = asked
    assert loss._formula(*partner) is not None
    samples = 2 if annotated is None else len(annotated)
    logits = torch.empty(samples, loss.out_channels, 1, dtype=dtype)
    with emulated_cuda(order):
        found, _ = loss._tables(annotated, logits, *partner)
    expected = loss._packed(loss._all_annotated(logits) if annotated is None else annotated, dtype, *partner)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["marginal_ce", "smile", "marginal_dice", "marginal_ce+marginal_dice"])
def test_another_rule_and_another_label_space_are_asked_again(emulated_cuda, monkeypatch, name):
    annotated = torch.tensor([[True, False, True, False], [True, True, True, False]])
    before = terms(name, num_classes=4)
    compare(emulated_cuda, before, annotated, 0)
    for term in before:
        term.exhaustive.numpy()[1:] = False
    compare(emulated_cuda, before, annotated, 0)
    for known in (rules.RULES, rules.SIGMOID_RULES, rules.DICE_RULES):
        for each in known:
            monkeypatch.setitem(known, each, known["standard"])
    compare(emulated_cuda, terms(name, num_classes=4), annotated, 0)


def test_a_rule_that_is_no_formula_is_asked_itself(emulated_cuda, monkeypatch):
    monkeypatch.setitem(rules.RULES, "marginal", lambda *arguments: rules.adaptive(*arguments))
    loss, annotated = lb.MarginalCrossEntropy(num_classes=4), torch.tensor([[True, False, True, False]])
    logits, target = torch.randn(1, 4, 6), torch.tensor([[0, 1, 2, 3, 0, 0]])
    with emulated_cuda():
        assert loss(logits, target, annotated) == lb.AdaptiveCrossEntropy(num_classes=4)(logits, target, annotated)


def test_a_table_of_somebody_else_is_asked_itself(emulated_cuda):
    class Own(lb.MarginalCrossEntropy):
        def table(self, annotated):
            return rules.adaptive(annotated, self.member, self.exhaustive)

    logits, target = torch.randn(1, 4, 6), torch.tensor([[0, 1, 2, 3, 0, 0]])
    annotated = torch.tensor([[True, False, True, False]])
    with emulated_cuda():
        expected = lb.AdaptiveCrossEntropy(num_classes=4)(logits, target, annotated)
        assert Own(num_classes=4)(logits, target, annotated) == expected


def test_a_formula_of_more_steps_than_the_kernel_takes_is_none_for_it():
    program = Program()
    sets = program.background
    for _ in range(61):  # and the three that every program has
        sets = ~sets
    assert ops.Formula.of(program, [sets]) is not None
    assert ops.Formula.of(program, [~sets]) is None


def test_the_steps_have_the_order_of_the_kernels():
    names = {"both": "and", "either": "or", "others": "not"}  # and, or, not are words of C++
    text = (Path(__file__).parents[2] / "csrc" / "arguments.h").read_text(encoding="utf-8")
    codes = re.search(r"enum class SetCode : uint8_t {([^}]*)}", text)[1].replace(",", " ").split()
    assert tuple(names.get(code, code) for code in codes) == Program.CODES
