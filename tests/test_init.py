"""`labeldrop-bench init`: whatever it is shown, the file that it prints passes `data check` and can be run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import case, cases, pictures
from nnunet_tree import change, write_array, write_nnunet
from PIL import Image
from typer.testing import CliRunner

from labeldrop_bench import suites
from labeldrop_bench.commands import app
from labeldrop_bench.init import folders
from labeldrop_bench.records import SuiteConfig

HEART = {"background": 0, "LV": 1, "LVM": 2, "LA": 3}
runner = CliRunner()


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path_factory.mktemp("cache")))


def init(tmp_path: Path, *folders: Path) -> tuple[SuiteConfig, str, str]:
    """The suite that it prints, its text, and what it says beside; the text has passed `data check`."""
    result = runner.invoke(app, ["init", *map(str, folders)])
    assert result.exit_code == 0, result.output
    path = tmp_path / "my.toml"
    path.write_bytes(result.stdout_bytes)
    checked = runner.invoke(app, ["data", "check", str(path)])
    assert checked.exit_code == 0, checked.output + result.stdout
    return suites.load(str(path)).config, result.stdout, result.stderr


FLAT: dict[str, Any] = {"shape": (40, 40)}


def test_two_hospitals_in_nnunets_format_one_without_a_class(tmp_path: Path) -> None:
    """Labels are matched whatever their spelling, and all sources get one spacing and size."""
    raw = tmp_path / "nnUNet_raw"
    raw.mkdir()
    write_nnunet(raw / "Dataset001_Alpha", cases("a", 7), HEART, spacing=(2, 1, 1))
    labels = {"background": 0, "lvm": 1, "L V": 2}
    write_nnunet(raw / "Dataset002_Beta", cases("b", 5, (1, 2)), labels, spacing=(4, 1, 1))
    config, text, said = init(tmp_path, raw)
    one, two = config.data.options["sources"]
    assert (one["dataset"], one["domain"], "map" in one) == ("Dataset001_Alpha", "Alpha", False)
    assert two["map"] == {"lvm": "LVM", "L V": "LV"}
    assert one["spacing"] == two["spacing"] == [2, 1, 1]
    assert one["size"] == two["size"] == [32, 32, 32]
    names = ["standard", "adaptive", "adaptive + dropout 0.3", "marginal", "marginal + dropout 0.3"]
    assert [s.name for s in config.strategies] == names
    assert [s.dropout_classes for s in config.strategies if s.dropout] == [("LA",), ("LA",)]
    assert re.search(r"with LA +7 +-\n", text)
    assert "Alpha: 7 cases; reading 7 label maps" in said


def test_what_a_hospital_never_shows_was_not_annotated_there(tmp_path: Path) -> None:
    """Image-mask folder: the masks have no names, the names of the files tell of two hospitals."""
    root = pictures(tmp_path / "pics", {**cases("hospA_", 8, (1, 7), **FLAT), **cases("hospB_", 6, (1,), **FLAT)})
    config, text, _ = init(tmp_path, root)
    assert config.data.options["labels"] == {"label 1": 1, "label 7": 7}
    assert config.data.options["domains"] == {"hospA": "hospA_*", "hospB": "hospB_*"}
    assert config.data.annotated == {"hospB": ("label 1",)}
    assert "(!) No label map of hospB shows label 7" in text
    assert config.data.options["size"] == [48, 48]


def test_everything_annotated_everywhere_is_said(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    folder = write_nnunet(root / "Dataset001_Whole", cases("case_", 3, **FLAT), HEART, ending=".png")
    config, text, said = init(tmp_path, folder)
    assert "nothing is partially labelled" in said
    assert "(!) Every label counts as annotated everywhere" in text
    assert config.data.annotated == {}
    assert all(s.dropout_classes is None for s in config.strategies)
    # what is commented out is TOML that works
    taken_in = re.sub(r"(?m)^# (?=hidden = |\[\[strategies\]\]|name = \"full\"|loss = \"ce\"|full_labels)", "", text)
    (tmp_path / "hidden.toml").write_text(taken_in, encoding="utf-8")
    hidden = suites.load(str(tmp_path / "hidden.toml")).config
    assert hidden.data.hidden[0].labels == ("LA",)
    assert hidden.strategies[0].name == "full"
    assert runner.invoke(app, ["data", "check", str(tmp_path / "hidden.toml")]).exit_code == 0


def test_what_few_label_maps_show_is_asked_about(tmp_path: Path) -> None:
    """A rare structure, or one that was annotated in some cases alone: files cannot tell, and a table can."""
    root = pictures(tmp_path / "pics", {**cases("case_1", 3, (1, 2), **FLAT), **cases("case_2", 5, (1,), **FLAT)})
    _, text, said = init(tmp_path, root)
    assert "(!) Fewer than half of the label maps of all show label 2 (3 of 8)" in text
    assert '# annotated_file = "annotated.csv"' in text
    assert "unless label 2 was annotated in some cases alone" in said
    most = {**cases("case_1", 5, (1, 2), **FLAT), **cases("case_2", 3, (1,), **FLAT)}
    _, text, said = init(tmp_path, pictures(tmp_path / "most", most))
    assert "Fewer than half" not in text
    assert "unless" not in said


def two_hospitals(root: Path) -> Path:
    return pictures(root, {**cases("hospA_", 4, (1, 2), **FLAT), **cases("hospB_", 4, (1,), **FLAT)})


def two_small_sets_of_volumes(root: Path) -> Path:
    """Three cases each: one to train on, one that chooses the epoch, one that is scored."""
    root.mkdir()
    write_nnunet(root / "Dataset001_One", cases("a", 3), HEART)
    write_nnunet(root / "Dataset002_Two", cases("b", 3, (1, 2)), {"background": 0, "LV": 1, "LVM": 2})
    return root


@pytest.mark.slow
@pytest.mark.parametrize("write", [two_hospitals, two_small_sets_of_volumes])
def test_it_runs_to_a_leaderboard(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    init(tmp_path, write(tmp_path / "data"))
    small = ["training.epochs=1", "seeds=[0]", "workers=1", "training.precision=32-true"]
    command = ["run", str(tmp_path / "my.toml"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    result = runner.invoke(app, [*command, *(word for override in small for word in ("--set", override))])
    assert result.exit_code == 0, result.output
    assert "marginal + dropout 0.3" in result.stdout


def test_names_that_toml_has_to_quote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces, quotes, non-ASCII and brackets, in folders, labels and cases; a relative folder, and one in the home."""
    root = tmp_path / 'Müller "neu" [1]'
    root.mkdir()
    labels = {"background": 0, 'linker "Ventrikel"': 1, "Vorhof, rechts = β": 2}
    drawings = {**cases("Zürich [x] ", 4, (1, 2), **FLAT), **cases("Bern's ", 4, (1,), **FLAT)}
    write_nnunet(root / "Dataset003_Herz é", drawings, labels, ending=".png")
    monkeypatch.chdir(tmp_path)
    config, _, _ = init(tmp_path, Path(root.name))
    assert config.data.options["root"] == str(root)
    assert config.data.annotated == {"Bern's": ('linker "Ventrikel"',)}
    monkeypatch.setenv("HOME", str(tmp_path))
    assert init(tmp_path, Path("~") / root.name)[0] == config


