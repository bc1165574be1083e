"""Terminal, Markdown, CSV and HTML show the whole's numbers, and nothing that was put into a name gets out."""

import csv
import io
import re
from dataclasses import replace
from typing import get_args

import pytest
from rich.console import Console

from labeldrop_bench.leaderboard import FORMATS, load, render, terminal, wording
from labeldrop_bench.leaderboard.page.tables import _headings
from labeldrop_bench.leaderboard.table import Cost, Leaderboard
from labeldrop_bench.records import DistanceUnit

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
    # adaptive: unannotated mean and deviation, gap, and a number of the second table
    for word in ("0.300", "±0.141", "-0.520", "0.650", "±0.071", "2/2", "†:", "LA†"):
        assert word in words
    assert "Ranked by the unannotated classes (LA on B)" in text
    assert "over 2 seeds" in text
    assert "A 40, B 30 to 31" in text


def lines_with_style(whole):
    console = Console(width=120, force_terminal=True, color_system="standard", file=io.StringIO(), _environ={})
    console.print(terminal.renderable(whole))
    return console.file.getvalue()


def test_terminal_marks_the_best_ranked_value_and_not_full(whole):
    text = lines_with_style(whole)
    bold = re.findall(r"\x1b\[1m *([\d.]+)", text)
    # unannotated .650; annotated and overall of adaptive; then A LV, A LA, B LV of adaptive and B LA of marginal
    dice = ["0.650", "0.867", "0.725", "0.900", "0.800", "0.900", "0.650"]
    metrics = ["7.00", "0.750", "0.062", "0.125"] * 2  # the same for both that compete
    assert sorted(bold) == sorted(dice + metrics)


def test_terminal_shows_names_as_they_are(nasty, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert render(nasty, "terminal").count("[bold]c[/bold]") == 4  # title and three tables


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
    text = text.partition("Other metrics")[0]
    # 24 cells x 3 strategies, and 3 summary columns x 3; gaps to full carry a sign and are not counted
    assert len(re.findall(r"(?<![-±\d])0\.\d{3}(?!\d)", text)) == 3 * (24 + 3)


def tables_of(markdown):
    """Each table as its rows of cells: of Dice, of the other metrics, of rankings."""
    tables = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in (lines[0], *lines[2:])]
        for lines in tables
    ]


def table_of(markdown):
    return tables_of(markdown)[0]


def test_markdown_table(whole):
    header, full, first, second = table_of(render(whole, "md"))
    assert header == [
        "#", "strategy", "loss", "p", "unannotated", "95 %", "annotated", "overall", "to full", "seeds",
        "A LV", "A LA", "B LV", "B LA†",
    ]  # fmt: skip
    # all cases of a cell have the same Dice here, so that no sample of patients differs from another
    assert full[:6] == ["—", "full", "ce", "0", "0.820 ±0.028", "0.820 to 0.820"]
    assert first[:6] == ["1", "marginal + dropout", r"marginal\_ce", "0.3", "**0.650 ±0.071**", "0.650 to 0.650"]
    assert second[4] == "0.300 ±0.141"
    assert second[6:10] == ["**0.867 ±0.000**", "**0.725 ±0.035**", "-0.520", "2/2"]


def test_markdown_tables_of_metrics_and_rankings(whole):
    _, metrics, rankings = tables_of(render(whole, "md"))
    assert metrics[0] == ["strategy", "HD95 (pixels)", "NSD", "ECE", "Brier", "ms / step", "MiB / step"]
    # the same in all runs; of the losses the median time of 1 and 2 ms, the larger memory of 4 and 5 MiB
    numbers = ["7.00 ±0.00", "0.750 ±0.000", "0.062 ±0.000", "0.125 ±0.000"]
    assert metrics[1] == ["full", *numbers, "1.50", "5.00"]
    assert metrics[2] == ["marginal + dropout", *(f"**{number}**" for number in numbers), "1.50", "5.00"]
    assert rankings[0] == ["strategy", "mean then rank", "rank then mean", "test-based", "first"]
    # two patients: not enough for a test
    assert rankings[1:] == [
        ["marginal + dropout", "1 (1 to 1)", "1 (1 to 1)", "1 (1 to 1)", "100 %"],
        ["adaptive", "2 (2 to 2)", "2 (2 to 2)", "1 (1 to 1)", "0 %"],
    ]


