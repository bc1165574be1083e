"""Conditions: the strategies compared anew with some keys changed; and the edits that change the data."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest
import torch
from listeners import Heard
from tiny import TOML, write_suite

from labeldrop_bench import data, records, suites, sweep
from labeldrop_bench.data.base import Dataset
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import laid_over
from labeldrop_bench.sweep import limits

CONDITIONS = """
[[conditions]]
name = "as it is"
[[conditions]]
name = "half"
value = 0.5
training.epochs = 1
[[conditions.data.hidden]]
labels = ["LV"]
share = 0.5
[[conditions.data.hidden]]
labels = ["LA"]
domains = ["B"]
[[conditions]]
name = "near"
data.gap = 0.0
"""


@pytest.fixture(autouse=True)
def _small_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the tests has held large tensors, which no worker will."""
    monkeypatch.setattr(limits, "peak_memory", lambda: 2**29)


def _load(folder: Path, text: str, *overrides: str) -> suites.Suite:
    return suites.load(write_suite(folder, text), overrides)


def test_each_condition_changes_its_keys_and_nothing_else(tmp_path: Path) -> None:
    config = _load(tmp_path, TOML + CONDITIONS).config
    runs = config.runs()
    assert [run.run for run in runs] == [
        "as-it-is_full-seed0", "as-it-is_adaptive-seed0", "half_full-seed0", "half_adaptive-seed0",
        "near_full-seed0", "near_adaptive-seed0",
    ]  # fmt: skip
    plain = {run.strategy.name: run for run in _load(tmp_path, TOML).config.runs()}
    for run in runs:
        same = {"condition": run.condition}
        if run.condition == "half":
            same |= {"training": run.training, "data": run.data}
            assert run.training == plain["full"].training.model_copy(update={"epochs": 1})
            assert [entry.labels for entry in run.data.hidden] == [("LV",), ("LA",)]
            assert run.data.options == plain["full"].data.options
        if run.condition == "near":
            same |= {"data": run.data}
            assert run.data.options == {**plain["full"].data.options, "gap": 0.0}
            assert [(entry.domains, entry.labels) for entry in run.data.hidden] == [(("B",), ("LA",))]
        assert run == plain[run.strategy.name].model_copy(update=same)


def test_tables_inside_tables_are_laid_over_and_all_else_is_replaced() -> None:
    table = {"a": 1, "b": {"c": [1, 2], "d": {"e": 1, "f": 2}}}
    assert laid_over(table, {"b": {"c": [3], "d": {"e": 5}}, "g": {}}) == {
        "a": 1, "b": {"c": [3], "d": {"e": 5, "f": 2}}, "g": {}
    }  # fmt: skip
    assert table["b"] == {"c": [1, 2], "d": {"e": 1, "f": 2}}


def test_results_name_the_condition_and_runs_side_by_side_give_the_same(tmp_path: Path) -> None:
    text = TOML + CONDITIONS
    suite = _load(tmp_path, text, "training.threads=1")
    sweep.run(suite, tmp_path / "one", device="cpu", listener=Heard())
    rows = list(csv.DictReader((tmp_path / "one" / "results.csv").open()))
    each = 2 * 2 * 3 * len({*records.METRICS, *records.SIGHTINGS})  # runs x domains x classes x metrics
    assert [row["condition"] for row in rows] == ["as it is"] * each + ["half"] * each + ["near"] * each
    assert all(row["run"].startswith(row["condition"].replace(" ", "-")) for row in rows)
    sides = _load(tmp_path, text, "training.threads=1", "workers=2")
    sweep.run(sides, tmp_path / "two", device="cpu", listener=Heard())
    assert (tmp_path / "two" / "results.csv").read_bytes() == (tmp_path / "one" / "results.csv").read_bytes()


