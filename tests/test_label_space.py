"""Label spaces."""

import pytest

from labeldrop_bench import Label, LabelSpace

BACKGROUND = Label("background", frozenset({0}))


def test_of_classes():
    space = LabelSpace.of_classes(["background", "LV", "LA"])
    assert (space.num_classes, space.num_labels) == (3, 3)
    assert space.labels[2] == Label("LA", frozenset({2}), exhaustive=True)
    assert LabelSpace.of_classes(3).num_classes == 3


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
