from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.base import IGNORED, Dataset, make_samples
from labeldrop_bench.data.edits import edited, hide, hide_labels, only_classes, train_on
from labeldrop_bench.label_space import Label, LabelSpace
from labeldrop_bench.records import DataConfig, HiddenConfig

SPACE = LabelSpace.of_classes(("background", "LV", "LVM", "LA"))
DOMAINS = ("A", "B", "C")
SIZES = {"A": 11, "B": 6, "C": 5}
"""Training samples of each domain; the other splits have three of each."""


def made(space=SPACE, seed=0):
    """Random label maps with ignored pixels; one sample lacks a label from the start."""
    generator = torch.Generator().manual_seed(seed)

    def split(name, sizes):
        n = sum(sizes)
        labels = torch.randint(space.num_labels, (n, 4, 5), dtype=torch.uint8, generator=generator)
        labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORED
        annotated = torch.ones(n, space.num_labels, dtype=torch.bool)
        annotated[0, 1] = False
        labels[0][labels[0] == 1] = 0
        domain = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        cases = [f"{name}{i}" for i in range(n)]
        return make_samples(
            space, torch.randn(n, 1, 4, 5, generator=generator), labels, annotated, domain, cases, cases
        )

    sizes = tuple(SIZES.values())
    return Dataset(space, DOMAINS, split("t", sizes), split("v", (3, 3, 3)), split("e", (3, 3, 3)))


def assert_hidden(before, after, hidden):
    """The one thing that hiding may do, pixel by pixel; everything else stays."""
    expected = before.target[:]
    for i, value in hidden.nonzero().tolist():
        expected[i][before.target[i] == value] = 0
    assert torch.equal(after.target[:], expected)
    assert torch.equal(after.annotated, before.annotated & ~hidden)
    for name in ("images", "truth", "known", "domain"):
        assert torch.equal(getattr(after, name)[:], getattr(before, name)[:])
    assert (after.cases, after.patients) == (before.cases, before.patients)


