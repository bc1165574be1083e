import re

import pytest
from nnunet_tree import write_nnunet
from typer.testing import CliRunner

from labeldrop_bench.cli import app
from labeldrop_bench.data.check import check
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


def table(name, options):
    return DataConfig.model_validate({"name": name, **options})


def call(*arguments):
    return CliRunner().invoke(app, ["data", "check", *arguments])


def test_counts_of_every_data_set_of_a_suite(suite):
    result = call(suite)
    assert result.exit_code == 0, result.output
    headings = [line for line in result.stdout.splitlines() if line.startswith("phantom: ")]
    assert ["gap = 0.5" in line for line in headings] == [True, False, False]
    assert ["hidden = " in line for line in headings] == [False, False, True]
    assert "  images: 16 x 16, 1 channel\n" in result.stdout
    rows = [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()]
    rows = [row for row in rows if row[0] in ("A", "B")]
    counts = {"train": 3, "validation": 1, "test": 2}
    whole = {split: f"LV {n}, LVM {n}, LA {n}" for split, n in counts.items()}
    sees = [whole] * 5 + [{split: f"LV {n}, LVM 0, LA 0" for split, n in counts.items()}]
    assert rows == [
        [domain, split, str(n), seen[split], whole[split]]
        for domain, seen in zip("ABABAB", sees, strict=True)
        for split, n in counts.items()
    ]


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
    (checked,) = check([table("nnunet", {**options, "skip_bad": True})])
    assert checked.good
    assert sum("left out: " in line and "c0_0000.png: cannot be read" in line for line in checked.lines) == 1


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("phantom", {"gapp": 1}, "  gapp: Extra inputs"),
        ("phantm", {}, "  there is no data set 'phantm'; did you mean 'phantom'"),
        ("fetal_atlas", {"root": "/nowhere"}, "  fetal_atlas: root must be a folder, and there is none at /nowhere"),
    ],
)
def test_one_bad_table_does_not_hide_the_others(name, options, line):
    bad, good, again = check([table(name, options), table("phantom", SMALL), table("phantom", {**SMALL, "seed": 1})])
    assert (bad.good, good.good, again.good) == (False, True, True)
    assert any(text.startswith(line) for text in bad.lines)


def test_no_suite_is_a_user_error():
    result = call("smok")
    assert result.exit_code == 2
    assert "there is no suite 'smok'; did you mean 'smoke'" in result.stderr
