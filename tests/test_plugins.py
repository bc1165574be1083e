"""What other packages register: fake packages on the path, with entry points that are good, broken and taken twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import labeldrop_bench as lb
from labeldrop_bench import data, losses, models, procedures
from labeldrop_bench.commands import app
from labeldrop_bench.plugins import PluginError

runner = CliRunner()
MODULE = '''
from torch import nn
from labeldrop_bench.data.base import DatasetInfo
from labeldrop_bench.data import get
from labeldrop_bench.losses import CrossEntropy, LossInfo
from labeldrop_bench.procedures import PROCEDURES


class Plain(CrossEntropy):
    """Ours under their name.

    More.
    """


def network(*, spatial_dims, in_channels, out_channels, channels, dropout):
    """One layer."""
    return nn.Conv2d(in_channels, out_channels, 1)


class Bare(nn.Module):
    pass


class NoChannels(nn.Module):
    def __init__(self, num_classes=None, label_space=None, ignore_index=-100):
        super().__init__()

    def predict(self, logits): ...
    def probabilities(self, logits): ...
    def runs_on(self, device_type): ...


SAID = LossInfo(Plain, "their formula", "their paper", "K")
PHANTOM = get("phantom")
DATA = DatasetInfo("their_data", "d", "l", "s", PHANTOM.options, PHANTOM.load)
SCHEME = PROCEDURES["plain"]
'''
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with entry points on the path: group's last word, name and value of each."""
    (tmp_path / "labeldrop_theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def install(*points: tuple[str, str, str], package: str = "theirs") -> None:
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        text = "".join(f"[labeldrop_bench.{group}]\n{name} = {value}\n" for group, name, value in points)
        (info / "entry_points.txt").write_text(text)

    return install


def test_each_kind_is_found_by_name(install: Install) -> None:
    install(
        ("losses", "their_loss", "labeldrop_theirs:Plain"),
        ("datasets", "their_data", "labeldrop_theirs:DATA"),
        ("models", "their_net", "labeldrop_theirs:network"),
        ("procedures", "their_scheme", "labeldrop_theirs:SCHEME"),
    )
    assert losses.names() == (*losses.LOSSES, "their_loss")
    logits, target = torch.randn(1, 3, 4), torch.zeros(1, 4, dtype=torch.uint8)
    value = lb.losses.create("their_loss", num_classes=3)(logits, target)
    assert value == lb.CrossEntropy(3)(logits, target)
    assert lb.losses.create("their_loss+dice", num_classes=3).out_channels == 3
    assert data.names()[-1] == data.get("their_data").name == "their_data"
    assert models.names()[-1] == "their_net"
    network = models.create("their_net", spatial_dims=2, in_channels=1, out_channels=5, channels=(4, 8))
    assert network(torch.zeros(1, 1, 2, 2)).shape == (1, 5, 2, 2)
    assert procedures.names()[-1] == "their_scheme"


def test_lists_show_them_with_what_they_say(install: Install) -> None:
    install(
        ("losses", "said", "labeldrop_theirs:SAID"),
        ("losses", "unsaid", "labeldrop_theirs:Plain"),
        ("datasets", "their_data", "labeldrop_theirs:DATA"),
        ("models", "their_net", "labeldrop_theirs:network"),
    )
    said, unsaid = runner.invoke(app, ["losses"]).stdout.splitlines()[-2:]
    assert said.split() == ["said", "K", "their", "paper", "their", "formula"]
    assert unsaid.split() == ["unsaid", "not", "said", "theirs", "1.2", "Ours", "under", "their", "name"]
    assert runner.invoke(app, ["datasets"]).stdout.splitlines()[-1].split() == ["their_data", "l", "d"]
    assert runner.invoke(app, ["models"]).stdout.splitlines()[-1].split() == ["their_net", "One", "layer"]


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (("losses", "bad", "labeldrop_nowhere:X"), "ModuleNotFoundError: No module named 'labeldrop_nowhere'"),
        (("losses", "bad", "labeldrop_theirs:X"), "has no attribute 'X'"),
        (("losses", "bad", "labeldrop_theirs:network"), "must name an nn.Module class or a LossInfo of one"),
        (("losses", "bad", "labeldrop_theirs:Bare"), "Bare must have the methods forward, predict"),
        (("losses", "bad+x", "labeldrop_theirs:Plain"), r"must not have a '\+'"),
        (("datasets", "bad", "labeldrop_theirs:DATA"), "must be named as its entry point, got 'their_data'"),
        (("datasets", "bad", "labeldrop_theirs:Plain"), "must name a labeldrop_bench.data.base.DatasetInfo"),
        (("models", "bad", "labeldrop_theirs:SAID"), "must name a function with the signature"),
        (("procedures", "bad", "labeldrop_theirs:Plain"), "must name a labeldrop_bench.procedures.ProcedureInfo"),
    ],
)
def test_what_cannot_be_used_is_named_and_stands_in_nobodys_way(
    install: Install, point: tuple[str, str, str], message: str
) -> None:
    group, name, value = point
    install(point)
    registry = {"losses": losses, "datasets": data, "models": models, "procedures": procedures}[group].REGISTRY
    with pytest.raises(PluginError, match=message) as error:
        registry.get(name)
    assert f"of theirs 1.2 (labeldrop_bench.{group}: {name} = {value}) cannot be used" in str(error.value)
    assert registry.get(registry.names()[0])
    assert lb.losses.create("ce", num_classes=3)
    if group != "procedures":
        shown = runner.invoke(app, [group])
        assert shown.exit_code == 0
        assert shown.stdout.splitlines()[-1].startswith(f"{name}  Error: ")


@pytest.mark.parametrize("name", ["ce", "twice"])
def test_a_name_that_is_registered_twice_is_an_error_for_who_asks_for_it(install: Install, name: str) -> None:
    install(("losses", name, "labeldrop_theirs:Plain"), package="one")
    if name != "ce":
        install(("losses", name, "labeldrop_theirs:Plain"), package="other")
    with pytest.raises(PluginError, match=f"loss '{name}' is registered 2 times, by .* and by .*rename") as error:
        lb.losses.create(name, num_classes=3)
    assert "one 1.2" in str(error.value)
    assert ("labeldrop_bench itself" in str(error.value)) == (name == "ce")
    assert losses.names().count(name) == 1
    assert lb.losses.create("marginal_ce", num_classes=3)
    assert any(line.startswith(f"{name}  Error: ") for line in runner.invoke(app, ["losses"]).stdout.splitlines())


def test_a_loss_without_out_channels_is_refused_when_it_is_made(install: Install) -> None:
    install(("losses", "bad", "labeldrop_theirs:NoChannels"))
    with pytest.raises(TypeError, match="loss 'bad' must have out_channels"):
        lb.losses.create("bad", num_classes=3)


def test_a_suite_that_asks_for_a_broken_loss_says_where(install: Install, tmp_path: Path) -> None:
    from tiny import TOML, write_suite

    install(("losses", "bad", "labeldrop_nowhere:X"))
    suite = write_suite(tmp_path, TOML.replace('"adaptive_ce"', '"bad"'))
    result = runner.invoke(app, ["run", suite, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "strategies.adaptive.loss: loss 'bad' of theirs 1.2" in result.stderr
