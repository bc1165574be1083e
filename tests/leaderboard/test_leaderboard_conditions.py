"""Strategies compared anew in each condition: boards, their renderings, and the table over all of them."""

import csv
import io

import pytest
from invented import write_suite

from labeldrop_bench import records
from labeldrop_bench.leaderboard import figures, load, render
from labeldrop_bench.records import SuiteConfig

SUITE = {
    "name": "shares",
    "title": "Shares",
    "seeds": [0, 1],
    "data": {"name": "phantom"},
    "conditions": [
        {"name": "nothing missing", "value": 0},
        {"name": "LA missing on B", "value": 1, "data": {"hidden": {"B": ["LA"]}}},
        {"name": "only B trained", "value": 2, "data": {"train_domains": ["B"]}},
    ],
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "adaptive", "loss": "adaptive_ce"},
        {"name": "marginal", "loss": "marginal_ce"},
    ],
}
DOMAINS = {"A": ("LV", "LA"), "B": ("LV", "LA")}
LEVELS = {  # (condition, strategy) -> Dice of annotated and of unannotated classes
    ("nothing missing", "adaptive"): (0.9, 0.9),
    ("nothing missing", "marginal"): (0.8, 0.8),
    ("LA missing on B", "adaptive"): (0.9, 0.3),
    ("LA missing on B", "marginal"): (0.7, 0.6),
    ("only B trained", "adaptive"): (0.7, 0.5),
    ("only B trained", "marginal"): (0.8, 0.3),
}


def about(run, domain, name):
    """Exact numbers: the invented noise is taken away below."""
    annotated, unannotated = LEVELS.get((run.condition, run.strategy.name), (0.95, 0.95))
    missing = (run.condition, domain, name) == ("LA missing on B", "B", "LA")
    return unannotated if missing or (run.condition == "only B trained" and domain == "A") else annotated


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    def make(missing=(), **changes):
        directory = tmp_path_factory.mktemp("conditions")
        suite = SuiteConfig.model_validate(SUITE | changes)
        write_suite(directory, suite, domains=DOMAINS, cases=8, missing=missing)
        for run in suite.runs():
            result = records.read_result(directory, run)
            if result is not None:
                rows = tuple(r.model_copy(update={"value": about(run, r.domain, r.class_)}) for r in result.rows)
                path = records.run_directory(directory, run) / "result.json"
                records.write_json(path, result.model_copy(update={"rows": rows}))
        return directory

    return make


@pytest.fixture(scope="module")
def whole(make):
    return load(make())


@pytest.fixture(scope="module")
def part(make):
    return load(make(missing=[run.run for run in SuiteConfig.model_validate(SUITE).runs()][7:]))


def test_each_condition_has_its_own_unannotated_classes_ranks_and_gaps(whole):
    nothing, missing, only = whole.boards
    assert [b.name for b in whole.boards] == [c["name"] for c in SUITE["conditions"]]
    assert [b.ranked_by.name for b in whole.boards] == ["overall", "unannotated", "unannotated"]
    assert [c.name for c in missing.column("unannotated").cells] == ["B/LA"]
    assert [c.name for c in only.column("unannotated").cells] == ["A/LV", "A/LA"]
    ranks = [{e.strategy.name: e.rank for e in b.strategies} for b in whole.boards]
    assert ranks[0] == {"full": None, "adaptive": 1, "marginal": 2}
    assert ranks[1] == {"full": None, "adaptive": 2, "marginal": 1}
    assert nothing.entry("marginal").gap == pytest.approx(0.8 - 0.95)
    assert missing.entry("marginal").gap == pytest.approx(0.6 - 0.95)
    assert only.entry("adaptive").gap == pytest.approx(0.5 - 0.95)
    assert [b.problems for b in whole.boards] == [(), (), ()]


def test_conditions_are_compared_by_what_all_of_them_have(make, whole):
    assert whole.compared_by == "overall"  # nothing is unannotated in the first
    assert whole.compared(whole.boards[1], "marginal").mean == pytest.approx((3 * 0.7 + 0.6) / 4)
    unannotated = load(make(conditions=SUITE["conditions"][1:]))
    assert unannotated.compared_by == "unannotated"
    assert unannotated.compared(unannotated.boards[0], "marginal").mean == pytest.approx(0.6)


def test_condition_that_has_not_begun(part):
    begun, later = part.boards[1:]
    assert (begun.finished, begun.asked, later.finished) == (1, 6, 0)
    assert later.cells == ()
    assert later.problems == ()
    assert all(e.scores[later.column("overall")].mean is None for e in later.strategies)
    assert part.finished == 7
    # only `full` has finished in the second, so that the suite says what is unannotated there
    assert [c.name for c in begun.column("unannotated").cells] == ["B/LA"]


@pytest.mark.parametrize("text_format", ["md", "html", "terminal"])
def test_a_section_for_each_condition_and_one_table_for_all(whole, text_format, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    text = render(whole, text_format)
    for name in ("nothing missing", "LA missing on B", "only B trained"):
        assert text.count(name) >= (1 if text_format == "terminal" else 2)  # names of columns may be cut
    assert "Dice, overall mean: not in all conditions can unannotated classes be scored." in text
    assert "Ranked by the unannotated classes (LV on A, LA on A)" in text
    assert "Ranked by the unannotated classes (LA on B)" in text
    assert text.count("p: label dropout probability") == 1


def test_markdown_table_of_all_conditions(whole):
    lines = render(whole, "md").splitlines()
    start = lines.index("## All conditions")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start:] if line.startswith("|")][:5]
    assert rows[0] == ["strategy", "nothing missing", "LA missing on B", "only B trained"]
    assert rows[2][:2] == ["full", "0.950 ±0.000"]
    assert rows[3] == ["adaptive", "**0.900 ±0.000**", "**0.750 ±0.000**", "**0.600 ±0.000**"]
    assert rows[4] == ["marginal", "0.800 ±0.000", "0.675 ±0.000", "0.550 ±0.000"]


def test_many_conditions_at_80_columns(make, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    conditions = [{"name": f"a condition with a long name, {i}"} for i in range(9)]
    text = render(load(make(conditions=conditions)), "terminal")
    assert max(map(len, text.splitlines())) <= 80
    table = text.partition("Dice, ")[0]
    assert table.count("0.950") == 9 * 3  # no number is cut in two


def test_csv_has_a_row_for_each_condition_and_strategy(part):
    rows = list(csv.DictReader(io.StringIO(render(part, "csv"))))
    assert [(row["condition"], row["strategy"]) for row in rows][:3] == [
        ("nothing missing", "full"), ("nothing missing", "adaptive"), ("nothing missing", "marginal"),
    ]  # fmt: skip
    assert len(rows) == 9
    assert rows[1]["unannotated mean"] == ""  # nothing is unannotated there
    assert float(rows[1]["A/LV mean"]) == pytest.approx(0.9)
    assert rows[8]["A/LV mean"] == rows[8]["overall mean"] == ""


def test_nothing_finished_is_said_of_a_condition(part, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    for text_format in ("terminal", "md", "html"):
        assert "0 of 6 runs have finished" in render(part, text_format)


def test_html_lists_what_the_conditions_change(whole):
    text = render(whole, "html")
    assert "<h3>conditions</h3>" in text
    assert "train_domains" in text.partition("<h3>conditions</h3>")[2].partition("</table>")[0]


def test_default_figure_is_left_out_with_conditions_unless_it_is_named(make):
    assert "annotated_vs_unannotated" not in figures.names_of(load(make()))
    assert "annotated_vs_unannotated" in figures.names_of(load(make(figures=["annotated_vs_unannotated"])))
