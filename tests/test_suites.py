from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TOML, write_suite

from labeldrop_bench import data as registered
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


def test_every_path_of_a_data_set_begins_at_the_suite(tmp_path: Path) -> None:
    """A file of another folder finds its data wherever the command is given; also in the sources of a combined set."""
    path = tmp_path / "two.toml"
    path.write_text(
        """
        [data]
        name = "combined"
        [[data.sources]]
        name = "camus"
        root = "CAMUS"
        [[data.sources]]
        name = "folder"
        labels = { A = 1 }
        root = "/pictures"
        [[conditions]]
        name = "one"
        data.root = "elsewhere"
        """,
        encoding="utf-8",
    )
    data = suites.load(str(path)).config.runs()[0].data.options
    assert [source["root"] for source in data["sources"]] == [str(tmp_path / "CAMUS"), "/pictures"]
    assert data["root"] == str(tmp_path / "elsewhere")
    given = suites.load(str(path), ["conditions=[]", "data.sources.camus.root=here"]).config.data.options
    assert given["sources"][0]["root"] == "here"  # on the command line a path is what it is in the shell


def test_path_keys_are_those_of_the_data_sets() -> None:
    """A reader with another key for a path has to be named in `PATHS`, or its relative paths begin elsewhere."""
    of_readers = {
        key
        for info in registered.REGISTRY.all().values()
        if not isinstance(info, Exception)
        for key, field in info.options.model_fields.items()
        if "Path" in str(field.annotation)
    }
    assert of_readers | {"annotated_file"} == set(suites.PATHS)


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
        ("smoke", ["training.epochs=many"], "training.epochs: must be a whole number from 1 up, .*, got 'many'"),
        ("smoke", ["training.epochs=0"], "training.epochs: must be a whole number from 1 up, .*, got 0"),
        ("smoke", ["strategies.adaptve.dropout=0.1"], "no entry named 'adaptve'; did you mean 'adaptive'"),
        ("smoke", ["strategies.adaptive.droput=0.1"], "strategies.adaptive.droput: .*did you mean 'dropout'"),
        (
            "smoke",
            ["strategies.adaptive.dropout=2"],
            "strategies.adaptive.dropout: must be a number from 0 to 1, .*2",
        ),
        ("smoke", ["seeds=[0, 1"], r"--set seeds: '\[0, 1' is no value in TOML's syntax"),
        ("smoke", ["training.epochs"], "must be key=value"),
        ("smoke", ["=3"], "must be key=value"),
        ("smoke", ["training..epochs=3"], "must be key=value"),
        ("smoke", ["name.more=3"], "name is a value and has no keys, got 'smoke'"),
        ("smoke", ["training=3"], r"smoke.toml: training: must be a table: write \[training\], .*got 3"),
        ("smoke", ["training.learning_rate=inf"], "training.learning_rate: must be a finite number above 0, .*got inf"),
        (
            "smoke",
            ["training.grid={weight_decay=[inf]}"],
            "training.grid.weight_decay.0: must be a finite number, ",
        ),
        ("smoke", ["conditions=[{name='a', value=nan}]"], "conditions.a.value: must be a finite number, got nan"),
        ("smoke", ["seeds=[4294967296]"], "seeds.0: must be a whole number from 0 to 4294967295, got 42949"),
        ("smoke", [f"strategies.adaptive.name={'x' * 300}"], "must be shorter: no file system stores 'xxx"),
        ("smoke", ["conditions=[{name='a', valeu=1}]"], "conditions.a.valeu: .*did you mean 'value'"),
        (
            "smoke",
            ["conditions=[{name='a', seeds=[1]}]"],
            "conditions.a.seeds: there is no such key here; seeds ",
        ),
    ],
)
def test_mistakes_are_named_with_the_closest_match(suite: str, overrides: list[str], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        suites.load(suite, overrides)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Tiny"', 'title = "Tiny', "tiny.toml: not a TOML file: .*line 3"),
        ('name = "phantom"', "", "tiny.toml: data.name: this key is required: of a data set; `lab"),
        ("full_labels = true", "", "tiny.toml: strategies.full: .*is named 'full'"),
        ("[model]", "[modle]", "tiny.toml: modle: there is no such key; did you mean 'model'"),
        ("[data]", "[dat]", r"tiny.toml: dat: there is no such key; did you mean 'data'\? Known: [\w, ]+$"),
        (
            TOML[TOML.index("[[strategies") :],
            "[strategies]\nname = 'full'",
            r"strategies: must be a list of tables: write \[\[strat",
        ),
        ("[model]", "[[model]]", r"model: must be a table: write \[model\], in one pair of brackets"),
        (
            "[training]",
            "[model.training]",
            r"model.training: there is no such key here; \[training\] is a table of",
        ),
        ("seeds = [0]", "dropout = 0.5", r"dropout: there is no such key here; there is one in .*\[\[strategies\]\]"),
        ("[data]", "loss = 'ce'\n[data]", r"loss: there is no such key here; there is one in \[\[strategies\]\]"),
        (
            'hidden.B = ["LA"]',
            "hidden.B = 3",
            r"data.hidden: must be a table of DOMAIN = a list .*\{'B': 3\}",
        ),
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


DATA = """
[data]
name = "phantom"
size = 16
train = 4
validation = 2
test = 3
"""


@pytest.mark.parametrize(
    ("more", "full"),
    [
        ("", False),
        ("hidden.B = ['LA']", True),
        ("hidden = [{ labels = ['LA'] }]", True),
        ("hidden = [{ labels = ['LA'], share = 0.0 }]", False),
        ("hidden.B = []", False),
        ("[[conditions]]\nname = 'a'\ndata.hidden.B = 'LA'\n[[conditions]]\nname = 'b'", True),
        ("hidden.B = ['LA']\n[[conditions]]\nname = 'a'\ndata.hidden = []", False),
    ],
)
def test_a_data_table_alone_is_a_whole_suite(tmp_path: Path, more: str, full: bool) -> None:
    path = tmp_path / "two hospitals.toml"
    path.write_text(DATA + more)
    config = suites.load(str(path)).config
    assert (config.name, config.title, config.seeds) == ("two hospitals", "two hospitals", (0, 1, 2))
    named = {strategy.name: strategy for strategy in config.strategies}
    kinds = ["standard", "adaptive", "adaptive + dropout 0.3", "marginal", "marginal + dropout 0.3"]
    assert list(named) == ["full"] * full + kinds
    assert {name for name in named if named[name].dropout == 0.3} == {name for name in named if "0.3" in name}
    assert named["standard"].loss == "ce"


def test_what_was_filled_in_can_be_changed_as_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DATA)
    changes = ['strategies."marginal + dropout 0.3".dropout=0.4', "data.hidden.B=LA", "name=ours"]
    config = suites.load(str(path), changes).config
    assert [s.dropout for s in config.strategies] == [0, 0, 0, 0.3, 0, 0.4]
    assert config.strategies[0].full_labels
    assert config.title == "ours"
    with pytest.raises(SuiteError, match=r"strategies: must be a list of one or more tables, got \[\]"):
        suites.load(str(path), ["strategies=[]"])


@pytest.mark.parametrize("wrong", ["hidden = 3", "hidden = ['LA']", "hidden.B = 3", "conditions = [3]"])
def test_a_table_that_cannot_be_filled_in_is_told_as_any_other(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{wrong}\n{DATA}" if wrong.startswith("cond") else DATA + wrong)
    with pytest.raises(SuiteError, match=r"mine.toml: (data.hidden(.0)?|conditions.0): must be"):
        suites.load(str(path))
