"""The page as text: what its tables, verdicts and sections say, that it escapes names, and the files beside it."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from invented import write_suite

from labeldrop_bench import leaderboard, records
from labeldrop_bench.leaderboard import LeaderboardError, figures, load, render, wording
from labeldrop_bench.leaderboard.page import examples
from labeldrop_bench.leaderboard.page.strategies import slug
from labeldrop_bench.leaderboard.page.verdict import verdict
from labeldrop_bench.leaderboard.statistics import analyse
from labeldrop_bench.leaderboard.table import Score
from labeldrop_bench.records import Example, SuiteConfig

NASTY = """<script>alert('x')</script> & "quoted" #0072b2 é"""
FULL = {"name": "full", "loss": "ce", "full_labels": True}
SUITE = {
    "name": "paged",
    "title": "A page",
    "seeds": [0, 1],
    "data": {"name": "phantom", "hidden": {"B": ["LA"]}},
    "strategies": [
        FULL,
        {"name": "standard", "loss": "ce"},
        {"name": "standard, dropout", "loss": "ce", "dropout": 0.5},
        {"name": "adaptive", "loss": "adaptive_ce"},
    ],
}


@pytest.fixture
def make(tmp_path):
    def make(missing=(), *, cases=12, **changes):
        suite = SuiteConfig.model_validate(SUITE | changes)
        domains = {"A": ("LV", "LA"), "B": ("LV", "LA")}
        return write_suite(tmp_path / "suite", suite, domains=domains, cases=cases, missing=missing)

    return make


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The page of the whole suite."""
    suite, domains = SuiteConfig.model_validate(SUITE), {"A": ("LV", "LA"), "B": ("LV", "LA")}
    return render(load(write_suite(tmp_path_factory.mktemp("page"), suite, domains=domains, cases=12)), "html")


class Page(HTMLParser):
    """Collects the tags with their attributes, the table rows, and all words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.words, self.cell = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "small" and self.cell:
            self.rows[-1][-1] += " "
        self.cell = self.cell or tag in ("td", "th")

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.words += data
        if self.cell:
            self.rows[-1][-1] += data.strip()

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


def row_of(page, strategy):
    return next(row for row in page.rows if len(row) > 8 and row[1].startswith(strategy))


def test_main_table_and_settings(whole):
    page = Page(render(whole, "html"))
    heads = next(row for row in page.rows if row[:2] == ["#", "strategy"])
    adaptive = dict(zip(heads, row_of(page, "adaptive"), strict=True))
    (board,) = whole.boards
    interval = analyse(whole, board).intervals["adaptive"]["unannotated"]
    assert adaptive["#"] == "2"
    assert (adaptive["loss"], adaptive["p"]) == ("adaptive_ce", "0")
    assert adaptive["unannotated"] == f"0.300 ±0.141 95 %: {interval.low:.3f} to {interval.high:.3f}"
    assert adaptive["annotated"] == "0.867 ±0.000"
    assert (adaptive["ms/step"], adaptive["MiB/step"], adaptive["seeds"]) == ("1.50", "5.00", "2/2")
    assert {"HD95 (pixels)", "NSD", "ECE", "Brier", "A LV", "B LA†"} <= set(heads)
    assert ["gap", "1.0"] in page.rows  # a setting of the data set
    assert any(row[0] == "hidden" and '"labels": ["LA"], "domains": ["B"]' in row[1] for row in page.rows)
    assert ["device", "cpu0 | cpu1"] in page.rows
    assert "labeldrop-bench run tiny" in page.words


def test_rankings_are_a_table(whole):
    page = Page(render(whole, "html"))
    ranking = analyse(whole, whole.boards[0]).rankings["mean then rank"]
    low, high = ranking.range_of(0)
    assert ["strategy", "mean then rank", "rank then mean", "test-based", "first"] in page.rows
    row = next(row for row in page.rows if row[0] == "adaptive" and len(row) == 5)
    assert row[1] == f"2 ({low:.0f} to {high:.0f})"


def test_incomplete_fields_are_empty_and_sort_last(half):
    page = Page(render(half, "html"))
    assert set(row_of(page, "marginal")[4:-5]) <= {"—", "1/2"}
    number = len(row_of(page, "marginal"))
    keys = page.values("data-key")
    assert keys.count("") >= 2 * (number - 5)  # two strategies without a number; loss, p and seeds they have


