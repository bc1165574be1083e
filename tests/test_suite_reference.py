"""docs/suite-file.md: that it is what the code says, that drift is noticed, and that no key goes without a meaning."""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from labeldrop_bench import data, losses, suites
from labeldrop_bench.records import SuiteConfig

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "suite_reference.py"

if not SCRIPT.exists():
    pytest.skip("benchmarks/ is not in this copy of the sources", allow_module_level=True)
_spec = spec_from_file_location("suite_reference", SCRIPT)  # its folder is not on the path
assert _spec is not None
assert _spec.loader is not None
generator: Any = module_from_spec(_spec)
_spec.loader.exec_module(generator)


def test_the_page_of_this_repository_is_up_to_date() -> None:
    if not generator.PAGE.exists() and "CI" not in os.environ:
        pytest.skip("no docs/ here: this copy of the tests comes without them")
    assert generator.drift() == []


def test_drift_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "suite-file.md"
    assert generator.main(["--check"], page) == 1
    assert generator.main([], page) == 0
    assert generator.main(["--check"], page) == 0
    page.write_text(page.read_text().replace("One line, the heading", "A line, the heading"))
    capsys.readouterr()
    assert generator.main(["--check"], page) == 1
    shown = capsys.readouterr().err
    assert "-| `title` | text in quotes | `name` | A line, the heading" in shown
    assert "call python -m benchmarks.suite_reference" in shown


def test_every_table_data_set_loss_and_key_is_there() -> None:
    page = generator.wanted()
    for name in SuiteConfig.model_fields:
        assert f"`[{name}]`\n" in page or f"`[[{name}]]`\n" in page or f"| `{name}` |" in page, name
    for name in data.REGISTRY.ours:
        section = page.partition(f'### `[data]` with `name = "{name}"`\n')[2].partition("\n### ")[0]
        assert all(f"| `{key}` |" in section for key in data.get(name).options.model_fields), name
    assert all(f"`{name}`" in page for name in losses.REGISTRY.ours if not name.endswith("ce"))
    assert all(default in page for default in suites.FILLED_IN.values())
    assert "None" not in page  # which no suite file can hold


def test_a_key_without_a_meaning_is_refused() -> None:
    class Options(BaseModel):
        """Options.

        Attributes:
            told: of something.
        """

        told: int = 0
        untold: int = 0

    with pytest.raises(ValueError, match=r"Options: say under Attributes what untold is"):
        generator.keys(Options)
    assert generator.keys(Options, without=["untold"]) == [("`told`", "a whole number", "`0`", "Of something")]


def test_what_a_docstring_says_is_told_to_people_who_write_no_python() -> None:
    assert generator.said("names; None means all. at most 3.") == "Names; left out, it means all. At most 3"
    assert generator.said("2 of them.") == "2 of them"
    with pytest.raises(ValueError, match="no meaning"):
        generator.said("a number or None.")
