"""The papers' suites on data in their owners' layouts, made up and tiny."""

from __future__ import annotations

import pytest
from data_trees import write_camus, write_echonet, write_unity
from typer.testing import CliRunner

from labeldrop_bench import suites
from labeldrop_bench.commands import app

SMALL = (
    *(f"data.sources.{name}.size=32" for name in ("camus", "unity", "echonet_dynamic")),
    "model.channels=[4, 8]", "training.epochs=2", "training.grid={}", "training.batch_size=8",
    "training.precision=32-true", "training.threads=1", "seeds=[0]",
)  # fmt: skip


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """Folders of all three data sets, with ten patients each."""
    write_camus(tmp_path / "CAMUS_public", size=64)
    write_echonet(tmp_path / "EchoNet-Dynamic", size=64)
    write_unity(tmp_path / "Unity", size=64)
    monkeypatch.setenv("LABELDROP_DATA", str(tmp_path))
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / "cache"))
    return tmp_path


def call(*arguments, overrides=()):
    result = CliRunner().invoke(app, [*arguments, *(part for o in overrides for part in ("--set", o))])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("suite", ["ld-exp1", "ld-exp2", "ld-exp3", "ld-exp4", "melba"])
def test_the_data_of_the_echo_suites_are_found(suite, trees):
    overrides = [o for o in SMALL if "sources" not in o or suite != "ld-exp3"]
    if suite in ("ld-exp4", "melba"):
        overrides = [o for o in overrides if "echonet" not in o]
    assert "CAMUS" in call("data", "check", suite, overrides=overrides)


def test_every_suite_has_a_phantom_twin_of_the_same_strategies():
    names = suites.names()
    for name in ("ld-exp1", "ld-exp2", "ld-exp3", "ld-exp4", "melba", "smile", "hetero"):
        real, twin = (suites.load(n).config for n in (name, f"{name}-phantom"))
        assert f"{name}-phantom" in names
        # the phantom's truth is whole, so the twin of experiment 2 has an upper bound, which the real data cannot give
        extra = {"full"} if name == "ld-exp2" else set()
        assert {s.name for s in twin.strategies} - extra == {s.name for s in real.strategies}
        assert {s.loss for s in twin.strategies} >= {s.loss for s in real.strategies}
        assert twin.figures == real.figures
