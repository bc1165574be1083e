"""Text is UTF-8 wherever it is read or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeldrop_bench import records
from labeldrop_bench.text import TextError, read_rows, read_text

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
