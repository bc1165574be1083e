"""Terminal, Markdown, CSV and HTML show the whole's numbers, and nothing that was put into a name gets out."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from labeldrop_bench.leaderboard import FORMATS, load, render, terminal

NASTY = "<script>alert('x')</script> | *a* `b` [bold]c[/bold] \\ $x^$ & é"


@pytest.fixture
def nasty(make_directory, dice):
    values = {(NASTY, 0): dice["adaptive", 0], ("full", 0): dice["full", 0]}
    strategies = [{"name": NASTY, "loss": "ce"}, {"name": "full", "loss": "ce", "full_labels": True}]
    return load(make_directory(values, seeds=[0], strategies=strategies, title=NASTY, description=NASTY))


def test_terminal_at_80_columns(whole, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = render(whole, "terminal")
    assert "\x1b" not in text  # standard output is no terminal here
    assert max(map(len, text.splitlines())) <= 80
    words = text.split()
    # adaptive: undrawn mean and deviation, gap, and a number of the second table
    for word in ("0.300", "±0.141", "-0.520", "0.650", "±0.071", "2/2", "†:", "LA†"):
        assert word in words
    assert "Ranked by the undrawn classes (LA on B)" in text
    assert "over 2 seeds" in text
    assert "A 40, B 30 to 31" in text


def lines_with_style(whole):
    console = Console(width=120, force_terminal=True, color_system="standard", file=io.StringIO(), _environ={})
    console.print(terminal.renderable(whole))
    return console.file.getvalue()


def test_terminal_marks_the_best_ranked_value_and_not_full(whole):
    text = lines_with_style(whole)
    bold = re.findall(r"\x1b\[1m *([\d.]+)", text)
    # undrawn .650; drawn and overall of adaptive; then A LV, A LA, B LV of adaptive and B LA of marginal
    assert sorted(bold) == sorted(["0.650", "0.867", "0.725", "0.900", "0.800", "0.900", "0.650"])


def test_terminal_shows_names_as_they_are(nasty, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert render(nasty, "terminal").count("[bold]c[/bold]") == 3  # title and two tables


def test_many_cells_stay_whole_at_80_columns(make_directory, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    directory = make_directory()
    for path in directory.glob("runs/*/result.json"):  # LV and LA become thirteen classes in each domain
        text = path.read_text()
        head, rows, tail = re.fullmatch(r'(.*"rows": \[)(.*)(\n  \],.*)', text, re.DOTALL).groups()
        copies = [rows.replace('"LV"', f'"V{i}"').replace('"LA"', f'"A{i}"') for i in range(6)]
        path.write_text(head + ",".join(copies) + tail)
    text = render(load(directory), "terminal")
    assert max(map(len, text.splitlines())) <= 80
    # 24 cells x 3 strategies, and 3 summary columns x 3; gaps to full carry a sign and are not counted
    assert len(re.findall(r"(?<![-±\d])0\.\d{3}(?!\d)", text)) == 3 * (24 + 3)


def table_of(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in (lines[0], *lines[2:])]


def test_markdown_table(whole):
    header, full, first, second = table_of(render(whole, "md"))
    assert header == [
        "#", "strategy", "loss", "p", "undrawn", "drawn", "overall", "to full", "seeds",
        "A LV", "A LA", "B LV", "B LA†",
    ]  # fmt: skip
    assert full[:5] == ["—", "full", "ce", "0", "0.820 ±0.028"]
    assert first[:5] == ["1", "marginal + dropout", r"marginal\_ce", "0.3", "**0.650 ±0.071**"]
    assert second[4:9] == ["0.300 ±0.141", "**0.867 ±0.000**", "**0.725 ±0.035**", "-0.520", "2/2"]


def test_full_is_never_marked_best(make_directory, dice):
    same = {(name, seed): dice["full", seed] for name, seed in dice}
    _, full, *others = table_of(render(load(make_directory(same)), "md"))
    assert not any("**" in cell for cell in full)
    assert all(row[4] == "**0.820 ±0.028**" for row in others)


def test_markdown_keeps_names_in_their_cell(nasty):
    text = render(nasty, "md")
    rows = table_of(text)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert "<script>" not in text
    assert r"\*a\*" in text


def test_markdown_of_one_seed_and_nothing_undrawn(make_directory):
    text = render(load(make_directory(seeds=[0], data={"name": "phantom"})), "md")
    assert "±" not in text
    assert "one seed" in text
    assert "†" not in text
    assert "undrawn" not in text.replace("Drawn against undrawn classes", "").replace("drawn_vs_undrawn", "")
    assert "Ranked by the overall mean" in text


def test_csv(whole):
    rows = list(csv.DictReader(io.StringIO(render(whole, "csv"))))
    assert [row["strategy"] for row in rows] == ["full", "marginal + dropout", "adaptive"]
    assert [row["rank"] for row in rows] == ["", "1", "2"]
    adaptive = rows[2]
    assert float(adaptive["undrawn mean"]) == pytest.approx(0.3)
    assert float(adaptive["B/LA std"]) == pytest.approx(0.02**0.5)
    assert float(adaptive["gap_to_full"]) == pytest.approx(-0.52)
    assert (adaptive["metric"], adaptive["direction"]) == ("dice", "higher is better")
    assert (adaptive["seeds_finished"], adaptive["seeds"], adaptive["dropout"]) == ("2", "2", "0.0")


def test_csv_of_half_a_suite_has_empty_fields(half):
    rows = {row["strategy"]: row for row in csv.DictReader(io.StringIO(render(half, "csv")))}
    marginal = rows["marginal + dropout"]
    assert marginal["seeds_finished"] == "1"
    assert [marginal[key] for key in ("rank", "gap_to_full", "undrawn mean", "undrawn std", "A/LV mean")] == [""] * 5
    assert rows["full"]["undrawn mean"] != ""


@pytest.mark.parametrize("text_format", ["terminal", "md", "html"])
def test_half_a_suite_says_what_is_missing(half, text_format, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = render(half, text_format)
    assert "3 of 6 runs have finished. Not finished: adaptive (seed 0, 1); marginal + dropout (seed 1)." in text
    assert "0.600" not in text  # the one seed there is, which is no mean


class Page(HTMLParser):
    """Collects the tags, the table rows and the addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.addresses, self.cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "srcset", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.cell = self.cell or tag in ("td", "th")

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_html(whole):
    page = Page(render(whole, "html"))
    adaptive = next(row for row in page.rows if row[0] == "adaptive")
    assert adaptive[1:9] == ["2", "adaptive_ce", "0", "0.300 ±0.141", "0.867 ±0.000", "0.725 ±0.035", "-0.520", "2/2"]
    assert ["gap", "1.0"] in page.rows  # a setting of the data set
    assert ["drawn", '{"B": ["LV"]}'] in page.rows
    assert ["device", "cpu0 | cpu1"] in page.rows
    assert "labeldrop-bench run tiny" in render(whole, "html")


def test_html_loads_nothing(whole):
    page = Page(render(whole, "html"))
    assert len(page.addresses) == 2  # the figure, light and dark
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_html_escapes_names(nasty):
    text = render(nasty, "html")
    page = Page(text)
    assert "script" not in page.tags
    assert NASTY in [row[0] for row in page.rows]


@pytest.mark.parametrize("text_format", list(FORMATS))
def test_same_board_same_text(make_directory, whole, text_format):
    assert render(load(make_directory()), text_format) == render(whole, text_format)


def test_unknown_format(whole):
    with pytest.raises(ValueError, match="must be one of terminal, md, csv, html, got 'htm'; did you mean 'html'"):
        render(whole, "htm")
