from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TOML, write_suite

from labeldrop_bench import suites
from labeldrop_bench.errors import SuiteError
from labeldrop_bench.records import HiddenConfig


@pytest.mark.parametrize("name", suites.names())
def test_every_suite_of_the_package_loads_under_its_own_name(name: str) -> None:
    suite = suites.load(name)
    assert suite.config.name == name
    assert suite.source == f"{name}.toml"


def test_quick_and_smoke_compare_the_same_strategies() -> None:
    assert suites.load("quick").config.strategies == suites.load("smoke").config.strategies


def test_a_suite_of_ones_own_loads_by_path(tmp_path: Path) -> None:
    suite = suites.load(write_suite(tmp_path))
    assert suite.source == str(tmp_path / "tiny.toml")
    assert suite.config.data.options == {"size": 16, "train": 4, "validation": 2, "test": 3}
    assert suite.config.data.hidden == (HiddenConfig(labels=("LA",), domains=("B",)),)


def test_the_path_of_annotated_file_begins_at_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/somebody")
    conditions = """
    [[conditions]]
    name = "other"
    data.annotated_file = "../other.csv"
    [[conditions]]
    name = "own"
    data.annotated_file = "~/own.csv"
    [[conditions]]
    name = "elsewhere"
    data.annotated_file = "/elsewhere.csv"
    """
    path = write_suite(tmp_path, TOML.replace("[model]", 'annotated_file = "labels.csv"\n[model]') + conditions)
    found = {run.condition: run.data.annotated_file for run in suites.load(path).config.runs()}
    assert found == {
        "other": tmp_path / "../other.csv",
        "own": Path("/home/of/somebody/own.csv"),
        "elsewhere": Path("/elsewhere.csv"),
    }
    plain = suites.load(path, ["conditions=[]"]).config
    assert plain.data.annotated_file == tmp_path / "labels.csv"
    # on the command line a path is what it is in the shell
    given = suites.load(path, ["conditions=[]", "data.annotated_file=here.csv"]).config
    assert given.data.annotated_file == Path("here.csv")


def test_overrides_change_keys_of_every_kind() -> None:
    config = suites.load(
        "smoke",
        [
            "training.epochs=7",
            "data.gap=0",
            "seeds=[3, 4]",
            "training.precision=32-true",
            "data.hidden.A = ['LV']",
            'strategies."adaptive + dropout 0.3".dropout=0.4',
            "model.name='a=b'",
            "title=Two words",
        ],
    ).config
    assert config.training.epochs == 7
    assert config.data.options["gap"] == 0
    assert config.seeds == (3, 4)
    assert config.training.precision == "32-true"
    assert {h.domains: h.labels for h in config.data.hidden} == {("A",): ("LV",), ("B",): ("LA",)}
    assert {s.name: s.dropout for s in config.strategies}["adaptive + dropout 0.3"] == 0.4
    assert config.model.name == "a=b"
    assert config.title == "Two words"


@pytest.mark.parametrize(
    ("suite", "overrides", "message"),
    [
        ("quik", [], "there is no suite 'quik'; did you mean 'quick'"),
        ("./nowhere.toml", [], "nowhere.toml: cannot read this suite file"),
        ("smoke", ["training.epoch=3"], r"smoke.toml: training.epoch: there is no such key; did you mean 'epochs'"),
        ("smoke", ["trainig.epochs=3"], "trainig: there is no such key; did you mean 'training'"),
        ("smoke", ["training.precision=32-treu"], "training.precision: .*'32-treu'; did you mean '32-true'"),
        ("smoke", ["training.epochs=many"], "training.epochs: .*integer.*, got 'many'"),
        ("smoke", ["training.epochs=0"], "training.epochs: .*greater than 0, got 0"),
        ("smoke", ["strategies.adaptve.dropout=0.1"], "no entry named 'adaptve'; did you mean 'adaptive'"),
        ("smoke", ["strategies.adaptive.droput=0.1"], "strategies.adaptive.droput: .*did you mean 'dropout'"),
        ("smoke", ["strategies.adaptive.dropout=2"], "strategies.adaptive.dropout: .*less than or equal to 1, got 2"),
        ("smoke", ["seeds=[0, 1"], r"--set seeds: '\[0, 1' is no value in TOML's syntax"),
        ("smoke", ["training.epochs"], "must be key=value"),
        ("smoke", ["=3"], "must be key=value"),
        ("smoke", ["training..epochs=3"], "must be key=value"),
        ("smoke", ["name.more=3"], "name is a value and has no keys, got 'smoke'"),
        ("smoke", ["training=3"], "smoke.toml: training: .*got 3"),
        ("smoke", ["training.learning_rate=inf"], "training.learning_rate: .*finite number, got inf"),
        ("smoke", ["training.grid={weight_decay=[inf]}"], "training.*weight_decay.*finite number, got inf"),
        ("smoke", ["conditions=[{name='a', value=nan}]"], "conditions.a.value: .*finite number, got nan"),
        ("smoke", ["seeds=[4294967296]"], "seeds.0: .*less than 4294967296, got 4294967296"),
        ("smoke", [f"strategies.adaptive.name={'x' * 300}"], "must be shorter: no file system stores 'xxx"),
        ("smoke", ["conditions=[{name='a', valeu=1}]"], "conditions.a.valeu: .*did you mean 'value'"),
        ("smoke", ["conditions=[{name='a', seeds=[1]}]"], "conditions.a.seeds: there is no such key. Known: name, val"),
    ],
)
def test_mistakes_are_named_with_the_closest_match(suite: str, overrides: list[str], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        suites.load(suite, overrides)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Tiny"', 'title = "Tiny', "tiny.toml: not a TOML file: .*line 3"),
        ('title = "Tiny"', "", "tiny.toml: title: this key is required"),
        ("full_labels = true", "", "tiny.toml: strategies.full: .*is named 'full'"),
        ("[model]", "[modle]", "tiny.toml: modle: there is no such key; did you mean 'model'"),
        ("channels", "chanels", "tiny.toml: model.chanels: there is no such key; did you mean 'channels'"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        suites.load(write_suite(tmp_path, TOML.replace(old, new)))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = write_suite(tmp_path, TOML.replace("epochs", "epoks").replace("channels", "chanels"))
    with pytest.raises(SuiteError, match=r"(?s)model.chanels.*training.epoks"):
        suites.load(path)
