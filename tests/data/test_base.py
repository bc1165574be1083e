import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench import data
from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.base import (
    IGNORED,
    Dataset,
    class_lookup,
    find_folder,
    known_classes,
    make_samples,
    standardise,
)
from labeldrop_bench.label_space import Label, LabelSpace

SPACE = LabelSpace.of_classes(("background", "LV", "LVM", "LA"))


BACKGROUND = Label("background", frozenset({0}))
LV, LVM, LA = (Label(name, frozenset({c})) for c, name in enumerate(("LV", "LVM", "LA"), start=1))
HEART = Label("whole heart", frozenset({1, 2, 3}))


def samples(n=2, labels=4, prefix="p"):
    space = LabelSpace.of_classes(labels)
    drawn = torch.randint(labels, (n, 5, 6), dtype=torch.uint8)
    everything = torch.ones(n, labels, dtype=torch.bool)
    cases, patients = [f"{prefix}{i}-ED" for i in range(n)], [f"{prefix}{i}" for i in range(n)]
    zeros = torch.zeros(n, dtype=torch.int64)
    return make_samples(space, torch.zeros(n, 1, 5, 6), drawn, everything, zeros, cases, patients)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_class_map_and_known_classes_by_their_definition(foreground, num_labels, choose):
    """Any label space: a pixel's truth is its class if only one is left, and what a super-label hides is not known."""
    sets = st.frozensets(st.integers(1, foreground), min_size=1)
    labels = [
        Label(f"l{i}", choose.draw(sets), exhaustive=choose.draw(st.booleans())) for i in range(1, num_labels + 1)
    ]
    space = LabelSpace(tuple(f"c{c}" for c in range(foreground + 1)), (BACKGROUND, *labels))
    values = st.sampled_from([*range(num_labels + 1), IGNORED])
    drawn = torch.tensor(choose.draw(st.lists(values, min_size=6, max_size=6)), dtype=torch.uint8).view(1, 2, 3)
    annotated = torch.tensor([[True, *choose.draw(st.tuples(*[st.booleans()] * num_labels))]])

    truth, known = LabelMaps.of(drawn).mapped(class_lookup(space))[:], known_classes(space, annotated)

    for value, c in zip(drawn.flatten().tolist(), truth.flatten().tolist(), strict=True):
        meant = {IGNORED} if value == IGNORED else space.labels[value].classes
        assert {c} == (meant if len(meant) == 1 else {IGNORED})
    for c in range(foreground + 1):
        alone = [label.exhaustive and label.classes == {c} for label in space.labels]
        shared = [c in label.classes and len(label.classes) > 1 for label in space.labels]
        here = annotated[0].tolist()
        expected = any(a and h for a, h in zip(alone, here, strict=True))
        assert known[0, c] == (expected and not any(s and h for s, h in zip(shared, here, strict=True)))


def test_known_classes_by_hand():
    space = LabelSpace(
        SPACE.classes, (BACKGROUND, LV, LVM, LA, HEART, dataclasses.replace(LA, name="x", exhaustive=False))
    )
    annotated = torch.tensor(
        [
            [True, True, True, True, False, False],
            [True, True, False, False, False, True],  # only scribbles of LA
            [True, False, False, False, True, False],  # only the whole heart
            [True, True, False, False, True, False],  # LV, and the rest of the heart: its LV may be in either
        ]
    )
    assert known_classes(space, annotated).int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_make_samples():
    space = LabelSpace(SPACE.classes, (BACKGROUND, LV, HEART))
    drawn = torch.tensor([[[0, 1], [2, IGNORED]]], dtype=torch.uint8)
    annotated = torch.tensor([[True, True, False]])
    made = make_samples(space, torch.zeros(1, 1, 2, 2), drawn, annotated, torch.tensor([1]), ["c"], ["p"])
    assert torch.equal(made.target[:], drawn)
    assert made.truth[:].tolist() == [[[0, 1], [IGNORED, IGNORED]]]
    assert made.known.tolist() == [[True, True, False, False]]
    assert (made.cases, made.patients, made.domain.tolist()) == (("c",), ("p",), [1])


def test_take():
    every = samples(4)
    some = every.take(torch.tensor([2, 0]))
    assert (some.cases, some.patients) == (("p2-ED", "p0-ED"), ("p2", "p0"))
    for name in ("images", "target", "annotated", "truth", "known", "domain"):
        assert torch.equal(getattr(some, name)[:], getattr(every, name)[:][[2, 0]])


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
        ("images", torch.zeros(2, 1, 5, 6), TypeError, "images must be Images, got Tensor; Images.of"),
        ("target", torch.zeros(2, 5, 6, dtype=torch.uint8), TypeError, "target must be LabelMaps, got Tensor"),
        ("domain", torch.zeros(2), TypeError, "domain must be torch.int64, got torch.float32"),
        (
            "truth",
            LabelMaps.of(torch.zeros(2, 6, 5, dtype=torch.uint8)),
            ValueError,
            r"truth must have shape \(2, 5, 6\)",
        ),
        ("known", torch.ones(3, 4, dtype=torch.bool), ValueError, r"known must have shape \(2, 4\)"),
        ("domain", torch.zeros(3, dtype=torch.int64), ValueError, r"domain must have shape \(2,\)"),
        ("annotated", torch.zeros(2, 4, dtype=torch.bool), ValueError, "column 0.*of annotated"),
        ("known", torch.zeros(2, 4, dtype=torch.bool), ValueError, "column 0.*of known"),
        ("cases", ("a",), ValueError, "cases must have one name for each of 2 images, got 1"),
        ("patients", ("a", "b", "c"), ValueError, "patients must have one name for each of 2 images, got 3"),
    ],
)
def test_samples_errors(field, value, error, message):
    with pytest.raises(error, match=message):
        dataclasses.replace(samples(), **{field: value})