def test_bad_files_are_said_and_may_be_left_out(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "Dataset001_Bad", cases("c", 9), HEART)
    (folder / "labelsTr" / "c000.nii.gz").write_bytes(b"torn")
    (folder / "imagesTr" / "c001_0000.nii.gz").unlink()
    (folder / "imagesTr" / "._c002_0000.nii.gz").write_bytes(b"what a Mac leaves behind")
    drawn = case(2, (1, 9))[1]
    write_array(folder / "labelsTr" / "c002.nii.gz", drawn, (1, 1, 1))
    write_array(folder / "labelsTr" / "c003.nii.gz", drawn[..., :-1], (1, 1, 1))
    write_array(folder / "labelsTr" / "c004.nii.gz", case(4, (1, 2, 3))[1], (1.5, 1, 1))
    result = runner.invoke(app, ["init", str(folder)])
    assert result.exit_code == 0
    assert "set skip_bad = true" in result.stderr
    for line in (
        "labelsTr/c000.nii.gz: cannot be read",
        "imagesTr/c001_0000.nii.gz: not there",
        "labelsTr/c002.nii.gz: label values [9] are unknown; known: [0, 1, 2, 3]",
        "labelsTr/c003.nii.gz: (20, 24, 19) voxels, but c003_0000.nii.gz has (20, 24, 20)",
        "labelsTr/c004.nii.gz: lies up to 9.5 mm from c004_0000.nii.gz",
    ):
        assert line in result.stderr
    path = tmp_path / "my.toml"
    path.write_text(result.stdout.replace("# skip_bad", "skip_bad"), encoding="utf-8")
    assert runner.invoke(app, ["data", "check", str(path)]).exit_code == 0


