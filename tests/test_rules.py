"""Rules, against the definitions written out as sets."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import annotations, label_spaces

from labeldrop_bench import Label, LabelSpace, rules

EVERY_RULE = {*rules.RULES.values(), *rules.SIGMOID_RULES.values(), *rules.DICE_RULES.values()}


def expected_rows(space, annotated, rule):
    """{label value: (candidates, active)} of one sample, as sets of classes."""
    everything = set(range(space.num_classes))
    covered = {0}.union(
        *(label.classes for label, there in zip(space.labels, annotated, strict=True) if there and label.exhaustive)
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


@given(label_spaces(), st.sampled_from(sorted(rules.PER_SAMPLE & EVERY_RULE, key=str)), st.data())
def test_a_rule_that_says_so_looks_at_each_sample_by_itself(space, rule, data):
    """Losses keep the tables of samples, and put batches together from them."""
    annotated = data.draw(annotations(3, space.num_labels))
    together = rule(annotated, *rules.membership(space))
    for n in range(3):
        alone = rule(annotated[n : n + 1], *rules.membership(space))
        assert all(torch.equal(a[n], b[0]) for a, b in zip(together, alone, strict=True))


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


# ---- the sigmoid family ----


def sigmoid_rows(space, annotated, rule):
    """{label value: (yes, no)} of one sample, as sets of classes, by the table of the losses' definition."""
    everything = set(range(space.num_classes))
    covered = {0}.union(
        *(label.classes for label, there in zip(space.labels, annotated, strict=True) if there and label.exhaustive)
    )
    rows = {}
    for value, label in enumerate(space.labels):
        if value == 0 or not annotated[value]:
            rows[value] = (set(), {"standard": everything, "adaptive": covered, "smile": covered}[rule])
            continue
        own = set(label.classes)
        active = {"standard": everything, "adaptive": covered | own, "smile": everything}[rule]
        # of several possible classes nothing is known
        rows[value] = (own if len(own) == 1 else set(), active - own)
    return rows


@given(label_spaces(max_classes=8), st.sampled_from(sorted(rules.SIGMOID_RULES)), st.data())
def test_sigmoid_tables_are_what_the_definitions_say(space, rule, data):
    annotated = data.draw(annotations(2, space.num_labels))
    candidates, active = rules.binary(*rules.SIGMOID_RULES[rule](annotated, *rules.membership(space)))
    assert not (candidates & ~active).any()
    for n in range(2):
        for value, (yes, no) in sigmoid_rows(space, annotated[n].tolist(), rule).items():
            found = [
                {k + 1 for k in table[n, value].nonzero().flatten().tolist()}
                for table in (candidates, active & ~candidates)
            ]
            assert found == [yes - {0}, no - {0}], (value, rule)


# ---- the Dice family ----

HEART = LabelSpace(
    ("background", "LV", "LVM", "LA"),
    (
        Label("background", frozenset({0})),
        Label("LV", frozenset({1})),
        Label("LVM", frozenset({2})),
        Label("LA", frozenset({3})),
        Label("LV or LA", frozenset({1, 3}), exhaustive=False),
    ),
)
LV_AND_SUPER = torch.tensor(
    [[True, True, False, False, True]]
)  # LV annotated; LVM and LA missing; a coarse label as well


def table_of(rule):
    """{attribute: the classes of each label's row, or of the sample}."""
    table = rules.DICE_RULES[rule](LV_AND_SUPER, *rules.membership(HEART))
    return {
        name: [set(row.nonzero().flatten().tolist()) for row in (part[0] if part.ndim == 3 else part)]
        for name, part in table._asdict().items()
    }


def test_dice_tables_by_hand():
    everything = {0, 1, 2, 3}

    table = table_of("standard")
    # LVM and LA are unannotated, so their pixels read as background; a pixel that is LV or LA is neither for sure
    assert table["positive"] == [{0}, {1}, {0}, {0}, set()]
    assert table["counted"] == [everything] * 4 + [{0, 2}]
    assert table["active"] == [everything] * 5
    assert (table["merged"], table["included"]) == ([set()], [everything])

    table = table_of("adaptive")
    assert table["positive"] == [{0}, {1}, {0}, {0}, set()]
    assert table["counted"] == [{0, 1}] * 4 + [{0}]
    assert table["active"] == [{0, 1}] * 4 + [{0, 1, 3}]
    assert (table["merged"], table["included"]) == ([set()], [{0, 1}])

    table = table_of("marginal")
    # LV or LA is, with LA merged into background, LV or background: nothing is looked at
    assert table["positive"] == [{0}, {1}, {0}, {0}, set()]
    assert table["counted"] == [{0, 1}] * 4 + [set()]
    assert (table["merged"], table["included"]) == ([{2, 3}], [{0, 1}])

    table = table_of("exclusion")
    # background may be missing classes, so only LV is excluded there; an LV pixel is nothing else
    assert table["positive"] == [{1}, {0, 2, 3}, {1}, {1}, {0, 2}]
    assert table["counted"] == [everything] * 5
    assert table["included"] == [everything]

    table = table_of("leaf")
    assert table["positive"] == [set(), {1}, set(), set(), set()]
    assert table["counted"] == [everything] * 5
    assert table["included"] == [{1}]


@given(label_spaces(), st.sampled_from(sorted(rules.DICE_RULES)), st.data())
def test_dice_tables_fit_together(space, rule, data):
    annotated = data.draw(annotations(2, space.num_labels))
    table = rules.DICE_RULES[rule](annotated, *rules.membership(space))
    assert not (table.positive & ~table.active).any()
    assert not (table.merged.unsqueeze(1) & table.counted).any()  # what goes to background has no Dice of its own
    assert not (table.merged & table.included).any()
    if rule != "leaf":  # where a class may be missing, background has no pixel of its own
        assert table.included[:, 0].all()


@given(st.integers(2, 40).map(LabelSpace.of_classes))
def test_dice_rules_agree_when_all_is_annotated_by_single_classes(space):
    annotated = torch.ones(2, space.num_labels, dtype=torch.bool)
    tables = [
        rules.DICE_RULES[rule](annotated, *rules.membership(space)) for rule in ("standard", "adaptive", "marginal")
    ]
    for table in tables[1:]:
        assert all(torch.equal(part, first) for part, first in zip(table, tables[0], strict=True))