def test_what_changes_the_data_only_afterwards_loads_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, loaded = data.get("phantom"), []

    def load(options: object) -> Dataset:
        loaded.append(options)
        return honest.load(options)

    monkeypatch.setattr(data, "get", lambda _: dataclasses.replace(honest, load=load))
    edits = CONDITIONS.partition('[[conditions]]\nname = "near"')[0]
    prepared = sweep.prepare(_load(tmp_path, TOML + edits))
    left = [int(prepared.dataset(run).train.annotated[:, 1].sum()) for run in prepared.config.runs()]
    assert left == [8, 8, 4, 4]
    assert len(loaded) == 1
    # other options: one at a time is held, so each is loaded for the checks and for the runs
    loaded.clear()
    prepared = sweep.prepare(_load(tmp_path, TOML + CONDITIONS))
    assert len(loaded) == 2
    for run in prepared.config.runs():
        prepared.dataset(run)
    assert len(loaded) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gap = 0.0", "gpa = 0.0", r"conditions\.near\.data\.gpa: there is no such key; did you mean 'gap'"),
        ("gap = 0.0", "gap = -1", r"conditions\.near\.data\.gap: .*must be a number from 0 up, .*got -1"),
        ("data.gap = 0.0", "training.epoch = 3", r"conditions\.near\.training\.epoch: .*; did you mean 'epochs'"),
        ("data.gap = 0.0", "model.channels = [4]", r"conditions\.near\.model: .*at least two levels"),
        ("data.gap = 0.0", "patches.kind = 'box'", r"conditions\.near\.patches: size must have 2 or 3 numbers for box"),
        (
            "data.gap = 0.0",
            "patches = {kind='box', size=[8,8,8]}",
            r"conditions\.near\.patches: box of 3 axes does not",
        ),
        ("data.gap = 0.0", "data.name = 'x'", r"conditions\.near: data\.name: the data set is the same in all"),
        (
            "data.gap = 0.0",
            "modle.channels = [4]",
            r"conditions\.near\.modle: there is no such key; did you mean 'model'",
        ),
        ('["LV"]\nshare', '["LVX"]\nshare', r"conditions\.half\.data: hidden\.labels: .*'LVX'; did you mean 'LV'"),
        ("data.gap = 0.0", "data.train_domains = ['C']", r"conditions\.near\.data: train_domains: .*no domain 'C'"),
        ("data.gap = 0.0", "data.classes=['LV']", r"conditions\.near\.data: hidden\.labels: .*no label 'LA'"),
        (
            "data.gap = 0.0",
            "data.hidden = [{labels = ['LV', 'LVM', 'LA']}]",
            r"conditions\.near\.data: the validation split shows no class",
        ),
        ('"near"', '"half"', "conditions must all differ"),
        ('"near"', '"as-it is"', "must differ in more than punctuation"),
    ],
)
def test_mistakes_are_named_where_they_were_made(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = TOML + CONDITIONS
    assert old in text
    with pytest.raises(SuiteError, match=message):
        sweep.prepare(_load(tmp_path, text.replace(old, new)))


def test_mistakes_of_a_strategy_in_a_condition_name_both(tmp_path: Path) -> None:
    text = TOML + CONDITIONS.replace("data.gap = 0.0", "data.classes = ['LV', 'LVM']\ndata.hidden = {B = ['LVM']}")
    with pytest.raises(SuiteError, match=r"conditions\.near: strategies\.adaptive\.dropout_classes: .*no .* 'LA'"):
        sweep.prepare(_load(tmp_path, text))


def test_edits_reach_training(tmp_path: Path) -> None:
    text = TOML.replace('hidden.B = ["LA"]', 'classes = ["LA", "LV"]\ntrain_domains = ["B"]').replace(
        "[model]", '[[data.hidden]]\nlabels = ["LV"]\nshare = 0.25\nseed = 1\n[model]'
    )
    suite = _load(tmp_path, text)
    sweep.run(suite, tmp_path / "out", device="cpu", listener=Heard())
    here = tmp_path / "out" / "runs" / "adaptive-seed0"
    split = list(csv.DictReader((here / "split.csv").open()))
    assert {row["domain"] for row in split if row["split"] != "test"} == {"B"}
    assert {row["domain"] for row in split if row["split"] == "test"} == {"A", "B"}
    assert sorted(row["annotated"] for row in split if row["split"] == "train") == ["LA", *["LV; LA"] * 3]
    weights = torch.load(here / "checkpoint.pt", weights_only=True)["weights"]
    assert list(weights.values())[-1].shape == (3,)  # background and two classes
    result = records.read_result(tmp_path / "out", sweep.prepare(suite).config.runs()[1])
    assert result is not None
    assert [(row.domain, row.class_, row.annotated) for row in result.rows if row.metric == "dice"] == [
        ("A", "LA", False), ("A", "LV", False), ("B", "LA", True), ("B", "LV", True),
    ]  # fmt: skip
    # the upper bound takes the truth of what is hidden
    full = list(csv.DictReader((tmp_path / "out" / "runs" / "full-seed0" / "split.csv").open()))
    assert {row["annotated"] for row in full} == {"LV; LA"}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ('procedure = {name = "smilr"}', r"adaptive\.procedure: .*no procedure 'smilr'; did you mean 'smiler'"),
        ('procedure = {name = "smiler", round = 2}', r"adaptive\.procedure\.round: .*; did you mean 'rounds'"),
        ('procedure = {name = "smiler"}', r"adaptive\.procedure: smiler needs a loss of the sigmoid family"),
        (
            'loss = "smile"\nprocedure = {name = "smiler", ranking = "deviation"}',
            r"adaptive\.procedure: .*set model\.dropout above 0",
        ),
        (
            'loss = "label_flip"\nprocedure = {name = "heteroscedastic", warm_up = 3, reject_from = 3}',
            r"adaptive\.procedure: reject_from must be an epoch after the warm-up",
        ),
        ('procedure = {name = "heteroscedastic"}', r"adaptive\.procedure: heteroscedastic needs label_flip or"),
    ],
)
def test_procedures_are_checked_before_training(tmp_path: Path, strategy: str, message: str) -> None:
    loss = "" if strategy.startswith("loss") else 'loss = "adaptive_ce"\n'
    text = TOML.replace('loss = "adaptive_ce"\ndropout = 0.5', f"{loss}{strategy}\ndropout = 0.5")
    with pytest.raises(SuiteError, match=f"tiny.toml: strategies.{message}"):
        sweep.run(_load(tmp_path, text), tmp_path / "out", device="cpu", listener=Heard())
    assert not (tmp_path / "out").exists()


def test_a_split_that_belongs_to_the_seed(tmp_path: Path) -> None:
    config = _load(tmp_path, "split_by_seed = true\n" + TOML, "seeds=[3, 5]").config
    assert [(run.run, run.data.options["seed"]) for run in config.runs()] == [
        ("full-seed3", 3), ("adaptive-seed3", 3), ("full-seed5", 5), ("adaptive-seed5", 5)
    ]  # fmt: skip


def test_a_network_that_gives_no_logits_for_the_patches_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pooled(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)).expand(-1, 4)

    monkeypatch.setattr("labeldrop_bench.models.create", lambda *_, **__: Pooled())
    with pytest.raises(
        SuiteError, match=r"model: unet makes logits of shape \(1, 4\) from \(16, 16\).* need \(1, 4, 16"
    ):
        sweep.prepare(_load(tmp_path, TOML))
