"""Label spaces."""

import numpy as np
import pytest
import torch

import labeldrop_bench as lb
from labeldrop_bench import Label, LabelSpace

BACKGROUND = Label("background", frozenset({0}))


def test_of_classes():
    space = LabelSpace.of_classes(["background", "LV", "LA"])
    assert (space.num_classes, space.num_labels) == (3, 3)
    assert space.labels[2] == Label("LA", frozenset({2}), exhaustive=True)
    for count in (3, np.int64(3), np.array(3), torch.tensor(3)):
        assert LabelSpace.of_classes(count) == LabelSpace.of_classes(["background", "class 1", "class 2"])
    assert LabelSpace.of_classes(np.array(["background", "LV", "LA"])) == space


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        (0, ValueError, "there must be at least 2 classes, background and one more, got 0"),
        (-1, ValueError, "there must be at least 2 classes, background and one more, got -1"),
        ((), ValueError, r"classes must name background and at least one more, got \(\)"),
        ("LV", TypeError, "classes must be their number K or a list of K names, background first, got 'LV'"),
        (2.0, TypeError, "classes must be their number K or a list of K names, background first, got 2.0"),
        (True, TypeError, "classes must be their number K or a list of K names, background first, got True"),
        (None, TypeError, "classes must be their number K or a list of K names, background first, got None"),
    ],
)
def test_what_counts_or_names_no_classes_is_refused(classes, error, message):
    with pytest.raises(error, match=message):
        LabelSpace.of_classes(classes)


SPACE = LabelSpace(
    ("background", "LV", "LA"),
    (BACKGROUND, Label("LV", frozenset({1})), Label("heart", frozenset({1, 2}))),
)


def test_names_become_the_annotated_table():
    table = SPACE.annotated([["LV"], ["LV", "heart"], [], ["background", np.int64(2)]])
    assert table.dtype == torch.bool
    assert table.tolist() == [[True, True, False], [True, True, True], [True, False, False], [True, False, True]]
    assert SPACE.annotated([]).shape == (0, 3)
    assert SPACE.annotated(([["LV"]]), device="meta").device.type == "meta"
    assert lb.annotated([["b"], [2]], ["background", "a", "b"]).tolist() == [[True, False, True]] * 2
    assert lb.annotated([[1], (1, 3)], 4, "meta").shape == (2, 4)
    loss = lb.MarginalCrossEntropy(label_space=SPACE)
    assert loss(torch.zeros(4, 3, 5), torch.zeros(4, 5, dtype=torch.uint8), table).isfinite()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([["LV"], ["hart"]], ValueError, "there is no label 'hart'; did you mean 'heart'.*Labels: background, LV, hea"),
        ([[3]], ValueError, "there is no label 3; .*or their values 0 to 2"),
        ([[-1]], ValueError, "there is no label -1; "),
        ([[True]], ValueError, "there is no label True; "),  # a row of the table, not names
        (["LV", "heart"], TypeError, r"must be a list of label names for each sample, as in .* got \['LV', 'heart'\]"),
        ("LV", TypeError, "must be a list of label names for each sample.*got 'LV'"),
        (1, TypeError, "must be a list of label names for each sample.*got 1"),
        ([1, 2], TypeError, "must be a list of label names for each sample.*got .1, 2"),
        ([["LV"], None], TypeError, "must be a list of label names for each sample.*None"),
        ({"scan": ["LV"]}, TypeError, "must be a list of label names for each sample.*scan"),
        ((each for each in [["LV"]]), TypeError, "must be a list of label names for each sample.*generator"),
    ],
)
def test_names_that_are_none_are_refused(names, error, message):
    with pytest.raises(error, match=rf"LabelSpace.annotated: .*{message}"):
        SPACE.annotated(names)


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (("background",), (BACKGROUND, BACKGROUND), "classes must name background and at least one more"),
        (("a", "b"), (BACKGROUND,), "labels must hold background and at least one more"),
        (("a", "a"), (BACKGROUND, Label("x", frozenset({1}))), "classes must have different names"),
        (("a", "b"), (BACKGROUND, Label("background", frozenset({1}))), "labels must have different names"),
        (("a", "b"), (Label("x", frozenset({1})), BACKGROUND), "label 0 must be the background"),
        (("a", "b"), (Label("x", frozenset({0}), exhaustive=False), Label("y", frozenset({1}))), "label 0 must be"),
        (
            ("a", "b"),
            (BACKGROUND, Label("x", frozenset())),
            r"label 1 \('x'\) must be a set of classes from 1 to 1, got \[\]",
        ),
        (("a", "b"), (BACKGROUND, Label("x", frozenset({0, 1}))), r"got \[0, 1\]"),
        (("a", "b"), (BACKGROUND, Label("x", frozenset({2}))), r"got \[2\]"),
    ],
)
def test_bad_spaces_are_refused(classes, labels, message):
    with pytest.raises(ValueError, match=message):
        LabelSpace(classes, labels)
