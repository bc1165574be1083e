import re

import pydantic
import pytest
import torch
from nnunet_tree import LABELS, volume, write_nnunet

from labeldrop_bench import data
from labeldrop_bench.data.base import IGNORED, Dataset, DatasetInfo, make_samples
from labeldrop_bench.data.combined import CombinedOptions, load
from labeldrop_bench.label_space import Label, LabelSpace
from labeldrop_bench.records import explain

PHANTOM = {"name": "phantom", "size": 16, "train": 3, "validation": 1, "test": 2}


class Toy(pydantic.BaseModel):
    """A made-up data set: classes, labels over them, which are annotated."""

    model_config = pydantic.ConfigDict(extra="forbid")
    classes: list[str]
    labels: dict[str, list[str]] = {}
    sketched: list[str] = []
    annotated: list[str] | None = None
    domains: list[str] = ["only"]
    size: int = 16
    skipped: list[str] = []


def toy(options):
    classes = ("background", *options.classes)
    labels = options.labels or {name: [name] for name in options.classes}
    made = [
        Label(name, frozenset(classes.index(c) for c in members), name not in options.sketched)
        for name, members in labels.items()
    ]
    space = LabelSpace(classes, (Label("background", frozenset({0})), *made))

    def split(prefix):
        n = len(options.domains)
        values = torch.arange(options.size**2).remainder(space.num_labels + 1).to(torch.uint8)
        values[values == space.num_labels] = IGNORED
        annotated = torch.ones(n, space.num_labels, dtype=torch.bool)
        for value, label in enumerate(space.labels[1:], start=1):
            if options.annotated is not None and label.name not in options.annotated:
                annotated[:, value] = False
                values[values == value] = 0
        target = values.view(1, options.size, options.size).repeat(n, 1, 1)
        names = [f"{prefix}{i}" for i in range(n)]
        images = torch.randn(n, 1, options.size, options.size)
        return make_samples(space, images, target, annotated, torch.arange(n), [f"{x}-ED" for x in names], names)

    return Dataset(space, tuple(options.domains), split("t"), split("v"), split("e"), tuple(options.skipped))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    info = DatasetInfo("toy", "d", "l", "s", Toy, toy)
    known = data.get
    monkeypatch.setattr(data, "get", lambda name: info if name == "toy" else known(name))


def combined(*sources, **options):
    return load(CombinedOptions(sources=sources, **options))


def source(domain, *classes, **options):
    return {"name": "toy", "domain": domain, "classes": list(classes), **options}


def labels(dataset):
    space = dataset.label_space
    return {x.name: {space.classes[c] for c in x.classes} for x in space.labels[1:]}


def annotated_in(dataset, domain):
    """Labels that are annotated in a domain, the same in all of its samples."""
    split = dataset.train
    rows = split.annotated[split.domain == dataset.domains.index(domain)]
    assert (rows == rows[0]).all()
    return {x.name for x, a in zip(dataset.label_space.labels[1:], rows[0, 1:].tolist(), strict=True) if a}


def test_a_class_that_a_source_lacks_is_not_annotated_there():
    dataset = combined(source("one", "LV", "LVM", "LA"), source("two", "LA", "RV", skipped=["x.png: torn"]))
    assert dataset.label_space == LabelSpace.of_classes(("background", "LV", "LVM", "LA", "RV"))
    assert dataset.domains == ("one", "two")
    assert annotated_in(dataset, "one") == {"LV", "LVM", "LA"}
    assert annotated_in(dataset, "two") == {"LA", "RV"}
    assert torch.equal(dataset.train.annotated, dataset.train.known)
    alone = toy(Toy(classes=["LA", "RV"])).train.target[0]
    expected = alone.clone()
    expected[alone == 1], expected[alone == 2] = 3, 4
    assert torch.equal(dataset.train.target[1], expected)
    assert torch.equal(dataset.train.truth[1], expected)
    assert dataset.test.cases == ("one/e0-ED", "two/e0-ED")
    assert dataset.test.patients == ("one/e0", "two/e0")
    assert dataset.skipped == ("two: x.png: torn",)


def test_what_a_source_did_not_annotate_stays_unannotated():
    dataset = combined(source("one", "LV", "LA", annotated=["LV"]), source("two", "LA"))
    assert annotated_in(dataset, "one") == {"LV"}
    assert dataset.train.known.tolist() == [[True, True, False], [True, False, True]]


