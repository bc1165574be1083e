"""`labeldrop-bench nnunet`: the line for the shell, what was annotated, and what is wrong with it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import nnunet_case  # noqa: F401 - asks for nnU-Net
import numpy as np
import pytest
from nnunet_tree import picture, write_nnunet
from PIL import Image

from labeldrop_bench.integrations.nnunet import annotate as annotating
from labeldrop_bench.integrations.nnunet.command import main, shell_line
from labeldrop_bench.integrations.nnunet.sources import from_table

DATASET = "Dataset007_Heart"
LABELS = {"background": 0, "LV": 1, "LA": 2, "ignore": 3}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Three cases of two sources, planned, with a key of somebody else's in dataset.json; variables are set."""
    cases = {f"CAMUS_{number}": picture(number) for number in range(2)}
    image, labels = picture(9)
    cases["EchoNet_0"] = image, np.where(labels == 2, 0, labels)
    (tmp_path / "raw").mkdir()
    raw = write_nnunet(tmp_path / "raw" / DATASET, cases, LABELS, ending=".png") / "dataset.json"
    raw.write_text(json.dumps({"zebra": "Grüße", **json.loads(raw.read_text())}), encoding="utf-8")
    (tmp_path / "preprocessed" / DATASET).mkdir(parents=True)
    (tmp_path / "preprocessed" / DATASET / "dataset.json").write_bytes(raw.read_bytes())
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.delenv("nnUNet_results", raising=False)
    return tmp_path


def written(place):
    return [
        json.loads((place / part / DATASET / "dataset.json").read_text("utf-8")) for part in ("raw", "preprocessed")
    ]


SOURCES = ["--source-pattern", "EchoNet_*=LV", "--source-pattern", "CAMUS_*=LV, LA"]
TABLE = {"CAMUS_0": ["LV", "LA"], "CAMUS_1": ["LV", "LA"], "EchoNet_0": ["LV"]}


@pytest.mark.parametrize("dataset", ["7", DATASET, "{place}/raw/" + DATASET])
def test_both_copies_are_written_and_all_else_stays(place, dataset, capsys):
    before, _ = written(place)
    assert main(["annotate", dataset.format(place=place), *SOURCES]) == 0
    for after in written(place):
        assert after == {**before, "annotated_labels": TABLE}
        assert [*after] == [*before, "annotated_labels"]
    assert "Grüße" in (place / "raw" / DATASET / "dataset.json").read_text("utf-8")
    shown = capsys.readouterr()
    assert "1 cases EchoNet_*: LV annotated; pixels of LV in 1" in shown.out
    assert shown.out.count("wrote annotated_labels into") == 2
    assert main(["annotate", "7"]) == 0
    assert shown.err == ""


@pytest.mark.parametrize(
    "table",
    [
        "case,labels\nEchoNet_0,LV\nCAMUS_0,LV;LA\nCAMUS_1,\"LV, LA\"\n",
        "case,label\nEchoNet_0,LV\nCAMUS_0,LV\nCAMUS_0,LA\nCAMUS_1,LA\nCAMUS_1,LV\n",
        "case,LA,LV\nEchoNet_0,,1\nCAMUS_0,yes,x\nCAMUS_1,1,TRUE\n",
        "LV,case,LA\n1.0,EchoNet_0,0.0\n1,CAMUS_0,1\n1,CAMUS_1,1\n",
    ],
)  # fmt: skip
def test_tables(place, table):
    path = place / "table.csv"
    path.write_text(table)
    assert main(["annotate", "7", "--from", str(path)]) == 0
    assert [each["annotated_labels"] for each in written(place)] == [TABLE, TABLE]


def test_a_case_without_labels_and_one_that_is_not_named(place, capsys):
    path = place / "raw" / DATASET / "labelsTr" / "EchoNet_0.png"
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)
    assert main(["annotate", "7", "--source-pattern", "EchoNet_*="]) == 0
    assert written(place)[0]["annotated_labels"] == {"EchoNet_0": []}
    assert "1 cases EchoNet_*: no label annotated; pixels of none" in capsys.readouterr().out


def test_a_label_that_nobody_ever_drew_is_asked_about(place, capsys):
    assert main(["annotate", "7", "--source-pattern", "EchoNet_*=LV,LA"]) == 0
    shown = capsys.readouterr().err
    assert "warning: LA counts as annotated in 1 cases EchoNet_*, and none of them has a pixel of it" in shown
    assert "LV counts" not in shown


def test_pixels_of_what_was_not_annotated_are_an_error(place, capsys):
    before = written(place)
    assert main(["annotate", "7", "--source-pattern", "CAMUS_*=LV"]) == 2
    shown = capsys.readouterr().err
    assert "CAMUS_0: 'LA' is not among its annotated labels, but 24 pixels have it" in shown
    assert "CAMUS_1: 'LA'" in shown
    assert "Nothing was written" in shown
    assert written(place) == before