def test_pictures_that_are_torn_are_said(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pics", cases("p", 6, **FLAT))
    torn = root / "images" / "p002.png"
    torn.write_bytes(torn.read_bytes()[:500])
    Image.new("RGB", (40, 40)).save(root / "masks" / "p004.png")
    result = runner.invoke(app, ["init", str(root)])
    assert result.exit_code == 0
    assert "images/p002.png: cannot be read" in result.stderr
    assert "masks/p004.png: pixel format of a label map must be one of" in result.stderr
    assert "# skip_bad = true" in result.stdout


def test_a_folder_without_data_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    for folder, message in (
        (tmp_path, "looked for dataset.json .*images/ with masks/.*found notes.txt"),
        (tmp_path / "none", "must be a folder, and is not there"),
        (tmp_path / "notes.txt", "must be a folder, and is a file"),
    ):
        result = runner.invoke(app, ["init", str(folder)])
        assert result.exit_code == 2
        assert re.search(message, result.stderr), result.stderr
        assert not result.stdout
    pictures(tmp_path / "pics", {"a": case(0, (), **FLAT)})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "dataset.json").write_text(json.dumps({"modality": {"0": "CT"}}), encoding="utf-8")
    (tmp_path / "echo" / "Videos").mkdir(parents=True)
    (tmp_path / "echo" / "FileList.csv").touch()
    for part in ("images", "masks"):
        (tmp_path / "volumes" / part).mkdir(parents=True)
        (tmp_path / "volumes" / part / "a.nii.gz").touch()
    for name, message in (
        ("pics", "no label map shows any label"),
        ("old", "not in the format of nnU-Net 2"),
        ("echo", "looks like the files of echonet_dynamic, which has a reader of its own"),
        ("volumes", "1 not taken, since the ending is not .png or .bmp"),
    ):
        result = runner.invoke(app, ["init", str(tmp_path / name)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr


def test_a_table_of_who_annotated_what(tmp_path: Path) -> None:
    """In the folder, or beside it; of several patients' frames, those of one patient stay together."""
    frames = {
        f"{h}_patient{p}_{f}": case(ord(h) + 7 * p + f, (1, 2), **FLAT) for h in "AB" for p in range(4) for f in (0, 1)
    }
    lacking = [name for name in frames if name.startswith("B_patient1")]
    for name in lacking:
        frames[name][1][frames[name][1] == 2] = 0
    root = pictures(tmp_path / "pics", frames)
    rows = [
        (name, label)
        for name in frames
        for label in ("label 1", "label 2")
        if (name, label[-1]) not in [(x, "2") for x in lacking]
    ]
    table = root / "annotated.csv"
    table.write_text("case,label\n" + "".join(f"{case},{label}\n" for case, label in rows), encoding="utf-8")
    (root / "other.csv").write_text("age,sex\n40,f\n", encoding="utf-8")
    config, _, _ = init(tmp_path, root)
    assert config.data.annotated_file == table
    assert config.data.options["group"] == "^(.*?patient[-_ ]?[0-9]+)[-_ ]"
    assert config.data.options["domains"] == {"A": "A_*", "B": "B_*"}
    assert config.strategies[-1].dropout_classes == ("label 2",)
    table.rename(tmp_path / "annotated.csv")
    assert init(tmp_path, root)[0].data.annotated_file == tmp_path / "annotated.csv"
    (tmp_path / "annotated.csv").write_text("case,label\nnobody,label 1\n", encoding="utf-8")
    config, text, _ = init(tmp_path, root)
    assert config.data.annotated_file is None
    assert "(!) not used: there is no case 'nobody' here" in text


def test_pictures_and_nnunets_pictures_together(tmp_path: Path) -> None:
    """Two sources of one name; a label that no map shows; labels that may be the same under two names."""
    root = tmp_path / "all"
    root.mkdir()
    labels = {"background": 0, "LV": 1, "left atrium": 2, "aorta": 3}
    write_nnunet(root / "Dataset001_H", cases("a", 4, (1, 2), **FLAT), labels, ending=".png")
    write_nnunet(
        root / "Dataset002_H", cases("b", 4, (1, 2), **FLAT), {"background": 0, "LV": 1, "LA": 2}, ending=".png"
    )
    pictures(root / "pics", cases("c", 4, (1,), **FLAT))
    config, text, _ = init(tmp_path, root)
    assert [source["domain"] for source in config.data.options["sources"]] == ["H", "H 2", "pics"]
    assert config.data.classes == ("LV", "left atrium", "LA", "label 1")
    assert "no label map shows aorta" in text
    assert '# map = { LV = "LV", "left atrium" = "LA", aorta = "aorta" }' in text
    assert set(config.strategies[-1].dropout_classes or ()) == {"LV", "left atrium", "LA", "label 1"}


def test_several_sources_of_which_one_has_two_hospitals(tmp_path: Path) -> None:
    """Names of domains, of classes and of cases are those that they have together."""
    root = tmp_path / "raw"
    root.mkdir()
    drawings = {**cases("north_", 4, (1, 2), **FLAT), **cases("south_", 4, (1,), **FLAT)}
    write_nnunet(
        root / "Dataset001_One", cases("a", 4, (1, 2), **FLAT), {"background": 0, "LV": 1, "LA": 2}, ending=".png"
    )
    write_nnunet(root / "Dataset002_Two", drawings, {"background": 0, "lv": 1, "la": 2}, ending=".png")
    config, text, _ = init(tmp_path, root)
    assert config.data.annotated == {"Two/south": ("LV",)}
    assert re.search(r"label maps +One +Two/north +Two/south\n", text)
    rows = [f"Two/{name},LV" for name in drawings] + [f"Two/{name},LA" for name in drawings if name.startswith("north")]
    (root / "who.csv").write_text("\n".join(["case,label", *rows]), encoding="utf-8")
    config, text, _ = init(tmp_path, root)
    assert config.data.annotated == {}
    assert config.data.annotated_file == root / "who.csv"
    assert config.strategies[-1].dropout_classes == ("LA",)
    (root / "who.csv").write_text("case,label\nnorth_001,LV", encoding="utf-8")
    assert (
        "not used: there is no case 'north_001' here; cases are called 'One/a000' and so on" in init(tmp_path, root)[1]
    )


def test_channels_regions_and_a_test_split(tmp_path: Path) -> None:
    root = tmp_path / "brain"
    root.mkdir()

    def two(prefix: str, number: int) -> dict[str, Any]:
        return {name: (np.repeat(image, 2, 0), labels) for name, (image, labels) in cases(prefix, number).items()}

    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    write_nnunet(root / "Dataset003_B", two("x", 4), regions, channel_names=("T1", "T2"), test=two("t", 3))
    write_nnunet(root / "Dataset004_C", cases("y", 4, (1,)), {"background": 0, "Whole": 1})
    config, _, _ = init(tmp_path, root)
    one, other = config.data.options["sources"]
    assert (one["channels"], "channels" in other) == (["T2"], False)
    assert ("test" in one, "test" in other) == (False, True)
    assert other["map"] == {"Whole": "whole"}
    assert config.strategies[-1].dropout_classes == ("core", "enhancing")


def test_colours_are_kept_where_most_pictures_have_them(tmp_path: Path) -> None:
    for name, coloured in (("colour", True), ("grey", False)):
        root = pictures(tmp_path / name, cases(f"{name}_", 4, **FLAT))
        for path in (root / "images").iterdir() if coloured else ():
            grey = np.asarray(Image.open(path))
            Image.fromarray(np.stack([grey, 255 - grey, grey], -1)).save(path)
    assert init(tmp_path, tmp_path / "colour")[0].data.options["channels"] == "rgb"
    both = init(tmp_path, tmp_path / "colour", tmp_path / "grey")[0].data.options["sources"]
    assert [source["channels"] for source in both] == ["rgb", "rgb"]
    assert "channels" not in init(tmp_path, tmp_path / "grey")[0].data.options


def test_a_picture_that_is_there_twice_stays_in_one_split(tmp_path: Path) -> None:
    drawings = cases("p", 6, **FLAT)
    root = pictures(tmp_path / "pics", {**drawings, "again": drawings["p003"]})
    assert init(tmp_path, root)[0].data.options["together"] == [["again", "p003"]]


def test_a_hundred_labels(tmp_path: Path) -> None:
    """A row each; the box is small, since the logits of a step are 101 images."""
    root = tmp_path / "raw"
    root.mkdir()
    drawings = cases("s", 3, shape=(48, 48, 64))
    for _, labels in drawings.values():
        labels.ravel()[: 101 * 64] = np.repeat(np.arange(101), 64)
    names = {"background": 0, **{f"organ number {i}": i for i in range(1, 101)}}
    write_nnunet(root / "Dataset001_T", drawings, names)
    write_nnunet(root / "Dataset002_U", drawings, {name.replace(" ", "_"): i for name, i in names.items()})
    config, text, _ = init(tmp_path, root)
    assert config.data.options["sources"][1]["map"]["organ_number_100"] == "organ number 100"
    assert config.patches.kind == "box"
    assert len(text.splitlines()) < 220
    assert max(map(len, text.splitlines())) < 200


def test_label_maps_are_read_as_far_as_time_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sample does not show may be in the rest, so that nothing is said to be unannotated."""
    folder = write_nnunet(tmp_path / "Dataset001_L", {**cases("a_", 6), **cases("b_", 6, (1,))}, HEART)
    assert init(tmp_path, folder)[0].data.annotated == {"b": ("LV",)}
    monkeypatch.setattr(folders, "MOST_PIXELS", 4 * 20 * 24 * 20)
    config, text, said = init(tmp_path, folder)
    assert config.data.annotated == {}
    assert "(!) L: to save time only 4 label maps were read" in text
    assert "12 cases; reading 4 label maps" in said


def test_what_the_data_set_says_itself(tmp_path: Path) -> None:
    """Cases that dataset.json names, wherever they lie, and labels that it says were annotated in them."""
    drawings = {**cases("a_", 4), **cases("b_", 4, (1, 2))}
    folder = write_nnunet(tmp_path / "Dataset001_J", drawings, HEART)
    places = {}
    for name in drawings:
        image = (folder / "imagesTr" / f"{name}_0000.nii.gz").rename(tmp_path / f"{name}.nii.gz")
        places[name] = {"images": [f"../{image.name}"], "label": f"labelsTr/{name}.nii.gz"}
    said = {name: ["LV", "LVM"] for name in drawings if name.startswith("b_")}
    change(folder, dataset=places, annotated_labels=said)
    config, text, _ = init(tmp_path, folder)
    assert config.data.options["domains"] == {"a": "a_*", "b": "b_*"}
    assert config.strategies[-1].dropout_classes == ("LA",)
    assert "annotated.b" not in text  # dataset.json says it of every case


def test_patients_on_both_sides_of_the_test_split_are_left_alone(tmp_path: Path) -> None:
    """To keep a patient's cases in one split would then be an error: the file says it in a comment."""
    train = {f"patient{p}_{f}": case(10 * p + f, (1, 2), **FLAT) for p in range(4) for f in range(2)}
    test = {f"patient{p}_9": case(10 * p + 9, (1, 2), **FLAT) for p in range(2)}
    labels = {"background": 0, "a": 1, "b": 2}
    config, text, _ = init(tmp_path, write_nnunet(tmp_path / "Dataset001_P", train, labels, ending=".png", test=test))
    assert "group" not in config.data.options
    assert '# group = "^(.*?patient[-_ ]?[0-9]+)[-_ ]"  # (!)' in text


def test_sizes_of_pictures_may_tell_of_scanners(tmp_path: Path) -> None:
    """A suggestion, in a comment that works."""
    drawings = {**cases("p", 3, **FLAT), **cases("q", 4, shape=(40, 50))}
    root = pictures(tmp_path / "pics", {f"{i:03}": drawing for i, drawing in enumerate(drawings.values())})
    _, text, _ = init(tmp_path, root)
    path = tmp_path / "my.toml"
    path.write_text(text.replace("# domains = ", "domains = "), encoding="utf-8")
    assert suites.load(str(path)).config.data.options["domains"] == {"40x40": "40x40", "50x40": "50x40"}
    assert runner.invoke(app, ["data", "check", str(path)]).exit_code == 0


def test_the_whole_text(tmp_path: Path) -> None:
    """One file from its first line to its last, as a user sees it."""
    root = pictures(tmp_path / "pics", {**cases("north_", 6, (1, 2), **FLAT), **cases("south_", 5, (1,), **FLAT)})
    _, text, _ = init(tmp_path, root)
    golden = Path(__file__).with_name("init_golden.toml")
    assert text.replace(str(root), "/data/pics") == golden.read_text(encoding="utf-8")