@pytest.mark.parametrize("text_format", ["md", "terminal"])
def test_gap_closed_takes_the_place_of_the_difference_where_there_is_a_standard(
    make_directory, text_format, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    text = " ".join(render(load(make_directory(standard="adaptive")), text_format).replace("\\", "").split())
    assert "67 %" in text  # (0.65 - 0.30) / (0.82 - 0.30)
    assert "to full" not in text
    assert "gap closed: (strategy - adaptive) / (full - adaptive), of the unannotated mean." in text


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


def test_markdown_of_one_seed_and_nothing_unannotated(make_directory):
    text = render(load(make_directory(seeds=[0], data={"name": "phantom"})), "md")
    assert "±" not in text
    assert "one seed" in text
    assert "†" not in text
    assert "unannotated" not in text.replace("Annotated against unannotated classes", "").replace(
        "annotated_vs_unannotated", ""
    )
    assert "Ranked by the overall mean" in text


def test_csv(whole):
    rows = list(csv.DictReader(io.StringIO(render(whole, "csv"))))
    assert [row["strategy"] for row in rows] == ["full", "marginal + dropout", "adaptive"]
    assert [row["rank"] for row in rows] == ["", "1", "2"]
    adaptive = rows[2]
    assert float(adaptive["unannotated mean"]) == pytest.approx(0.3)
    assert float(adaptive["B/LA std"]) == pytest.approx(0.02**0.5)
    assert float(adaptive["gap_to_full"]) == pytest.approx(-0.52)
    assert (adaptive["gap_closed"], adaptive["ranked_by"]) == ("", "unannotated")
    assert (float(adaptive["loss_ms"]), float(adaptive["loss_mib"])) == (1.5, 5)
    assert (float(adaptive["hd95 mean"]), float(adaptive["brier std"])) == (7, 0)
    assert (adaptive["metric"], adaptive["direction"]) == ("dice", "higher is better")
    assert (adaptive["seeds_finished"], adaptive["seeds"], adaptive["dropout"]) == ("2", "2", "0.0")


def test_csv_of_half_a_suite_has_empty_fields(half):
    rows = {row["strategy"]: row for row in csv.DictReader(io.StringIO(render(half, "csv")))}
    marginal = rows["marginal + dropout"]
    assert marginal["seeds_finished"] == "1"
    empty = (
        "rank",
        "gap_to_full",
        "unannotated mean",
        "unannotated std",
        "A/LV mean",
        "nsd mean",
        "loss_ms",
        "loss_mib",
    )
    assert [marginal[key] for key in empty] == [""] * len(empty)
    assert rows["full"]["unannotated mean"] != ""


@pytest.mark.parametrize("text_format", ["terminal", "md", "html"])
def test_few_seeds_are_said(make_directory, text_format, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = "Fewer than 3 seeds (2)"
    assert words in render(load(make_directory()), text_format)
    assert words not in render(load(make_directory(seeds=[0, 1, 2])), text_format)


@pytest.mark.parametrize("text_format", ["terminal", "md", "html"])
def test_half_a_suite_says_what_is_missing(half, text_format, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = render(half, text_format)
    assert "3 of 6 runs have finished. Not finished: adaptive (seed 0, 1); marginal + dropout (seed 1)." in text
    assert "0.600" not in text  # the one seed there is, which is no mean


@pytest.mark.parametrize("text_format", list(FORMATS))
def test_same_board_same_text(make_directory, whole, text_format):
    assert render(load(make_directory()), text_format) == render(whole, text_format)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123456, "12.3"), (0.1234, "123"), (0.00123, "1.23"), (0.000123, "0.123"), (1e-6, "0.001")]
)
def test_times_in_milliseconds(board, seconds, text):
    entry = replace(board.strategies[0], cost=Cost(seconds, int(seconds * 1000 * 2**20)))
    assert wording.milliseconds(entry) == wording.mebibytes(entry) == text


def test_unknown_format(whole):
    with pytest.raises(ValueError, match="one of terminal, md, csv, html, challenger, got 'htm'; did you mean 'html'"):
        render(whole, "htm")


@pytest.mark.parametrize("unit", get_args(DistanceUnit))
def test_a_distance_is_shown_with_its_unit(unit: DistanceUnit, whole: Leaderboard) -> None:
    boards = tuple(replace(board, distances=unit) for board in whole.boards)
    for form in ("terminal", "md", "html"):
        text = " ".join(render(replace(whole, boards=boards), form).split())
        assert f"HD95, and the tolerance of NSD, in {unit}." in text, form
        assert f"HD95 ({unit.partition(',')[0]})" in text, form
    rows = csv.DictReader(io.StringIO(render(replace(whole, boards=boards), "csv")))
    assert {row["distances"] for row in rows} == {unit}
    assert any("HD95 of the column" in h.title and unit in h.title for h in _headings(boards[0]))