def test_what_is_there_is_checked(place, capsys):
    assert main(["annotate", "7"]) == 2
    assert "does not say which labels were annotated" in capsys.readouterr().err
    assert main(["annotate", "7", *SOURCES]) == 0
    copy = place / "preprocessed" / DATASET / "dataset.json"
    copy.write_text(json.dumps({**json.loads(copy.read_text("utf-8")), "annotated_labels": {}}))
    assert main(["annotate", "7"]) == 2
    assert "is not the same in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--source-pattern", "EchoNet_*=LVV"],
            "there is no label 'LVV'; did you mean 'LV'? (case 'EchoNet_0', 1 in all)",
        ),
        (["--source", "EchoNt_0=LV"], "no case fits 'EchoNt_0'; did you mean 'EchoNet_0'?"),
        (
            ["--source-pattern", "*=LV,LA", "--source-pattern", "EchoNet_*=LV"],
            "case 'EchoNet_0' fits '*' and 'EchoNet_*'",
        ),
        (["--source", "LV"], "--source-pattern must be 'PATTERN=LABEL,LABEL', as in"),
        (["--source", "EchoNet_*=LV,ignore"], "there is no label 'ignore'"),
        (["--from", "case,labels\nEchoNet_1,LV\n"], "there is no case 'EchoNet_1'; did you mean 'EchoNet_0'?"),
        (["--from", "name,labels\nEchoNet_0,LV\n"], "one of them 'case', got ['name', 'labels']"),
        (["--from", "case,LAA\nEchoNet_0,1\n"], "column 'LAA' is neither 'case', 'labels' nor a label; did you mean"),
        (["--from", "case,LV\nEchoNet_0,maybe\n"], "line 2: column 'LV' must say 1 or 0 (yes or no), got 'maybe'"),
        (["--from", "case,LV\nEchoNet_0,1\nEchoNet_0,0\n"], "line 3: case 'EchoNet_0' has a row already"),
    ],
)
def test_what_cannot_be_meant(place, arguments, message, capsys):
    if arguments[0] == "--from":
        (place / "table.csv").write_text(arguments[1])
        arguments = ["--from", str(place / "table.csv")]
    before = written(place)
    assert main(["annotate", "7", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert written(place) == before


def test_data_sets_that_are_not_there(place, monkeypatch, capsys):
    for dataset, message in (("8", "Could not find a dataset with the ID 8"), ("Dataset008_No", "there is no /")):
        assert main(["annotate", dataset, *SOURCES]) == 2
        assert message in capsys.readouterr().err
    assert main(["annotate", "Heart", *SOURCES]) == 2
    assert "Heart: " in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_raw")
    assert main(["annotate", DATASET, *SOURCES]) == 2
    assert "nnUNet_raw is not set" in capsys.readouterr().err


def test_files_that_cannot_be_read(place, capsys):
    label = place / "raw" / DATASET / "labelsTr" / "CAMUS_0.png"
    label.write_bytes(b"no picture")
    assert main(["annotate", "7", *SOURCES]) == 2
    assert "label files that nnU-Net cannot read:" in capsys.readouterr().err
    label.unlink()
    assert main(["annotate", "7", *SOURCES]) == 2
    assert f"{label} is not there" in capsys.readouterr().err
    (place / "raw" / DATASET / "dataset.json").write_text("{")
    assert main(["annotate", "7", *SOURCES]) == 2
    assert "dataset.json is no JSON" in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_old_file(place, monkeypatch, capsys):
    before, path = written(place), place / "raw" / DATASET / "dataset.json"
    path.chmod(0o640)

    def fail(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        assert main(["annotate", "7", *SOURCES]) == 2
    assert "make space" in capsys.readouterr().err
    assert written(place) == before
    assert [each.name for each in path.parent.glob("*dataset*")] == ["dataset.json"]
    assert main(["annotate", "7", *SOURCES]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.slow
def test_many_label_files_are_read_by_several_processes(place, monkeypatch):
    dataset = annotating.find_dataset("7")
    one = annotating.pixels_of(dataset)
    monkeypatch.setattr(annotating, "POOL_FROM", 1)
    monkeypatch.setattr(annotating, "default_num_processes", 2)
    assert annotating.pixels_of(dataset) == one
    assert one["CAMUS_0"][2] == 24


def test_the_line_for_the_shell(monkeypatch, capsys):
    folder = Path(annotating.__file__).parent / "trainers"
    for before, after in (("", f"{folder}"), ("/mine", f"/mine{os.pathsep}{folder}"), (f"{folder}", f"{folder}")):
        monkeypatch.setenv("nnUNet_extTrainer", before)
        assert main([]) == 0
        first, *rest = capsys.readouterr().out.splitlines()
        assert first == f"export nnUNet_extTrainer={after}"
        assert all(line.startswith("#") for line in rest)


def test_folders_with_spaces_and_quotes_in_both_shells():
    assert shell_line("/a b/it's", windows=False) == """export nnUNet_extTrainer='/a b/it'"'"'s'"""
    assert shell_line("C:\\a b\\it's", windows=True) == "$env:nnUNet_extTrainer = 'C:\\a b\\it''s'"


def test_cells_with_spaces_and_rows_of_nothing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("case,labels\n a , LV ;; LA \nb,\n")
    assert from_table(path, ("background", "LV", "LA")) == {"a": ["LV", "LA"], "b": []}