def test_order_and_names_of_domains():
    sources = source("A", "x", "y", domains=["in", "out"]), source("B", "z", "y")
    dataset = combined(*sources, order=["z", "y", "x"])
    assert dataset.label_space.classes == ("background", "z", "y", "x")
    assert dataset.domains == ("A/in", "A/out", "B")
    assert dataset.train.domain.tolist() == [0, 1, 2]
    plain = combined(*sources)
    assert torch.equal(dataset.train.target[:] == 1, plain.train.target[:] == 3)
    with pytest.raises(ValueError, match=r"order must hold each of the classes x, y, z once, got \['z', 'y'\]"):
        combined(*sources, order=["z", "y"])


def test_map_to_another_class_and_to_several():
    heart = {"heart": ["LV", "LVM", "LA"], "vessel": "aorta"}
    dataset = combined(source("one", "LV", "LVM", "LA"), source("two", "heart", "vessel", map=heart))
    assert dataset.label_space.classes == ("background", "LV", "LVM", "LA", "aorta")
    assert labels(dataset) == {
        "LV": {"LV"}, "LVM": {"LVM"}, "LA": {"LA"}, "aorta": {"aorta"}, "heart": {"LV", "LVM", "LA"},
    }  # fmt: skip
    assert annotated_in(dataset, "one") == {"LV", "LVM", "LA"}
    assert annotated_in(dataset, "two") == {"heart", "aorta"}
    before, split = toy(Toy(classes=["heart", "vessel"])).train.target[0], dataset.train
    assert torch.equal(split.target[1] == 5, before == 1)
    assert torch.equal(split.truth[1] == IGNORED, (before == 1) | (before == IGNORED))
    assert torch.equal(split.truth[1] == 4, before == 2)
    assert split.known[1].tolist() == [True, False, False, False, True]


def test_super_labels_and_sketches_of_a_source_stay_what_they_are():
    parts = {"LV": ["LV"], "rest": ["LVM", "LA"], "LA sketch": ["LA"]}
    one = source("one", "LV", "LVM", "LA", labels=parts, sketched=["LA sketch"])
    dataset = combined(one, source("two", "LA", "LVM"))
    assert labels(dataset) == {
        "LV": {"LV"}, "LVM": {"LVM"}, "LA": {"LA"}, "LA sketch": {"LA"}, "rest": {"LVM", "LA"},
    }  # fmt: skip
    assert [x.exhaustive for x in dataset.label_space.labels] == [True, True, True, True, False, True]
    assert annotated_in(dataset, "one") == {"LV", "rest", "LA sketch"}
    assert dataset.train.known[0].tolist() == [True, True, False, False]


def test_a_label_that_map_leaves_out_is_an_error_or_background():
    mapped = source("one", "LV", "RV", map={"LV": "LV"})
    with pytest.raises(ValueError, match=r"source 'one': map must name every label, got nothing for RV.*rest"):
        combined(mapped)
    dataset = combined({**mapped, "rest": "background"})
    before, split = toy(Toy(classes=["LV", "RV"])).train.target[0], dataset.train
    assert labels(dataset) == {"LV": {"LV"}}
    assert torch.equal(split.target[0], torch.where(before == 2, 0, before))
    assert torch.equal(split.truth[:], split.target[:])
    with pytest.raises(
        ValueError, match=r"source 'one': map: there is no label 'LVv'; did you mean 'LV'.*label there = 'class here'"
    ):
        combined(source("one", "LV", "RV", map={"LVv": "LV"}))


def test_two_labels_that_become_one_are_annotated_where_both_are():
    wall = {"free": "wall", "septum": "wall"}
    both = combined(source("one", "free", "septum", map=wall))
    before = toy(Toy(classes=["free", "septum"])).train.target[:]
    assert torch.equal(both.train.target[:] == 1, (before == 1) | (before == 2))
    assert both.train.annotated.all()
    half = combined(source("one", "free", "septum", map=wall, annotated=["free"]))
    assert half.train.annotated.tolist() == half.train.known.tolist() == [[True, False]]
    assert not (half.train.target[:] == 1).any()


def test_a_label_of_several_classes_makes_its_classes_unknown():
    mapped = {"LV": "LV", "other": ["LV", "LA"]}
    dataset = combined(source("one", "LV", "other", map=mapped))
    assert dataset.train.known.tolist() == [[True, False, False]]


def test_labels_of_one_class_that_become_different_things():
    drawings = {"labels": {"LA": ["LA"], "sketch": ["LA"]}, "sketched": ["sketch"]}
    apart = combined(source("one", "LA", **drawings, map={"LA": "LA", "sketch": "scar"}))
    assert apart.train.known.tolist() == [[True, False, False]]
    assert not ((apart.train.truth[:] > 0) & (apart.train.truth[:] < IGNORED)).any()
    together = combined(source("one", "LA", **drawings, map={"LA": "atrium", "sketch": "atrium"}))
    assert [(x.name, x.exhaustive) for x in together.label_space.labels[1:]] == [("atrium", True), ("sketch", False)]
    assert together.train.known.all()
    before = toy(Toy(classes=["LA"], **drawings)).train.target[:]
    assert torch.equal(together.train.truth[:] == 1, (before == 1) | (before == 2))