def test_dataset_errors():
    train, validation, good = (samples(prefix=prefix) for prefix in "tvg")
    for bad, message in (
        (good.take(torch.tensor([], dtype=torch.int64)), "split 'test' must hold at least one"),
        (samples(labels=3, prefix="g"), "annotated of split 'test' must have 4 columns"),
        (dataclasses.replace(good, domain=torch.tensor([0, 1])), r"domain of split 'test' must lie in 0 \.\.\. 0"),
        (
            dataclasses.replace(good, truth=LabelMaps.of(torch.full((2, 5, 6), 4, dtype=torch.uint8))),
            r"truth of split 'test' must lie in 0 \.\.\. 3",
        ),
        (dataclasses.replace(good, cases=("a", "a")), "cases must have different names, got more than once: a"),
        (dataclasses.replace(good, cases=("t0-ED", "a")), "cases must have different names, got more than once: t0-ED"),
        (
            dataclasses.replace(good, patients=("g0", "v1")),
            "patient 'v1' must lie in one split, got validation and test",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Dataset(SPACE, ("A",), train, validation, bad)
    ignored = dataclasses.replace(good, truth=LabelMaps.of(torch.full((2, 5, 6), IGNORED, dtype=torch.uint8)))
    assert Dataset(SPACE, ("A",), train, validation, ignored).test is ignored


def test_find_folder(tmp_path, monkeypatch):
    (tmp_path / "CAMUS").mkdir()
    monkeypatch.delenv("LABELDROP_DATA", raising=False)
    with pytest.raises(ValueError, match=r"camus: no data folder given.*camus's root.*LABELDROP_DATA.*holds CAMUS"):
        find_folder("camus", None, "CAMUS")
    monkeypatch.setenv("LABELDROP_DATA", str(tmp_path))
    assert find_folder("camus", None, "CAMUS") == tmp_path / "CAMUS"
    assert find_folder("camus", tmp_path, "other") == tmp_path
    with pytest.raises(FileNotFoundError, match=f"camus: root must be a folder, and there is none at {tmp_path}/other"):
        find_folder("camus", None, "other")


def test_every_registered_data_set_is_described():
    assert {"phantom", "folder"} <= set(data.names())
    for name in data.names():
        info = data.get(name)
        assert info.name == name
        assert "\n" not in info.description
        assert all((info.description, info.licence, info.source))
        assert info.options.model_config["extra"] == "forbid"


def test_unknown_data_set_names_the_closest():
    with pytest.raises(ValueError, match=r"no data set 'phantim'; did you mean 'phantom'.*Known: .*folder"):
        data.get("phantim")


def test_spacing_is_unknown_unless_somebody_says_it_and_stays_with_its_sample():
    made = samples(3)
    assert made.spacing.shape == (3, 2)
    assert made.spacing.isnan().all()
    known = dataclasses.replace(made, spacing=torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.float64))
    assert known.take(torch.tensor([2, 0])).spacing.tolist() == [[5, 6], [1, 2]]
    assert dataclasses.replace(known, domain=known.domain + 1).spacing is known.spacing
    with pytest.raises(ValueError, match=r"spacing must have shape \(3, 2\)"):
        dataclasses.replace(known, spacing=torch.ones(3, 3, dtype=torch.float64))


def test_find_folder_expands_the_home_directory(tmp_path, monkeypatch):
    """A shell expands "~"; a suite file, a .env file and a Dockerfile do not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert find_folder("camus", Path("~/mine"), "x") == tmp_path / "mine"
    monkeypatch.setenv("LABELDROP_DATA", "~")
    assert find_folder("camus", None, "mine") == tmp_path / "mine"


def test_channels_are_standardised_each_and_constant_ones_become_zero():
    """A constant in float32 has a standard deviation of rounding, which must not be blown up to 1."""
    noise = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0))
    constants = torch.tensor([7.0, 0.1, 1000.1])[:, None, None].expand(3, 40, 40)
    rounded = constants * (1 + 1e-7 * noise)
    images = torch.stack([torch.cat([5 + 3 * noise[:1], 1e3 + noise[1:2], x]) for x in (constants, rounded, 0 * noise)])
    made = standardise(images)
    torch.testing.assert_close(made[:, :2].std((2, 3), correction=0), torch.ones(3, 2), atol=1e-4, rtol=0)
    assert not made[:, 2:].any()
    torch.testing.assert_close(made[:, :1], standardise(images[:, :1]))
