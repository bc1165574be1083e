import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from nnunet_tree import write_nnunet
from PIL import Image
from typer.testing import CliRunner

from labeldrop_bench import data
from labeldrop_bench.commands import app
from labeldrop_bench.data.arrays import LabelMaps
from labeldrop_bench.data.check import check, describe, never_shown
from labeldrop_bench.data.edits import edited
from labeldrop_bench.records import DataConfig

SMALL = {"size": 16, "train": 3, "validation": 1, "test": 2}
TOML = """
name = "mine"
title = "Mine"
[data]
name = "phantom"
size = 16
train = 3
validation = 1
test = 2
[[strategies]]
name = "full"
loss = "ce"
full_labels = true
[[conditions]]
name = "near"
data.gap = 0.5
[[conditions]]
name = "far"
data.gap = 2.0
[[conditions]]
name = "far, without LA in B"
data.gap = 2.0
data.hidden.B = ["LVM", "LA"]
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    return str(path)


@pytest.fixture
def pictures(tmp_path, picture):
    drawings = {f"c{i}": picture(i) for i in range(5)}
    cases = {name: (image[None], mask) for name, (image, mask) in drawings.items()}
    return write_nnunet(tmp_path / "Dataset001_P", cases, {"background": 0, "a": 1, "b": 2}, ending=".png")


def of(name, options, condition=""):
    return condition, DataConfig.model_validate({"name": name, **options})


def call(*arguments):
    return CliRunner().invoke(app, ["data", "check", *arguments])


def test_counts_of_every_data_set_of_a_suite(suite):
    result = call(suite)
    assert result.exit_code == 0, result.output
    _, *parts = re.split(r"^phantom, condition ", result.stdout, flags=re.MULTILINE)
    assert [part.partition("\n")[0] for part in parts] == ["'near'", "'far'", "'far, without LA in B'"]
    assert ["  gap = 0.5\n" in part for part in parts] == [True, False, False]
    hidden = '  hidden: { labels = ["LVM", "LA"], domains = ["B"] }\n'
    assert [hidden in part for part in parts] == [False, False, True]
    said = "  images: 16 x 16, 1 channel; distances in pixels; 3 classes: LV, LVM, LA\n"
    assert all(said in part for part in parts)
    ranked = "strategies are ranked by what training does not see and the test images have: LVM in B, LA in B"
    assert [ranked in part for part in parts] == [False, False, True]
    same = "every label is annotated in every training image, so strategies have nothing to differ by"
    assert [same in part for part in parts] == [True, True, False]
    rows = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    rows = [row for row in rows if row[0] in ("A", "B")]
    counts = {"train": 3, "validation": 1, "test": 2}
    whole = {split: f"LV {n}, LVM {n}, LA {n}" for split, n in counts.items()}
    sees = [whole] * 5 + [{split: f"LV {n}, LVM hidden, LA hidden" for split, n in counts.items()}]
    assert rows == [
        [domain, split, str(n), str(n), seen[split], whole[split]]
        for domain, seen in zip("ABABAB", sees, strict=True)
        for split, n in counts.items()
    ]


def lines(**keys):
    (checked,) = check([of("phantom", {**SMALL, **keys})])
    assert checked.good, checked.lines
    return [line.strip() for line in checked.lines]


def test_what_no_test_image_shows_is_named(monkeypatch):
    """A class that is known and that no test image of a domain shows is left out of the scores there."""
    honest = data.get("phantom")

    def load(options):
        dataset = honest.load(options)
        truth = dataset.test.truth[:]
        truth[(dataset.test.domain == 1)[:, None, None] & (truth == 3)] = 0
        truth[0][truth[0] == 1] = 0  # one image of A without an LV: the other one has it
        return replace(dataset, test=replace(dataset.test, truth=LabelMaps.of(truth)))

    monkeypatch.setattr(data, "get", lambda _: replace(honest, load=load))
    said = "shows LA, which is left out of the scores there"
    for hidden in ({}, {"B": ["LVM"]}):
        assert [line for line in lines(hidden=hidden) if "no test image" in line] == [f"no test image of B {said}"]
    # B's LA is the only unannotated class, and nothing tells how well it is found
    assert [line[:40] for line in lines(hidden={"B": ["LA"]})][-1] == "nothing that is unannotated in training "


def test_where_nothing_unannotated_can_be_scored_it_is_said(tmp_path, monkeypatch, pictures):
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    keys = {"root": pictures.parent, "dataset": pictures.name, "size": [16, 16], "validation": 0.3, "test": 0.3}
    nothing = "nothing that is unannotated in training can be scored"
    for name in ("c0", "c1", "c2", "c3", "c4"):
        path = pictures / "labelsTr" / f"{name}.png"
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 2, 0, mask).astype(np.uint8)).save(path)
    (whole,) = check([of("nnunet", keys)])
    assert not any(nothing in line for line in whole.lines)
    (lacking,) = check([of("nnunet", {**keys, "annotated": {"all": ["a"]}})])
    assert any(nothing in line for line in lacking.lines)
    assert not any("no test image" in line for line in lacking.lines)  # it is not known there in the first place
    rows = [re.split(r"  +", line.strip()) for line in lacking.lines]
    rows = [row for row in rows if row[0] == "all"]
    assert [row[1] for row in rows] == ["train", "validation", "test"]
    assert all(row[4:] == [f"a {row[2]}, b unannotated", f"a {row[2]}, b unknown"] for row in rows)
    assert lacking.lines[-1].endswith("so the table Presence alone tells of it: b in all")
    assert not any(nothing in line for line in lines(hidden={"B": ["LA"]}))


def test_a_label_that_is_in_no_image_of_a_domain_is_asked_about():
    phantom = data.get("phantom")
    whole = phantom.load(phantom.options.model_validate(SMALL))
    inside = whole.domains.index("B")

    def lacking(samples):
        here = (samples.domain == inside).view(-1, 1, 1)
        return replace(samples, target=LabelMaps.of(samples.target[:].masked_fill(here & (samples.target[:] == 3), 0)))

    lines = never_shown(whole.map(lacking))
    assert lines == [
        "no image of B shows LA, although that counts as annotated there: if nobody annotated it, say what was, "
        'annotated.B = ["LV", "LVM"]; otherwise training learns that such images have none'
    ]
    assert never_shown(whole) == []
    assert never_shown(edited(whole, DataConfig(name="phantom", hidden={"B": ["LA"]}))) == []
    without = torch.arange(256, dtype=torch.uint8).where(torch.arange(256) != 3, 0)
    nowhere = whole.map(lambda samples: replace(samples, target=samples.target.mapped(without)))
    assert never_shown(nowhere) == []  # a class that the data set does not have at all


def test_conditions_with_the_same_data_are_looked_at_once():
    near, far = {**SMALL, "gap": 0.5}, {**SMALL, "gap": 1.5}
    found = check(
        [of("phantom", near, "a"), of("phantom", far, "b"), of("phantom", near, "c"), of("phantom", far, "b")]
    )
    assert [checked.lines[0] for checked in found] == [
        "phantom, condition 'a', condition 'c'",
        "phantom, condition 'b'",
    ]


def test_what_is_hidden_in_a_share_and_where_nothing_is_trained_on():
    found = lines(hidden=[{"labels": ["LA"], "share": 0.7}, {"labels": ["LV"], "domains": ["B"]}], train_domains=["A"])
    assert 'hidden: { labels = ["LA"], share = 0.7 }' in found
    some = "every class counts as annotated in the scores: each domain has its label in some training images"
    assert some in lines(hidden=[{"labels": ["LA"], "share": 0.7}])
    rows = [re.split(r"  +", line) for line in found]
    assert [row[2:] for row in rows if row[:1] in (["A"], ["B"])] == [
        ["3", "3", "LV 3, LVM 3, LA 1, hidden in 2", "LV 3, LVM 3, LA 3"],
        ["1", "1", "LV 1, LVM 1, LA 1", "LV 1, LVM 1, LA 1"],
        ["2", "2", "LV 2, LVM 2, LA 2", "LV 2, LVM 2, LA 2"],
        ["0", "0", "none", "none"],
        ["0", "0", "none", "none"],
        ["2", "2", "LV hidden, LVM 2, LA 2", "LV 2, LVM 2, LA 2"],
    ]
    assert [line for line in found if line.startswith("strategies are ranked")] == [
        "strategies are ranked by what training does not see and the test images have: LV in B, LVM in B, LA in B"
    ]


@pytest.mark.parametrize(
    ("keys", "warnings"),
    [
        ({"validation": 2}, []),
        ({"validation": 1}, ["a single patient of A, B in validation"]),
        ({"validation": 1, "train_domains": ["B"]}, ["a single patient of B in validation"]),
        ({"validation": 2, "test": 1}, ["a single patient of A, B in test"]),
    ],
)
def test_splits_that_hang_on_one_patient_are_named(keys, warnings):
    found = [line.partition(":")[0] for line in lines(**keys)]
    assert [line for line in found if "patient of" in line] == warnings


def test_splits_without_a_patient_of_a_domain_are_named():
    phantom = data.get("phantom")
    whole = phantom.load(phantom.options.model_validate(SMALL))
    only_a = replace(whole, validation=whole.validation.take((whole.validation.domain == 0).nonzero().flatten()))
    found = [line.partition(":")[0] for line in describe(only_a, only_a)]
    assert "no patient of B in validation" in found
    assert "a single patient of A in validation" in found


def test_labels_that_are_several_classes_are_told(tmp_path, picture):
    drawings = {f"c{i}": picture(i) for i in range(5)}
    cases = {name: (image[None], mask) for name, (image, mask) in drawings.items()}
    folder = write_nnunet(tmp_path / "Dataset001_P", cases, {"background": 0, "a": 1, "both": 2}, ending=".png")
    keys = {"root": folder.parent, "dataset": folder.name, "size": 16, "classes_of": {"both": ["b", "c"]}}
    (checked,) = check([of("nnunet", keys)])
    assert checked.good, checked.lines
    assert any(line.endswith("3 classes: a, b, c; label both = b or c") for line in checked.lines)


def test_of_many_labels_those_that_differ_are_named():
    (checked,) = check(
        [of("brain_phantom", {**SMALL, "size": [16, 16, 16], "hidden": [{"labels": ["pallidum L"], "share": 0.7}]})]
    )
    assert checked.good, checked.lines
    train = next(line for line in checked.lines if re.match(r" +\S+ +train", line))
    assert re.split(r"  +", train.strip())[4:] == ["27 of 28 labels 3, pallidum L 1, hidden in 2", "28 of 28 labels 3"]


def test_all_problems_and_exit_code(suite, pictures):
    for name in ("c0", "c1"):
        (pictures / "labelsTr" / f"{name}.png").unlink()
    options = [f"data={{name='nnunet', root='{pictures.parent}', dataset='{pictures.name}', size=[16, 16]}}"]
    result = call(suite, "--set", options[0], "--set", "conditions=[]")
    assert result.exit_code == 1, result.output
    assert "nnunet: 3 problem(s)" in result.stdout
    for name in ("c0", "c1"):
        assert f"{pictures}/labelsTr/{name}.png: not there" in result.stdout
    assert "Traceback" not in result.output


def test_what_was_left_out_is_listed(pictures):
    (pictures / "imagesTr" / "c0_0000.png").write_bytes(b"torn")
    options = {"root": pictures.parent, "dataset": pictures.name, "size": [16, 16], "validation": 0.3, "test": 0.3}
    (checked,) = check([of("nnunet", {**options, "skip_bad": True})])
    assert checked.good
    assert sum("left out: " in line and "c0_0000.png: cannot be read" in line for line in checked.lines) == 1


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("phantom", {"gapp": 1}, "  data.gapp: there is no such key; did you mean 'gap'? Known: size, gap, "),
        ("phantm", {}, "  there is no data set 'phantm'; did you mean 'phantom'"),
        ("fetal_atlas", {"root": "/nowhere"}, "  fetal_atlas: root must be a folder, and there is none at /nowhere"),
    ],
)
def test_one_bad_table_does_not_hide_the_others(name, options, line):
    bad, good, again = check([of(name, options), of("phantom", SMALL), of("phantom", {**SMALL, "seed": 1})])
    assert (bad.good, good.good, again.good) == (False, True, True)
    assert any(text.startswith(line) for text in bad.lines)


def test_no_suite_is_a_user_error():
    result = call("smok")
    assert result.exit_code == 2
    assert "there is no suite 'smok'; did you mean 'smoke'" in result.stderr