def test_sources_must_agree_in_size_and_names():
    with pytest.raises(ValueError, match=r"got \(1, 16, 16\) from one and \(1, 32, 32\) from two"):
        combined(source("one", "LV", size=16), source("two", "LV", size=32))
    with pytest.raises(pydantic.ValidationError, match="each needs a domain of its own"):
        combined(source("one", "LV"), source("one", "LA"))
    with pytest.raises(ValueError, match="domains must have different names"):
        combined(source("A", "LV", domains=["x", "y"]), source("A/x", "LA"))


def test_a_source_without_size_takes_that_of_the_others():
    dataset = combined(source("one", "LV"), source("two", "LV", size=32))
    assert dataset.train.images.shape[1:] == (1, 32, 32)
    filled = CombinedOptions(sources=[source("one", "LV"), source("two", "LV", size=32)])
    assert [s.options.size for s in filled.sources] == [32, 32]  # so that the records of a run say it
    with pytest.raises(ValueError, match=r"from one and \(1, 32, 32\) from two .channels first.; set size"):
        combined(source("one", "LV"), source("two", "LV", size=32), source("three", "LV", size=48))


def test_of_sizes_that_data_sets_have_themselves_the_smallest():
    echo = [{"name": "camus"}, {"name": "echonet_dynamic"}, {"name": "nnunet", "dataset": "x"}]
    sizes = [s.options.size for s in CombinedOptions(sources=echo).sources]
    assert sizes == [(112, 112)] * 2 + [(112, 112)]
    given = [s.options.size for s in CombinedOptions(sources=[*echo[:2], {**echo[2], "size": 64}]).sources]
    assert given == [(64, 64), (64, 64), 64]


def make_volumes(root, number, shape, spacing, **keys):
    cases = {f"c{i}": volume(i, shape=shape) for i in range(3)}
    folder = write_nnunet(root / f"Dataset00{number}_V{number}", cases, LABELS, spacing=spacing)
    return {"name": "nnunet", "root": root, "dataset": folder.name, **keys}


def test_sources_that_leave_it_to_their_files_share_spacing_and_size(tmp_path):
    """Two scanners of 1 and 3 mm: one spacing and one size, the medians of all six cases."""
    one = make_volumes(tmp_path, 1, (60, 40, 40), (1, 1, 1))
    two = make_volumes(tmp_path, 2, (20, 60, 60), (3, 1, 1))
    dataset = combined(one, two)
    assert dataset.domains == ("V1", "V2")
    assert dataset.train.images.shape[1:] == (1, 32, 48, 48)  # 60 mm at 2 mm; the median of 40 and 60
    torch.testing.assert_close(dataset.train.spacing[:, 0], torch.tensor([2.0, 2.0]).double())
    given = combined(one, {**two, "spacing": (1, 2, 2)})
    assert given.train.images.shape[1:] == (1, 64, 32, 32)
    apart = combined({**one, "spacing": (2, 2, 2)}, {**two, "spacing": (1, 2, 2)})
    assert apart.train.images.shape[1:] == (1, 48, 32, 32)  # its own is kept; the size is still one
    third = make_volumes(tmp_path, 3, (20, 60, 60), (3, 1, 1))
    with pytest.raises(ValueError, match=r"combined: spacing must be given in all.*\(2.0, 2.0, 2.0\) from V1.*of V3"):
        combined({**one, "spacing": (2, 2, 2)}, {**two, "spacing": (1, 2, 2)}, third)


def test_pictures_and_volumes_do_not_go_together(tmp_path, picture):
    pictures = {f"c{i}": (picture(i)[0][None], picture(i)[1]) for i in range(3)}
    write_nnunet(tmp_path / "Dataset009_P", pictures, LABELS, ending=".png")
    flat = {"name": "nnunet", "root": tmp_path, "dataset": "Dataset009_P"}
    assert combined(flat, {**flat, "domain": "again"}).train.images.shape[1:] == (1, 48, 32)
    with pytest.raises(ValueError, match=r"all sources must be pictures and slices, or all volumes.*'P': 2, 'V1': 3"):
        combined(flat, make_volumes(tmp_path, 1, (20, 20, 20), (1, 1, 1)))