@given(st.integers(0, 999))
def test_hidden_labels_read_background_and_nothing_else_changes(seed):
    before = made(seed=seed).train
    hidden = torch.rand(before.annotated.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    hidden[:, 0] = False
    kept = before.target[:]
    assert_hidden(before, hide_labels(before, hidden), hidden)
    assert torch.equal(before.target[:], kept)


def table(**keys):
    """A `[data]` table, as a suite file gives it."""
    return DataConfig.model_validate({"name": "made up", **keys})


def hide_share(dataset, labels, share, **options):
    return hide(dataset, HiddenConfig(labels=tuple(labels), share=share, **options))


def test_hidden_by_domain_hides_in_every_split():
    dataset = made()
    short = edited(dataset, table(hidden={"B": ["LA"], "C": ["LV", "LVM", "LA"]}))
    long = edited(
        dataset, table(hidden=[{"labels": ["LA"], "domains": ["B", "C"]}, {"labels": ["LV", "LVM"], "domains": ["C"]}])
    )
    stays = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    for name, before in dataset.splits().items():
        assert_hidden(before, short.splits()[name], ~stays[before.domain])
        assert_hidden(before, long.splits()[name], ~stays[before.domain])
    assert short.label_space == dataset.label_space
    everywhere = edited(dataset, table(hidden=[{"labels": ["LV"]}]))
    assert not everywhere.test.annotated[:, 1].any()
    assert everywhere.test.known[1:, 1].all()


@given(st.floats(0, 1), st.integers(0, 99), st.booleans())
def test_a_hidden_share_is_exact_in_every_domain(share, seed, independently):
    dataset = made()
    edited = hide_share(dataset, ["LV", "LA"], share, independently=independently, seed=seed)
    # sample 0 has no LV from the start: whether it is among those that lose it cannot be seen
    gone = dataset.train.annotated & ~edited.train.annotated
    assert_hidden(dataset.train, edited.train, gone)
    assert not gone[:, [0, 2]].any()
    for d, size in enumerate(SIZES.values()):
        here = gone[dataset.train.domain == d]
        count = round(share * size)
        assert here[:, 3].sum() == count
        assert int(here[:, 1].sum()) in ({count, count - 1} if d == 0 else {count})
    if not independently:
        assert torch.equal(gone[1:, 1], gone[1:, 3])
    assert edited.validation is dataset.validation
    assert edited.test is dataset.test


def test_a_hidden_share_by_domain_seed_and_label():
    dataset = made()

    def gone(**options):
        edited = hide_share(dataset, ["LVM", "LA"], 0.5, **options)
        return dataset.train.annotated & ~edited.train.annotated

    only_b = gone(domains=("B",))
    assert only_b.any(1).nonzero().flatten().tolist() == only_b[:, 3].nonzero().flatten().tolist()
    assert set(dataset.train.domain[only_b.any(1)].tolist()) == {1}
    assert torch.equal(gone(seed=1), gone(seed=1))
    seeds = {tuple(gone(seed=seed).flatten().tolist()) for seed in range(8)}
    assert len(seeds) == 8
    # The same samples lose both labels, unless independently: then 50 draws agree in half of the samples, not in all.
    assert all(torch.equal(g[:, 2], g[:, 3]) for g in (gone(seed=seed) for seed in range(8)))
    agree = torch.stack([g[:, 2] == g[:, 3] for g in (gone(seed=s, independently=True) for s in range(50))])
    assert 0.35 < agree.double().mean() < 0.65


def lacking(dataset, lacks):
    """The data set with label maps in which some domains have no pixel of some labels, however that came about."""

    def of(samples):
        target = samples.target[:]
        for domain, values in lacks.items():
            for value in values:
                target[(samples.domain == DOMAINS.index(domain))[:, None, None] & (target == value)] = 0
        return replace(samples, target=LabelMaps.of(target))

    return dataset.map(of)


def test_what_was_not_annotated_is_not_known_either():
    dataset = lacking(made(), {"B": [3], "C": [1, 2, 3]})
    result = edited(dataset, table(annotated={"B": ["LVM", "LV"], "C": []}))
    stays = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    for name, before in dataset.splits().items():
        after = result.splits()[name]
        assert torch.equal(after.annotated, before.annotated & stays[before.domain])
        assert torch.equal(after.known, before.known & stays[before.domain])
        for same in ("images", "target", "truth"):
            assert getattr(after, same) is getattr(before, same)
    # nothing said, nothing changed
    assert all(edited(dataset, table()).splits()[name] is split for name, split in dataset.splits().items())


def test_a_case_is_told_apart_from_its_domain(tmp_path):
    dataset = lacking(made(), {"A": [3], "B": [1, 2, 3]})
    path = tmp_path / "annotated.csv"
    path.write_text("case,label\nt1,LV\nt1, LVM \ne4,\nt11,LV\n", encoding="utf-8-sig")
    result = edited(dataset, table(annotated={"A": ["LV", "LVM"], "B": ["LA"]}, annotated_file=str(path)))
    of = {c: a for s in result.splits().values() for c, a in zip(s.cases, s.annotated.tolist(), strict=True)}
    domains = {c: DOMAINS[d] for s in result.splits().values() for c, d in zip(s.cases, s.domain.tolist(), strict=True)}
    assert (domains["t1"], domains["e4"], domains["t11"]) == ("A", "B", "B")
    assert of["t1"] == [True, True, True, False]
    assert of["e4"] == [True, False, False, False]
    assert of["t11"] == [True, True, False, False]  # what is said of the case, not what is said of B
    assert of["t12"] == [True, False, False, True]
    assert of["e8"] == [True, True, True, True]
    assert of["t0"] == [True, False, True, False]  # the data set itself says that it has no LV
    for split in result.splits().values():
        assert torch.equal(split.known, split.annotated)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,label\nt1,LVMM\n", r"annotated_file: case 't1': there is no label 'LVMM'; did you mean 'LVM'"),
        ("case,label\nt1,LV\nt1,LV\n", r"annotated_file: case 't1': the labels must all differ"),
        ("case,label\nt100,LV\n", r"annotated_file: there is no case 't100'; did you mean 't10'\?.* t4, \.\.\.$"),
        ("name,label\n", r"annotated_file: .*\.csv must have the columns case and label, got \['name', 'label'\]"),
        ("", r"must have the columns case and label, got None"),
        ("case;label\nt1;LV\n", r"got \['case;label'\]; its first line is case,label with a comma"),
        ("case,label,label\nt1,LV,LVM\n", r"must have the columns case and label, got \['case', 'label', 'label'\]"),
        ("case,label\nt1,LV,LVM,LA\n", r"line 2: must hold .* got \['t1', 'LV', \['LVM', 'LA'\]\]; write a row for"),
        ("case,label\nt1,LV\nt2\n", r"line 3: must hold a case, a comma and one label"),
        ("case,label\n ,LV\n", r"line 2: must hold a case, a comma"),
        ("case,label\nt1,\n", r"(?s)annotated_file: these label maps.*t1, domain A: \d+ pixel\(s\) of LV"),
    ],
)
def test_mistakes_in_the_file_are_named(content, message, tmp_path):
    path = tmp_path / "annotated.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        edited(made(), table(annotated_file=str(path)))