def test_page_loads_nothing_and_runs_only_its_own_script(text):
    page = Page(text)
    assert [v for name in ("src", "srcset", "data", "action", "poster") for v in page.values(name)] == []
    assert all(address.startswith("#") for address in [*page.values("href"), *page.values("xlink:href")])
    assert all(address.startswith(("data:image/png", "#")) for address in re.findall(r"url\(([^)]*)", text))
    policy = next(attrs["content"] for tag, attrs in page.tags if "content-security-policy" in str(attrs).lower())
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_ids_differ_and_links_lead_to_one(text):
    page = Page(text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in [*page.values("href"), *page.values("xlink:href")]} <= set(ids)
    assert {f"strategy-{slug(s['name'])}" for s in SUITE["strategies"]} <= set(ids)


def test_every_name_is_escaped(tmp_path):
    strategies = [FULL, {"name": NASTY, "loss": "ce"}, {"name": "standard", "loss": "adaptive_ce", "dropout": 0.5}]
    changes = {"title": NASTY, "description": NASTY, "strategies": strategies, "data": {"name": "phantom"}}
    suite = SuiteConfig.model_validate(SUITE | changes)
    directory = write_suite(tmp_path, suite, domains={NASTY: (NASTY, "LA")}, cases=8)
    run = suite.runs()[2]
    records.write_failure(directory, run, NASTY, NASTY)
    text = render(load(directory), "html")
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "<script>alert" not in text
    assert page.words.count(NASTY) > 10  # figures too keep it as it is
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def test_colours_of_figures_are_variables_of_both_themes(make):
    loaded = load(make())
    svg = figures.inline(figures.svg(figures.FIGURES["boxes"](loaded), "boxes"), "boxes")
    used = set(re.findall(r"var\((--c\w+)\)", svg))
    light, dark = figures.variables(dark=False), figures.variables(dark=True)
    assert used <= set(light) == set(dark)
    assert "--c222222" in used
    assert light["--c222222"] == "#222222" != dark["--c222222"]
    assert "Dice of each case" in svg  # text is text


def test_verdict_names_the_winner_and_against_whom(make):
    loaded = load(make())
    (board,) = loaded.boards
    found = analyse(loaded, board)
    said = verdict(board, found)
    winner = next(e for e in board.strategies if e.rank == 1)
    at = found.strategies.index(winner.strategy.name)
    beaten = sum(found.p_values[at, i] < 0.05 and found.differences[at, i] > 0 for i in range(3) if i != at)
    assert said.winners == (winner.strategy.name,)
    assert said.before == "Best on unannotated classes:"
    assert f"significantly better than {beaten} of 2 others" in said.after
    assert f"over {found.patients} patients" in said.after
    assert f"{winner.scores[board.ranked_by].mean:.3f}, 95 % interval" in said.after
    assert said.notes[-1].endswith(f"varies by ±{winner.scores[board.ranked_by].std:.3f}.")
    assert wording.of_trainings(Score((0.5,))).endswith("is not known from one seed.")


def test_verdict_without_a_winner_or_statistics(make):
    names = [run.run for run in SuiteConfig.model_validate(SUITE).runs()]
    loaded = load(make(names[2:]))
    assert verdict(loaded.boards[0], None).before == "No strategy is complete yet."
    loaded = load(make(names[4:]))
    said = verdict(loaded.boards[0], analyse(loaded, loaded.boards[0]))
    assert said.before == "Best on unannotated classes of the 1 of 3 strategies that are complete:"
    assert "cannot be said" in said.after


def test_verdict_names_no_winner_where_nothing_is_found(make):
    (board,) = load(make()).boards
    zero = {board.ranked_by: Score((0.0, 0.0))}
    none = [
        dataclasses.replace(e, scores={**e.scores, **zero}, rank=None if e.strategy.full_labels else 1)
        for e in board.strategies
    ]
    said = verdict(dataclasses.replace(board, strategies=tuple(none)), None)
    assert said.winners == ()
    assert said.before.startswith("No strategy finds anything, Dice of unannotated classes is 0: train longer")


