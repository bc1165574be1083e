"""Tables of rules that are kept from call to call: the same as fresh ones, and asked for again after any change."""

from unittest import mock

import pytest
import torch
from every_loss import NAMES, create, every_loss, example
from hypothesis import given
from hypothesis import strategies as st
from strategies import annotations, label_spaces

import labeldrop_bench as lb
from labeldrop_bench import rules
from labeldrop_bench.losses import _kept_tables

SINGLE = [name for name in NAMES if "+" not in name]


@given(space=label_spaces(max_classes=9), name=st.sampled_from(SINGLE), data=st.data())
def test_kept_tables_equal_fresh_ones(space, name, data):
    loss = lb.losses.create(name, label_space=space)
    for _ in range(3):
        annotated = data.draw(annotations(data.draw(st.integers(1, 4)), space.num_labels))
        for _ in range(2):  # the second time it is found
            kept, _ = loss._tables(annotated, torch.empty(0))
            fresh = loss._packed(annotated, torch.float32)
            assert all(torch.equal(a, b) for a, b in zip(kept, fresh, strict=True))


@every_loss
def test_annotated_that_was_changed_is_asked_again(name):
    loss = create(name)
    logits, target, annotated = example(loss)

    def value():
        torch.manual_seed(0)
        return loss(logits, target, annotated)

    for column in (3, 1, 2, 3, 1):
        if column == 2:
            annotated.numpy()[:, column] ^= True  # past torch's count of changes
        else:
            annotated[:, column] ^= True
        found = value()
        with mock.patch.dict(_kept_tables._BATCHES, clear=True), mock.patch.dict(_kept_tables._SAMPLES, clear=True):
            assert found == value()


def test_a_rule_that_was_changed_is_asked_again(monkeypatch):
    loss = create("adaptive_ce")
    logits, target, annotated = example(loss)
    before = loss(logits, target, annotated)
    monkeypatch.setitem(rules.RULES, "adaptive", rules.standard)
    assert loss(logits, target, annotated) == create("ce")(logits, target, annotated) != before


def test_a_rule_of_somebody_else_is_asked_each_time(monkeypatch):
    left = [rules.adaptive, rules.standard, rules.marginal]
    monkeypatch.setitem(rules.RULES, "adaptive", lambda *arguments: left.pop()(*arguments))
    loss = create("adaptive_ce")
    logits, target, annotated = example(loss)
    assert len({float(loss(logits, target, annotated)) for _ in range(3)}) == 3


def test_a_rule_may_be_any_callable(monkeypatch):
    class Rule(dict):  # not hashable
        def __call__(self, *arguments):
            return rules.marginal(*arguments)

    monkeypatch.setitem(rules.RULES, "adaptive", Rule())
    loss = create("adaptive_ce")
    assert loss(*example(loss)) == create("marginal_ce")(*example(loss))


def test_a_table_of_somebody_else_needs_no_rule():
    class Own(lb.losses.softmax.SetCrossEntropy):
        def table(self, annotated):
            return rules.marginal(annotated, self.member, self.exhaustive)

    loss = Own(num_classes=4)
    assert loss(*example(loss)) == create("marginal_ce")(*example(loss))


def test_a_table_of_somebody_else_is_asked_each_time():
    class Own(lb.AdaptiveCrossEntropy):
        rows = rules.standard

        def table(self, annotated):
            return type(self).rows(annotated, self.member, self.exhaustive)

    loss = Own(num_classes=4)
    logits, target, annotated = example(loss)
    values = []
    for Own.rows in map(staticmethod, (rules.adaptive, rules.standard, rules.marginal)):
        values.append(float(loss(logits, target, annotated)))
    assert len(set(values)) == 3
    loss.table = lambda annotated: rules.standard(annotated, loss.member, loss.exhaustive)
    assert float(loss(logits, target, annotated)) == values[1]


@pytest.mark.parametrize("name", ["marginal_ce", "smile", "marginal_dice", "marginal_ce+marginal_dice"])
def test_a_label_space_that_was_changed_is_asked_again(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    before = loss(logits, target, annotated)
    for term in getattr(loss, "terms", [loss]):
        term.exhaustive.numpy()[1:] = False  # scribbles, past torch's count of changes
    changed = loss(logits, target, annotated)
    assert changed != before
    assert changed == lb.losses.create(
        name,
        label_space=lb.LabelSpace(
            loss.label_space.classes,
            tuple(
                lb.Label(label.name, label.classes, exhaustive=value == 0)
                for value, label in enumerate(loss.label_space.labels)
            ),
        ),
    )(logits, target, annotated)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_weights_that_were_changed_are_asked_again(name, dtype):
    loss = create(name)
    weights = [3.0, 1.0, 2.0, 0.5][: loss.out_channels // loss.channels_per_class]
    loss = create(name, class_weights=weights)
    logits, target, annotated = example(loss)

    def value(asked):
        torch.manual_seed(0)
        return asked(logits.to(dtype), target, annotated)

    before = value(loss)
    loss.class_weights.numpy()[1] = 7.0  # past torch's count of changes
    weights[1] = 7.0
    assert value(loss) == value(create(name, class_weights=weights)) != before


def test_options_of_a_dice_are_told_apart():
    logits, target, annotated = example(create("adaptive_dice"))
    values = [
        float(create("adaptive_dice", **options)(logits, target, annotated))
        for options in ({}, {"include_background": False}, {})
    ]
    assert values[0] == values[2] != values[1]


def test_few_patterns_are_kept(monkeypatch):
    monkeypatch.setattr(_kept_tables, "MOST_SAMPLES", 10)
    monkeypatch.setattr(_kept_tables, "MOST_BATCHES", 5)
    monkeypatch.setattr(_kept_tables, "_SAMPLES", {})
    monkeypatch.setattr(_kept_tables, "_BATCHES", {})
    for pattern in range(64):
        annotated = torch.tensor([[bool(pattern >> bit & 1) for bit in range(6)]] * 2)
        (found,) = _kept_tables.kept("rule", _kept_tables.content(annotated), 6, lambda new: (new.int(),))
        assert torch.equal(found, annotated.int())
        assert len(_kept_tables._SAMPLES) <= 10
        assert len(_kept_tables._BATCHES) <= 5


def test_tables_first_asked_for_in_inference_mode_train_afterwards(monkeypatch):
    monkeypatch.setattr(_kept_tables, "_BATCHES", {})
    monkeypatch.setattr(_kept_tables, "_SAMPLES", {})
    loss = create("marginal_ce+marginal_dice")
    logits, target, annotated = example(loss)
    with torch.inference_mode():
        loss(logits, target, annotated)
    loss(logits.requires_grad_(), target, annotated).backward()


@pytest.mark.parametrize("name", SINGLE)
def test_background_that_is_not_annotated_is_an_error_each_time(name):
    loss = create(name)
    logits, target, annotated = example(loss)
    annotated[1, 0] = False
    for _ in range(2):
        with pytest.raises(ValueError, match=r"annotated\[:, 0\].*must be True, got False in sample 1"):
            loss(logits, target, annotated)
