"""The strategies give what they say: otherwise the property tests prove less than they seem to."""

import torch
from hypothesis import find, given
from strategies import FLOATS, LAYOUTS, cases, label_spaces, lay_out


@given(cases())
def test_cases_are_valid(case):
    assert case.logits.shape[1] == case.space.num_classes
    assert case.target.shape == (case.logits.shape[0], *case.logits.shape[2:])
    assert case.annotated.shape == (len(case.target), case.space.num_labels)
    assert case.annotated[:, 0].all()
    assert case.target[case.counted].long().lt(case.space.num_labels).all()
    assert case.logits.isfinite().all()


def test_cases_reach_the_unusual():
    find(label_spaces(), lambda space: any(len(label.classes) > 1 for label in space.labels))
    find(label_spaces(), lambda space: not all(label.exhaustive for label in space.labels))
    find(cases(), lambda case: not case.counted.any())
    find(cases(), lambda case: case.space.num_classes > 32)
    find(cases(), lambda case: case.logits.ndim == 5)
    find(cases(), lambda case: not case.annotated.all())


def test_layouts_differ_and_keep_values():
    for dtype in FLOATS:
        tensor = torch.randn(2, 3, 4, 5).to(dtype)
        laid_out = [lay_out(tensor, layout) for layout in LAYOUTS]
        assert all(torch.equal(other, tensor) for other in laid_out)
        assert len({other.stride() for other in laid_out}) == 3