def test_failures_are_shown(make):
    directory = make(["adaptive-seed1"])
    run = next(r for r in load(directory).suite.runs() if r.run == "adaptive-seed1")
    records.write_failure(directory, run, "the loss is NaN", "Traceback: somewhere")
    page = Page(render(load(directory), "html"))
    assert "1 run failed" in page.words
    assert "Traceback: somewhere" in page.words
    assert any(field == "1/2 ✗ 1 failed" for field in row_of(page, "adaptive"))
    assert ["1", "failed: the loss is NaN"] in page.rows


@pytest.mark.parametrize("file", ["examples.npz", "failure.json"])
def test_damaged_file_is_named(make, file):
    directory = make()
    (directory / "runs" / "adaptive-seed0" / file).write_text("{")
    with pytest.raises(LeaderboardError, match=rf"adaptive-seed0/{file.replace('.', '[.]')} cannot be read: remove "):
        render(load(directory), "html")


def test_section_has_tests_configuration_and_files(make):
    directory = make()
    loaded = leaderboard.write(directory)
    page = Page((directory / "leaderboard.html").read_text())
    found = analyse(loaded, loaded.boards[0])
    a, b = (found.strategies.index(name) for name in ("adaptive", "standard"))
    p = found.p_values[a, b]
    row = next(row for row in page.rows if row[0] == "standard" and row[1] == f"{found.differences[a, b]:+.3f}")
    assert row[2] == ("< 0.001" if p < 0.001 else f"{p:.3f}")
    assert json.dumps(loaded.suite.strategies[3].model_dump(mode="json"), indent=2) in page.words
    files = {p.relative_to(directory / "figures").as_posix() for p in directory.glob("figures/*/*")}
    names = {"adaptive": ("boxes", "rank_stability"), "full": ("boxes",)}
    names |= dict.fromkeys(("standard", "standard-dropout"), ("boxes", "against_dropout", "rank_stability"))
    assert files == {f"{n}/{f}.{s}" for n, of in names.items() for f in of for s in ("png", "svg")}


def test_slugs_lead_nowhere_else():
    assert slug("adaptive + dropout 0.3") == "adaptive-dropout-0.3"
    assert slug("../../etc") == "..-..-etc"
    assert slug("..") == "..-"
    assert slug("") == "-"


def an_example(**changes):
    truth = np.zeros((8, 10), np.uint8)
    truth[2:6, 2:6], truth[7] = 1, examples.UNKNOWN
    image = np.arange(80, dtype=np.uint8).reshape(8, 10)
    prediction = np.where(truth == 1, 9, 0).astype(np.uint8)
    return dataclasses.replace(Example("case", "A", ("background", "LV"), image, truth, prediction), **changes)


def test_overlay_fills_classes_and_marks_their_edges():
    pixels = examples.overlay(an_example().truth)
    assert tuple(pixels[3, 3]) == (0xE6, 0x9F, 0, examples.FILL)
    assert tuple(pixels[2, 2]) == (0xE6, 0x9F, 0, examples.EDGE)
    assert pixels[0, 0, 3] == 0  # background
    assert tuple(pixels[7, 0, :3]) == (128, 128, 128)


def test_legend_names_the_classes_that_are_seen():
    names = ("background", *(f"class {c}" for c in "abcdefghi"))
    swatches = examples.legend([an_example(classes=names)])
    assert [s.name for s in swatches] == ["class a", "class i", "unknown"]
    assert (swatches[1].colour, swatches[1].pattern) == (examples.COLOURS[1], 1)  # the second round of colours
    assert examples.legend([]) == ()


def test_examples_share_an_image_and_show_maps():
    store = examples.Store()
    flips = {"flip probability": np.full((8, 10), 255, np.uint8)}
    shown = [examples.show(an_example(maps=flips), store) for _ in range(2)]
    assert [panel.title for panel in shown[0].panels] == ["image", "truth", "prediction", "flip probability"]
    assert shown[0] == shown[1]
    assert len(store.addresses) == 4
    assert (shown[0].width, shown[0].height) == (10, 8)


def test_page_shows_examples_of_the_first_seed(text):
    page = Page(text)
    shown = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "picture"]
    assert shown.count("prediction of A000 (A)") == len(SUITE["strategies"])
    layers = {attrs["class"] for tag, attrs in page.tags if tag == "i" and not attrs["class"].startswith("swatch")}
    assert layers == set(re.findall(r"^\.(i[0-9a-f]{16}) \{", text, re.MULTILINE))
