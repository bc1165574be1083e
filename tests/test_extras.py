"""What the package needs beyond torch and numpy: each package is brought by an extra, which errors name."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import labeldrop_bench as lb
from labeldrop_bench import cli, extras
from labeldrop_bench.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(lb.__file__).parent
PROJECT = tomllib.loads(read_text(Path(__file__).parents[1] / "pyproject.toml"))["project"]
BASE = {"torch", "numpy", "typing_extensions"}  # torch needs the last one


@pytest.fixture(autouse=True)
def metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the build writes it from pyproject.toml: what is installed while somebody works may be older."""
    lines = [*PROJECT["dependencies"]]
    for extra, requirements in PROJECT["optional-dependencies"].items():
        for requirement in requirements:
            name, _, marker = requirement.partition(";")
            lines.append(f"{name}; " + (f"({marker.strip()}) and " if marker else "") + f'extra == "{extra}"')
    monkeypatch.setattr(extras, "requires", lambda name: lines)
    extras._brought.cache_clear()


def _imported() -> set[str]:
    """Top names of other people's modules that the package imports anywhere, also inside of functions."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(read_text(path))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {PACKAGE.name}


def test_the_base_is_torch_and_numpy() -> None:
    assert {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]} == {"torch", "numpy"}


@pytest.mark.parametrize("module", sorted(_imported() - BASE))
def test_every_import_is_brought_by_an_extra(module: str) -> None:
    """A package that is imported and that no extra brings would be missing in everybody's installation but ours."""
    assert extras.extra_of(module) in set(PROJECT["optional-dependencies"]) - {"test", "dev"}


def test_what_a_command_lacks_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "labeldrop_bench.commands", raising=False)
    assert cli.main(["run", "quick"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        "Error: labeldrop-bench run: needs typer, not installed; the extra 'bench' brings that: "
        "pip install 'labeldrop-bench[bench]'\n"
    )
    assert said.out == ""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert (
        "the benchmark, which is the extra 'bench' (pip install 'labeldrop-bench[bench]'):" in capsys.readouterr().out
    )


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.ALONE, "doctor", ("labeldrop_bench.no_such_module", ""))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cli.main(["doctor"])


@pytest.mark.parametrize("name", ["labeldrop_bench.nowhere", "nobodys", "torch.nowhere", "pandas.nowhere", None])
def test_other_errors_of_import_are_not_explained_away(name: str | None) -> None:
    """A package that is there and broken is not to be installed once more."""
    assert extras.explain(ModuleNotFoundError("...", name=name)) is None


def test_require_names_what_is_missing_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require("numbers", "numpy")
    for module in ("skimage", "nibabel", "monai"):
        monkeypatch.setitem(sys.modules, module, None)
    said = r"^camus: needs nibabel, skimage, not .*'data'.*bench\[data\]'$"
    with pytest.raises(extras.MissingPackageError, match=said) as error:
        extras.require("camus", "nibabel", "torch", "skimage")
    assert extras.explain(error.value) == str(error.value)
    with pytest.raises(ModuleNotFoundError, match=r"'monai'.*labeldrop-bench\[monai\]'$"):
        extras.require("door", "monai", extra="monai")
    with pytest.raises(
        ModuleNotFoundError, match=r"needs no_such_library, not installed: pip install no_such_library$"
    ):
        extras.require("numbers", "no_such_library")


def test_a_source_tree_that_was_never_installed_has_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", none)
    assert extras.extra_of("typer") is None
    assert extras.advice("typer") == "needs typer, not installed: pip install typer"
