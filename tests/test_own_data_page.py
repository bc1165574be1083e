"""docs/own-data.md says what happens: its commands run, print what it shows, and its files lie in examples/."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from own_data_page import EXAMPLES, PAGE, make_folders
from pages import Shell, Step, steps, varies_never
from typer.testing import CliRunner

from labeldrop_bench import suites
from labeldrop_bench.commands import app

if not PAGE.path.exists() and "CI" not in os.environ:
    pytest.skip("docs/ is not in this copy of the sources", allow_module_level=True)

FILES = PAGE.files
HINT = "If that is as it should be, call python tests/own_data_page.py"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the page speaks of."""
    make_folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABELDROP_DATA", str(tmp_path / "echo"))
    monkeypatch.setenv("LABELDROP_CACHE", str(tmp_path / ".cache" / "labeldrop_bench"))
    return tmp_path


@pytest.mark.slow
def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    PAGE.check(tmp_path, structure)


def structure(text: str) -> Counter[str]:
    """What a leaderboard prints without what depends on the processor: numbers, ranks, and which classes are found."""
    paragraphs = re.sub(r"(?<=\S)\n(?=\S)", " ", text)  # those that are broken into lines; tables begin with a space
    sentences = re.split(r"(?<=\.)\s+|\n", paragraphs)
    bare = (" ".join(re.sub(r"[-+±<▼▲]*\d[\d.]*|px|%|—|─|[▼▲]", " ", sentence).split()) for sentence in sentences)
    return Counter(words for words in bare if words and " finds " not in words)


def test_numbers_and_ranks_may_differ_and_words_may_not() -> None:
    one = " 1  standard  ce  0  0.871\n 2  marginal  marginal_ce  0  0.9\n\nDice, higher is\nbetter. Test images: 12.\n"
    other = " 1  marginal  marginal_ce  0  0.95\n 2  standard  ce  0  —\n\nDice, higher\nis better. Test images: 9.\n"
    assert structure(one) == structure(other)
    assert structure(one) != structure(other.replace("higher", "lower"))
    assert structure(one) != structure(other.replace(" 2  standard  ce  0  —\n", ""))
    found = "standard finds LA in 0 % of the images of South: the shortcut.\n"
    assert structure(one) == structure(other + found)


@pytest.mark.parametrize("step", FILES, ids=lambda step: step.name)
def test_a_file_of_the_page_lies_in_examples(step: Step) -> None:
    assert (EXAMPLES / step.name).read_text(encoding="utf-8") == step.shown, HINT
    assert suites.load(str(EXAMPLES / step.name)).config.name == Path(step.name).stem


def test_every_example_is_on_the_page() -> None:
    assert {path.name for path in EXAMPLES.glob("*.toml")} == {step.name for step in FILES}


@pytest.mark.parametrize("name", [step.name for step in FILES])
def test_the_data_of_every_example_are_found(name: str, place: Path) -> None:
    (place / name).write_text((EXAMPLES / name).read_text(encoding="utf-8"))
    result = CliRunner().invoke(app, ["data", "check", name])
    assert result.exit_code == 0, result.output
    assert "training sees" in result.stdout


def test_what_a_failing_command_prints_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)\$ labeldrop-bench data check nowhere.toml\n.*cannot read this suite"):
        Shell(tmp_path, {}, varies_never).run("labeldrop-bench data check nowhere.toml")


def test_steps_are_commands_with_what_they_print_and_files() -> None:
    files = "```toml\n# my.toml\n[data]\n```\n```python\n# my.py\n```\n```toml\n[x]\n```\n"
    page = f"a\n```console\n$ one \\\n    more\nsays\nso\n$ two\n```\n{files}"
    found = [(step.command, step.name, step.shown) for step in steps(page)]
    assert found == [
        ("one \\\n    more", "", "says\nso\n"),
        ("two", "", ""),
        (None, "my.toml", "# my.toml\n[data]\n"),
        (None, "my.py", "# my.py\n"),
    ]