def test_a_file_may_name_a_case_that_was_left_out(tmp_path):
    path = tmp_path / "annotated.csv"
    path.write_text("case,label\nt99,LV\nCAMUS/p7_ED,LV\n")
    dataset = replace(
        made(), skipped=("imagesTr/t99_0000.png: cannot be read", "CAMUS: /d/p7_ED.nii.gz: cannot be read")
    )
    assert edited(dataset, table(annotated_file=str(path))).train is dataset.train


@pytest.mark.parametrize("case", ["t9x", "99", "0000", "mask", "t99.5", "U/t98", "rea"])
def test_a_part_of_a_name_is_no_case_that_was_left_out(case, tmp_path):
    path = tmp_path / "annotated.csv"
    path.write_text(f"case,label\n{case},LV\n")
    dataset = replace(made(), skipped=("imagesTr/t99_0000.png: cannot be read", "masks/t99.50.png: no t9xy"))
    with pytest.raises(ValueError, match=f"there is no case '{case}'"):
        edited(dataset, table(annotated_file=str(path)))


def test_pixels_of_a_label_that_is_said_to_be_unannotated_are_an_error():
    dataset = lacking(made(), {"B": [1, 3], "C": [1, 3]})
    case = dataset.train.cases[SIZES["A"]]
    pixels = int((dataset.train.target[SIZES["A"]] == 2).sum())
    with pytest.raises(ValueError, match=rf"\n  {case}, domain B: {pixels} pixel\(s\) of LVM\n") as error:
        edited(dataset, table(annotated={"B": []}))
    assert "and 7 more" in str(error.value)  # of 12 images, five are listed
    assert 'name it and hide it, as in hidden.B = ["LVM"]' in str(error.value)
    hidden = edited(dataset, table(annotated={"B": ["LVM"]}, hidden={"B": ["LVM"]}))
    of_b = hidden.test.domain == 1
    assert hidden.test.known[of_b].unique(dim=0).tolist() == [[True, False, True, False]]
    assert not hidden.test.annotated[of_b, 1:].any()


def test_a_class_that_another_label_shows_stays_known():
    """The super-label was not annotated in B; a class of it is known there if it has a label of its own."""
    labels = (
        Label("background", frozenset({0})),
        Label("LV", frozenset({1})),
        Label("ventricle", frozenset({1, 2})),
        Label("LA", frozenset({3})),
    )
    dataset = lacking(made(LabelSpace(SPACE.classes, labels)), {"B": [2]})
    everything = dataset.map(lambda s: replace(s, known=torch.ones_like(s.known)))
    result = edited(everything, table(annotated={"B": ["LV", "LA"]})).test
    assert result.known[result.domain == 1].unique(dim=0).tolist() == [[True, True, False, True]]
    assert result.known[result.domain == 2].all()


def test_train_on_leaves_the_test_split_whole():
    dataset = made()
    edited = train_on(dataset, ["C", "A"])
    for name in ("train", "validation"):
        before, after = dataset.splits()[name], edited.splits()[name]
        assert after.cases == tuple(c for c, d in zip(before.cases, before.domain.tolist(), strict=True) if d != 1)
    assert edited.test is dataset.test
    assert edited.domains == DOMAINS