def test_names_of_domains_by_default(tmp_path):
    named = {
        "Heart": {"name": "nnunet", "dataset": "Dataset501_Heart"},
        "Dataset501_": {"name": "nnunet", "dataset": "Dataset501_"},
        "hearts": {"name": "nnunet", "dataset": "hearts"},
        "mine": {"name": "folder", "root": tmp_path / "mine", "labels": {"a": 1}},
        "usgra": {"name": "folder", "folder": "sets/usgra", "labels": {"a": 1}},
        "phantom": {"name": "phantom"},
    }
    assert [s.domain for s in CombinedOptions(sources=[*named.values()]).sources] == [*named]
    with pytest.raises(pydantic.ValidationError, match=r"got \['mine', 'mine'\]; set domain in those that are alike"):
        CombinedOptions(sources=[named["mine"], {**named["mine"], "root": tmp_path / "other" / "mine"}])


def test_channels_that_differ_are_said_so(tmp_path):
    cases = {f"c{i}": volume(i, channels=2) for i in range(3)}
    write_nnunet(tmp_path / "Dataset008_C", cases, LABELS, channel_names=("T1", "T2"))
    two = {"name": "nnunet", "root": tmp_path, "dataset": "Dataset008_C"}
    one = make_volumes(tmp_path, 1, (18, 20, 16), (1, 1, 1))
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 16\) from V1 and \(2, 16, 16, 16\) from C.*set channels"):
        combined(one, two)
    assert combined(one, {**two, "channels": ["T2"]}).train.images.shape[1] == 1


def test_options_are_checked_by_the_source_and_filled_in():
    options = CombinedOptions(sources=[PHANTOM])
    dumped = options.model_dump(mode="json")["sources"][0]
    assert dumped["gap"] == 1.0
    assert (dumped["domain"], dumped["size"]) == ("phantom", [16, 16])
    assert CombinedOptions.model_validate(options.model_dump(mode="json")) == options
    assert load(options).domains == ("phantom/A", "phantom/B")


@pytest.mark.parametrize(
    ("table", "place", "message"),
    [
        ({"gapp": 2}, "gapp", "there is no such key; did you mean 'gap'"),
        ({"gap": -1}, "gap", r"must be a number from 0 up, such as 1.0 \(the default\), got -1"),
        ({"map": {"LV": []}}, "map", r"must be a list of one or more texts in quotes, or one alone, got \[\]"),
        ({"rest": "x"}, "rest", "there is no choice 'x'. Known: background"),
        ({"name": "phantm"}, "name", "there is no data set 'phantm'; did you mean 'phantom'"),
        ({"name": 3}, "name", "must be text in quotes, got 3"),
    ],
)
def test_errors_name_the_source_and_the_key(table, place, message):
    options = {"sources": [PHANTOM, {**PHANTOM, "domain": "x", **table}]}
    with pytest.raises(pydantic.ValidationError) as error:
        CombinedOptions.model_validate(options)
    (line,) = explain(error.value, CombinedOptions, options).splitlines()
    assert re.fullmatch(rf"sources\.{table.get('name', 'phantom')}\.{place}(\.LV)?: {message}.*", line), line


def test_a_data_set_with_keys_like_those_of_a_source_is_refused(monkeypatch):
    info = DatasetInfo("odd", "d", "l", "s", pydantic.create_model("Odd", map=(int, 0)), toy)
    monkeypatch.setattr(data, "get", lambda name: info)
    with pytest.raises(pydantic.ValidationError, match="data set odd has keys of its own named map"):
        CombinedOptions(sources=[{"name": "odd"}])


def test_real_loaders_together(tmp_path, picture):
    """A phantom and pictures that know the whole heart only."""
    drawings = {f"c{i}": picture(i) for i in range(5)}
    pictures = {name: (image[None], mask) for name, (image, mask) in drawings.items()}
    folder = write_nnunet(tmp_path / "Dataset001_H", pictures, {"background": 0, "whole heart": [1, 2]}, ending=".png")
    heart = {"name": "nnunet", "root": tmp_path, "dataset": folder.name, "size": [16, 16], "domain": "H"}
    heart |= {"validation": 0.2, "test": 0.2, "map": {"whole heart": ["LV", "LVM", "LA"]}}
    dataset = combined(PHANTOM, heart)
    assert dataset.domains == ("phantom/A", "phantom/B", "H")
    assert annotated_in(dataset, "H") == {"whole heart"}
    assert annotated_in(dataset, "phantom/B") == {"LV", "LVM", "LA"}
    # The same by the data set's own option.
    own = combined(PHANTOM, {**heart, "map": None, "classes_of": heart["map"]})
    assert own.label_space == dataset.label_space
    assert torch.equal(own.train.target[:], dataset.train.target[:])
    assert torch.equal(own.train.known, dataset.train.known)
