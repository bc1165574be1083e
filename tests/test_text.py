"""Text is UTF-8 wherever it is read or written."""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from listeners import run_suite
from tiny import TOML, discs, run_config

from labeldrop_bench import cli, records, run
from labeldrop_bench.text import TextError, read_rows, read_text, storable

GERMAN = "Höhle 左心室\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(GERMAN.encode(encoding))
    assert read_text(path) == GERMAN


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("first\nHöhle".encode("latin-1"), r"byte 0xf6 in line 2: invalid \w+ byte"),
        ("Höhle".encode("utf-16"), "it looks like UTF-16"),
        ("Höhle".encode("gb18030")[:2], "byte 0x81 in line 1"),
    ],
)
def test_what_is_not_utf8_is_an_error_that_names_the_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(TextError, match=rf"dataset\.json: is not UTF-8 text \(.*{problem}.*\); save it again as UTF-8"):
        read_text(path)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [{"case": 'a,"b"\r\nc', "n": "1"}, {"case": "ö", "n": ""}]
    records.write_text(tmp_path / "rows.csv", records.to_csv(["case", "n"], written))
    assert list(read_rows(tmp_path / "rows.csv")) == written
    with_mark = b"\xef\xbb\xbf" + (tmp_path / "rows.csv").read_bytes()
    (tmp_path / "rows.csv").write_bytes(with_mark)
    assert list(read_rows(tmp_path / "rows.csv")) == written


@pytest.mark.parametrize(
    ("stored", "name"), [(b"patient-\xc3\xa9", "patient-é"), (b"patient-\xe9", r"patient-\xe9"), (b"LA 1", "LA 1")]
)
def test_names_of_files_in_any_encoding_can_be_stored(stored: bytes, name: str, tmp_path: Path) -> None:
    """As the file system gives them where the locale is ASCII."""
    given = stored.decode("ascii", "surrogateescape")
    assert storable(given) == name
    dataset = discs(n=1)
    samples = replace(dataset.test, cases=(given, "b"), patients=(given, "b"))
    assert samples.cases == samples.patients == (name, "b")
    assert run.split_digest(replace(dataset, test=samples))
    config = run_config()
    records.write_failure(tmp_path, config, f"no such file: {given}", "")
    assert records.read_failure(tmp_path, config).message.endswith(name)


def _reads_or_writes(path: Path) -> list[str]:
    """Calls of a file that read or write text on their own: `records.write_text` is the package's."""
    calls = [node for node in ast.walk(ast.parse(read_text(path))) if isinstance(node, ast.Call)]
    methods = [call.func for call in calls if isinstance(call.func, ast.Attribute)]
    opened = [ast.unparse(call) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "open"]
    texts = [ast.unparse(m) for m in methods if m.attr in ("read_text", "write_text")]
    return opened + [text for text in texts if text != "records.write_text"]


def test_nothing_but_the_two_helpers_opens_text() -> None:
    files = Path(records.__file__).parents[1].rglob("*.py")
    found = {path.name: calls for path in files if (calls := _reads_or_writes(path))}
    assert found == {}, "read with labeldrop_bench.text, write with records.write_text"


OTHER_SCRIPT = TOML.replace('"Tiny"', '"Für 左心室 †"').replace('name = "adaptive"', 'name = "später"')


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished suite whose names no other encoding has all of."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "it.toml").write_bytes(OTHER_SCRIPT.encode("utf-8-sig"))
    run_suite(str(folder / "it.toml"), folder / "out", "training.epochs=1")
    return folder / "out"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252", "gbk", "cp932", "cp1251"])
@pytest.mark.parametrize("form", ["terminal", "md", "csv"])
def test_any_standard_output_shows_a_leaderboard(
    encoding: str, form: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "argv", ["labeldrop-bench", "leaderboard", str(finished), "--format", form])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    shown.flush()
    # where there is ASCII alone, click takes it for a locale that nobody has set, and writes UTF-8
    text = shown.buffer.getvalue().decode(encoding.replace("ascii", "utf-8"))  # type: ignore[attr-defined]
    assert "später" in text or "sp\\xe4ter" in text or form == "terminal"
    assert "左心室" in text or "\\u5de6\\u5fc3\\u5ba4" in text or form == "csv"


@pytest.mark.slow
def test_a_suite_runs_where_the_locale_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "it.toml").write_text(OTHER_SCRIPT, encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1"}
    command = [sys.executable, "-m", "labeldrop_bench.cli"]

    def call(*words: str) -> str:
        done = subprocess.run(
            [*command, *words], cwd=tmp_path, env={**os.environ, **ascii_only}, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        ours = re.findall(r".*labeldrop_bench/.*EncodingWarning.*", done.stderr)
        assert ours == []
        return done.stdout

    words = ("run", "it.toml", "--out", "out", "--device", "cpu", "--set", "training.epochs=1")
    first = call(*words)
    assert "Für 左心室" in first
    assert call(*words) == first  # resumes
    call("data", "check", "it.toml")
    assert "später" in read_text(tmp_path / "out" / "leaderboard.md")
    assert {row["strategy"] for row in read_rows(tmp_path / "out" / "leaderboard.csv")} == {"full", "später"}
