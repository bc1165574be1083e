"""Rules, against the definitions written out as sets."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import annotations, label_spaces

from labeldrop_bench import Label, LabelSpace, rules


def expected_rows(space, annotated, rule):
    """{label value: (candidates, active)} of one sample, as sets of classes."""
    everything = set(range(space.num_classes))
    covered = {0}.union(
        *(label.classes for label, drawn in zip(space.labels, annotated, strict=True) if drawn and label.exhaustive)
    )
    missing = everything - covered
    rows = {}
    for value, label in enumerate(space.labels):
        background = value == 0 or not annotated[value]
        own = set(label.classes)
        rows[value] = {
            "standard": ({0} if background else own, everything),
            "adaptive": ({0} if background else own, covered if background else covered | own),
            "marginal": ({0} | missing if background else own, everything),
        }[rule]
    return rows


@given(label_spaces(max_classes=8), st.sampled_from(sorted(rules.RULES)), st.data())
def test_tables_are_what_the_definitions_say(space, rule, data):
    annotated = data.draw(annotations(2, space.num_labels))
    candidates, active = rules.RULES[rule](annotated, *rules.membership(space))
    for n in range(2):
        for value, (expected_candidates, expected_active) in expected_rows(space, annotated[n].tolist(), rule).items():
            assert set(candidates[n, value].nonzero().flatten().tolist()) == expected_candidates
            assert set(active[n, value].nonzero().flatten().tolist()) == expected_active


@given(label_spaces(), st.sampled_from(sorted(rules.RULES)), st.data())
def test_candidates_are_active_and_no_row_is_empty(space, rule, data):
    candidates, active = rules.RULES[rule](data.draw(annotations(2, space.num_labels)), *rules.membership(space))
    assert not (candidates & ~active).any()
    assert candidates.any(dim=-1).all()


def test_a_label_that_is_not_exhaustive_covers_nothing():
    space = LabelSpace(
        ("background", "LV", "LA"),
        (Label("background", frozenset({0})), Label("LV", frozenset({1})), Label("LA scribble", frozenset({2}), False)),
    )
    member, exhaustive = rules.membership(space)
    covered = rules.covered_classes(torch.ones(1, 3, dtype=torch.bool), member, exhaustive)
    assert covered.tolist() == [[True, True, False]]
    candidates, _ = rules.marginal(torch.ones(1, 3, dtype=torch.bool), member, exhaustive)
    assert candidates[0].tolist() == [[True, False, True], [False, True, False], [False, False, True]]
