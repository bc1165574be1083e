"""Two hospitals, the second without an LA: what was never annotated and what an experiment hides, side by side."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listeners import Heard
from nnunet_tree import write_nnunet

from labeldrop_bench import leaderboard, records, suites, sweep
from labeldrop_bench.errors import SuiteError

SUITE = """
name = "hospitals"
title = "Two hospitals"
seeds = [0]
[data]
name = "nnunet"
dataset = "{dataset}"
size = [16, 16]
validation = 0.25
test = 0.25
domains = {{ A = "a*", B = "b*" }}
{keys}
[model]
channels = [4, 8]
[training]
epochs = 2
batch_size = 4
precision = "32-true"
threads = 1
[[strategies]]
name = "standard"
loss = "ce"
[[strategies]]
name = "adaptive + dropout"
loss = "adaptive_ce"
dropout = 0.3
dropout_classes = ["LA"]
"""
CASES = [f"{hospital}{i}" for hospital in "ab" for i in range(8)]


def _picture(number: int, lacks: bool) -> tuple[Any, Any]:
    """A bright LV and a dark LA; where the LA is lacking, it is in the image all the same."""
    rng = np.random.default_rng(number)
    labels = np.zeros((16, 16), np.uint8)
    row, column = rng.integers(1, 5, 2)
    labels[row : row + 5, column : column + 5] = 1
    labels[row + 7 : row + 11, column + 2 : column + 8] = 2
    image = np.array([120, 220, 20])[labels] + rng.normal(0, 8, labels.shape)
    labels[(labels == 2) & lacks] = 0
    return image.clip(0, 255).astype(np.uint8)[None], labels


def _write(folder: Path, name: str, lacks: bool) -> Path:
    drawings = {case: _picture(number, lacks and case[0] == "b") for number, case in enumerate(CASES)}
    return write_nnunet(folder / name, drawings, {"background": 0, "LV": 1, "LA": 2}, ending=".png")


def _suite(folder: Path, dataset: str, keys: str) -> suites.Suite:
    path = folder / f"{dataset}.toml"
    path.write_text(SUITE.format(dataset=dataset, keys=keys))
    return suites.load(str(path), [f"data.root={folder}"])


def _weights(out: Path) -> dict[str, Any]:
    files = sorted(out.glob("runs/*/checkpoint.pt"))
    return {path.parent.name: torch.load(path, weights_only=True)["weights"] for path in files}


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def _scores(out: Path) -> dict[tuple[str, str, str], str]:
    rows = _rows(out / "results.csv")
    return {(r["strategy"], r["domain"], r["class"]): r["value"] for r in rows if r["metric"] == "dice"}


def _sightings(out: Path) -> dict[tuple[str, ...], tuple[str, ...]]:
    rows = [row for row in _rows(out / "results.csv") if row["metric"] in records.SIGHTINGS]
    return {(r["strategy"], r["domain"], r["class"], r["metric"]): (r["value"], r["n"], r["annotated"]) for r in rows}


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's directory where B's LA is there, and hidden."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("hidden")
        patch.setenv("LABELDROP_CACHE", str(folder / "cache"))
        _write(folder, "Dataset001_Whole", lacks=False)
        suite = _suite(folder, "Dataset001_Whole", 'hidden.B = ["LA"]')
        sweep.run(suite, folder / "out", device="cpu", listener=Heard(), workers=1)
    return folder / "out"


@pytest.mark.parametrize("told_by", ["domain", "file", "dataset.json"])
def test_a_label_that_is_really_missing_trains_alike_and_is_not_scored(
    told_by: str, hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    folder = _write(tmp_path, "Dataset002_Lacking", lacks=True)
    of_b = [case for case in CASES if case[0] == "b"]
    keys = {"domain": 'annotated.B = ["LV"]', "file": 'annotated_file = "b.csv"', "dataset.json": ""}[told_by]
    if told_by == "file":  # beside the suite's file, written by a spreadsheet
        (tmp_path / "b.csv").write_text("".join(["case,label\n", *(f"{case},LV\n" for case in of_b)]), "utf-8-sig")
    if told_by == "dataset.json":
        description = json.loads((folder / "dataset.json").read_text())
        description["annotated_labels"] = {case: ["LV"] for case in of_b}
        (folder / "dataset.json").write_text(json.dumps(description))
    out = tmp_path / "out"
    sweep.run(_suite(tmp_path, folder.name, keys), out, device="cpu", listener=Heard(), workers=1)

    # the same training, bit for bit
    there, here = _weights(hidden), _weights(out)
    assert there.keys() == here.keys()
    assert len(here) == 2
    for run, weights in here.items():
        assert all(torch.equal(weight, there[run][name]) for name, weight in weights.items()), run
    before, after = (_rows(next(o.glob("runs/adaptive*/split.csv"))) for o in (hidden, out))
    assert [r["annotated"] for r in after] == [r["annotated"] for r in before]
    assert {r["annotated"] for r in after if r["domain"] == "B"} == {"LV"}
    # other scores: the same but for B's LA, which has none
    assert {r["known"] for r in before} == {"LV; LA"}
    assert {(r["domain"], r["known"]) for r in after} == {("A", "LV; LA"), ("B", "LV")}
    scored_there, scored_here = _scores(hidden), _scores(out)
    gone = {("standard", "B", "LA"), ("adaptive + dropout", "B", "LA")}
    assert scored_here.keys() == scored_there.keys() - gone
    assert all(scored_there[place] == value for place, value in scored_here.items())
    # what is found where needs no truth, and is recorded alike
    assert _sightings(hidden) == _sightings(out)
    assert ("standard", "B", "LA", "presence") in _sightings(out)
    ranked = [leaderboard.load(o).boards[0].ranked_by.name for o in (hidden, out)]
    assert ranked == ["unannotated", "overall"]
    assert "Nothing that was unannotated can be scored" in leaderboard.render(leaderboard.load(out), "md")


def test_full_without_all_labels_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    full = "strategies=[{name='full', loss='ce', full_labels=true}]"
    for name, lacks, keys in (("Dataset001_Whole", False, 'hidden.B = ["LA"]'), ("Dataset002_Lacking", True, "")):
        path = _write(tmp_path, name, lacks).parent / f"{name}.toml"
        path.write_text(SUITE.format(dataset=name, keys=keys or 'annotated.B = ["LV"]'))
        notes = sweep.prepare(suites.load(str(path), [f"data.root={tmp_path}", full])).notes
        assert [("nobody annotated LA in B" in note) for note in notes] == [True] * lacks
        assert sweep.prepare(suites.load(str(path), [f"data.root={tmp_path}"])).notes == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('annotated.C = ["LV"]', r"data: annotated: there is no domain 'C'"),
        ('annotated.B = ["LAA"]', r"data: annotated: there is no label 'LAA'; did you mean 'LA'"),
        ('annotated_file = "none.csv"', r"data: annotated_file: .*none.csv cannot be read"),
        ('hidden.B = ["LAA"]', r"data: hidden.labels: there is no label 'LAA'; did you mean 'LA'"),
        ('hidden = [{ labels = ["LA"], shar = 0.5 }]', r"data.hidden.0.shar: .*did you mean 'share'"),
        ('hidden = [{ labels = ["LA"], seed = 1 }]', r"data.hidden.0: independently and seed choose"),
        ('hiden.B = ["LA"]', r"data.hiden: there is no such key; did you mean 'hidden'"),
        ('annotatted.B = ["LV"]', r"data.annotatted: there is no such key; did you mean 'annotated'"),
        (
            'annotated.B = ["LV"]',
            r"(?s)annotated: these label maps hold pixels of labels that are said to be unannotated there:\n"
            r"  b\d, domain B: 24 pixel\(s\) of LA\n.*and 3 more\n.*name it and hide it, as in hidden.B = \[\"LA\"\]",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_named(
    keys: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    folder = _write(tmp_path, "Dataset001_Whole", lacks=False)
    with pytest.raises(SuiteError, match=message):
        sweep.prepare(_suite(tmp_path, folder.name, keys))