def test_only_classes_renumbers_everything():
    dataset = made()
    edited = only_classes(dataset, ["LA", "LV"])
    assert edited.label_space.classes == ("background", "LA", "LV")
    assert {label.name: label.classes for label in edited.label_space.labels} == {
        "background": {0},
        "LA": {1},
        "LV": {2},
    }
    new = {0: 0, 1: 2, 2: 0, 3: 1, IGNORED: IGNORED}
    for name, before in dataset.splits().items():
        after = edited.splits()[name]
        for pixel_before, pixel_after in zip(
            before.truth[:].flatten().tolist(), after.truth[:].flatten().tolist(), strict=True
        ):
            assert pixel_after == new[pixel_before]
        assert torch.equal(after.known, before.known[:, [0, 3, 1]])
        meaning = [*(label.classes for label in edited.label_space.labels)]
        for was, value in zip(before.target[:].flatten().tolist(), after.target[:].flatten().tolist(), strict=True):
            assert (value == IGNORED) if was == IGNORED else (meaning[value] == {new[was]})
        annotated_before = {label.name: before.annotated[:, i] for i, label in enumerate(dataset.label_space.labels)}
        for i, label in enumerate(edited.label_space.labels):
            assert torch.equal(after.annotated[:, i], annotated_before[label.name])


def test_only_classes_keeps_super_labels_whole():
    labels = (
        Label("background", frozenset({0})),
        Label("LV", frozenset({1})),
        Label("ventricle", frozenset({1, 2})),
        Label("LA", frozenset({3})),
        Label("LA sketch", frozenset({3}), exhaustive=False),
    )
    dataset = made(LabelSpace(SPACE.classes, labels))
    edited = only_classes(dataset, ["LVM", "LV"])
    assert edited.label_space.classes == ("background", "LVM", "LV")
    assert edited.label_space.labels == (
        labels[0],
        Label("LV", frozenset({2})),
        Label("ventricle", frozenset({1, 2})),
    )
    before, after = dataset.train, edited.train
    assert torch.equal(after.target[:] == 2, before.target[:] == 2)
    assert not after.target[:][(before.target[:] == 3) | (before.target[:] == 4)].any()
    assert torch.equal(after.annotated, before.annotated[:, :3])
    sketch = only_classes(dataset, ["LA"]).label_space.labels
    assert sketch == (labels[0], Label("LA", frozenset({1})), Label("LA sketch", frozenset({1}), exhaustive=False))
    with pytest.raises(
        ValueError, match=r"classes must hold all or none of label 'ventricle' \(LV, LVM\), got \['LV'\]"
    ):
        only_classes(dataset, ["LV"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda d: edited(d, table(hidden={"Bb": ["LV"]})),
            "hidden.domains: there is no domain 'Bb'; did you mean 'B'",
        ),
        (
            lambda d: edited(d, table(hidden={"B": ["LVMM"]})),
            "hidden.labels: there is no label 'LVMM'; did you mean 'LVM'",
        ),
        (lambda d: edited(d, table(hidden={"B": ["background"]})), "hidden.labels: there is no label 'background'"),
        (lambda d: edited(d, table(hidden={"B": ["LV", "LV"]})), "hidden.labels: the labels must all differ"),
        (lambda d: hide_share(d, ["LVm"], 0.5), "hidden.labels: there is no label 'LVm'; did you mean 'LV'"),
        (lambda d: hide_share(d, ["LV"], 0.5, domains=("D",)), "hidden.domains: there is no domain 'D'"),
        (lambda d: edited(d, table(annotated={"Bb": ["LV"]})), "annotated: there is no domain 'Bb'; did you mean 'B'"),
        (
            lambda d: edited(d, table(annotated={"B": ["LVMM"]})),
            "annotated: there is no label 'LVMM'; did you mean 'LVM'",
        ),
        (lambda d: train_on(d, ["D"]), "train_domains: there is no domain 'D'"),
        (lambda d: train_on(d, []), "train_domains must name at least one"),
        (lambda d: only_classes(d, ["LVm"]), "classes: there is no foreground class 'LVm'; did you mean 'LV'"),
        (lambda d: only_classes(d, ["background", "LV"]), "no foreground class 'background'"),
        (lambda d: only_classes(d, ["LV", "LV"]), "classes must be different names"),
        (lambda d: only_classes(d, []), "at least one, got"),
    ],
)
def test_errors_name_the_key(edit, message):
    with pytest.raises(ValueError, match=message):
        edit(made())


def test_hiding_twice_is_hiding_once():
    entry = HiddenConfig(labels=("LVM", "LA"), domains=("B",))
    once = hide(made(), entry)
    twice = hide(once, entry)
    for name, split in once.splits().items():
        assert torch.equal(split.target[:], twice.splits()[name].target[:])
        assert torch.equal(split.annotated, twice.splits()[name].annotated)
