import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench import data
from labeldrop_bench.data.base import Dataset, DatasetInfo, Samples, draw, drawn_table, standardise
from labeldrop_bench.label_space import LabelSpace

SPACE = LabelSpace.of_classes(("background", "LV", "LVM", "LA"))


def samples(n=2, labels=4):
    truth = torch.randint(labels, (n, 5, 6), dtype=torch.uint8)
    everything = torch.ones(n, labels, dtype=torch.bool)
    return Samples(torch.zeros(n, 1, 5, 6), truth, everything, truth, everything, torch.zeros(n, dtype=torch.int64))


@given(st.integers(1, 6), st.integers(2, 6), st.integers(1, 3), st.data())
def test_draw_hides_exactly_the_undrawn_labels(n, num_labels, num_domains, choose):
    generator = torch.Generator().manual_seed(choose.draw(st.integers(0, 99)))
    truth = torch.randint(num_labels, (n, 4, 3), dtype=torch.uint8, generator=generator)
    domain = torch.randint(num_domains, (n,), generator=generator)
    table = torch.rand(num_domains, num_labels, generator=generator) < 0.5
    table[:, 0] = True
    kept = truth.clone()

    result = draw(torch.zeros(n, 1, 4, 3), truth, domain, table)

    for i in range(n):
        for row in range(4):
            for column in range(3):
                value = int(truth[i, row, column])
                expected = value if table[domain[i], value] else 0
                assert result.target[i, row, column] == expected
        assert torch.equal(result.annotated[i], table[domain[i]])
    assert torch.equal(result.truth, kept)
    assert result.truth_annotated.all()


def test_drawn_table():
    table = drawn_table(SPACE, ("A", "B", "C"), {"B": ("LVM", "LV"), "C": ()})
    assert table.tolist() == [[True] * 4, [True, True, True, False], [True, False, False, False]]


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ({"Bb": ("LV",)}, "no domain 'Bb'; did you mean 'B'.*Known: A, B"),
        ({"B": ("LVMM",)}, "domain 'B' has no label 'LVMM'; did you mean 'LVM'"),
        ({"B": ("background",)}, "has no label 'background'"),
        ({"B": ("LV", "LV")}, "must all differ"),
    ],
)
def test_drawn_table_errors(drawn, message):
    with pytest.raises(ValueError, match=message):
        drawn_table(SPACE, ("A", "B"), drawn)


def test_standardise():
    images = torch.rand(3, 2, 7, 5) * torch.tensor([1.0, 10.0, 0.0]).view(3, 1, 1, 1) + 4
    result = standardise(images)
    # float32 sums of 70 numbers near 4: relative error of the mean about 1e-7 * 4 / sd.
    torch.testing.assert_close(result.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(result[:2].std((1, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)
    assert torch.equal(result[2], torch.zeros(2, 7, 5))


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("images", torch.zeros(2, 1, 5, 6, dtype=torch.float64), TypeError, "images must be torch.float32"),
        ("target", torch.zeros(2, 5, 6, dtype=torch.int64), TypeError, "target must be torch.uint8, got torch.int64"),
        ("images", torch.zeros(2, 1), ValueError, r"images must be \[n, channels"),
        ("truth", torch.zeros(2, 6, 5, dtype=torch.uint8), ValueError, r"truth must have shape \(2, 5, 6\)"),
        (
            "truth_annotated",
            torch.ones(2, 3, dtype=torch.bool),
            ValueError,
            r"truth_annotated must have shape \(2, 4\)",
        ),
        ("domain", torch.zeros(3, dtype=torch.int64), ValueError, r"domain must have shape \(2,\)"),
        ("annotated", torch.zeros(2, 4, dtype=torch.bool), ValueError, "column 0"),
    ],
)
def test_samples_errors(field, value, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(samples(), **{field: value})


def test_dataset_errors():
    good = samples()
    empty = Samples(*(getattr(good, field.name)[:0] for field in dataclasses.fields(good)))
    beyond = dataclasses.replace(good, domain=torch.tensor([0, 1]))
    wrong_value = dataclasses.replace(good, truth=torch.full((2, 5, 6), 4, dtype=torch.uint8))
    for bad, message in (
        (empty, "split 'test' must hold at least one"),
        (samples(labels=3), "split 'test' must have 4 columns"),
        (beyond, r"domain of split 'test' must lie in 0 \.\.\. 0"),
        (wrong_value, r"truth of split 'test' must lie in 0 \.\.\. 3"),
    ):
        with pytest.raises(ValueError, match=message):
            Dataset(SPACE, ("A",), good, good, bad)


def test_every_registered_data_set_is_described():
    assert {"phantom", "folder"} <= set(data.names())
    for name in data.names():
        info = data.get(name)
        assert info.name == name
        assert "\n" not in info.description
        assert all((info.description, info.licence, info.source))
        assert info.options.model_config["extra"] == "forbid"


def test_unknown_data_set_names_the_closest():
    with pytest.raises(ValueError, match=r"no data set 'phantim'; did you mean 'phantom'.*Known: folder, phantom"):
        data.get("phantim")


class _Entry:
    def __init__(self, name, loaded):
        self.name, self.value, self._loaded = name, "outside:INFO", loaded

    def load(self):
        return self._loaded


def test_entry_points(monkeypatch):
    info = DatasetInfo("mine", "d", "l", "s", data.get("phantom").options, lambda options, drawn: None)
    entries = [_Entry("mine", info), _Entry("broken", "no info")]
    monkeypatch.setattr(data, "entry_points", lambda group: entries if group == data.GROUP else [])
    assert "mine" in data.names()
    assert data.get("mine") is info
    with pytest.raises(TypeError, match="outside:INFO must be a DatasetInfo, got str"):
        data.get("broken")
    entries.append(_Entry("phantom", info))
    with pytest.raises(ValueError, match="two data sets are registered as 'phantom'"):
        data.names()
