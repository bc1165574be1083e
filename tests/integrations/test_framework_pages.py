"""docs/monai.md and docs/lightning.md say what happens."""

import os
import re
from importlib.util import find_spec

import pytest
from integrations.framework_pages import PAGES
from integrations.stand_in import environment
from pages import ROOT

if not PAGES["monai"].path.exists() and "CI" not in os.environ:
    pytest.skip("docs/ is not in this copy of the sources", allow_module_level=True)


def found(text):
    """What is printed without what depends on the processor: a Dice is that of a class that is found, or not."""
    words = re.sub(r"\d\.\d\d", lambda dice: "high" if float(dice[0]) > 0.6 else "low", text)
    return words if "low" in words or "high" in words else text


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_commands_print_what_the_page_shows(name, tmp_path, monkeypatch):
    if find_spec({"monai": "fire"}.get(name, name)) is None and "CI" not in os.environ:
        pytest.skip(f"needs pip install -c constraints.txt '.[{name}]'")
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    PAGES[name].check(tmp_path, found)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_that_partial_labels_are_learnt(name):
    """By our loss, of what nobody annotated in source B; and not by the one that takes it for background."""
    lines = re.findall(r"^Dice .*source B.*", PAGES[name].text, re.MULTILINE)
    dice = [float(value) for line in lines for value in re.findall(r"square\D* (\d\.\d\d)", line)]
    assert dice[0] < 0.3
    assert len(dice) > 1
    assert all(value > 0.6 for value in dice[1:])


def test_the_example_is_on_the_page():
    (step,) = PAGES["lightning"].files
    assert step.shown == (ROOT / "examples" / "lightning" / step.name).read_text(encoding="utf-8")
