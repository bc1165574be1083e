"""What the leaderboard says where nobody knows the truth, and of classes that no test image shows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from invented import write_suite

from labeldrop_bench import records, submit
from labeldrop_bench.leaderboard import Leaderboard, load, presence_table, render, write
from labeldrop_bench.leaderboard.overview import section
from labeldrop_bench.records import RunConfig, SuiteConfig

SUITE: dict[str, Any] = {
    "name": "hospitals",
    "title": "Two hospitals",
    "seeds": [0, 1],
    "strategies": [
        {"name": "full", "loss": "ce", "full_labels": True},
        {"name": "standard", "loss": "ce"},
        {"name": "marginal", "loss": "marginal_ce"},
    ],
}
ANNOTATED = {"name": "phantom", "annotated": {"B": ["LV"]}}
HIDDEN = {"name": "phantom", "hidden": {"B": ["LA"]}}
DOMAINS = {"A": ("LV", "LA"), "B": ("LV", "LA")}
SENTENCE = (
    "standard finds LA in 10 % of the images of B, against 95 % of those of A, where it was annotated: the shortcut."
)
FIRST = "Nothing that was unannotated can be scored, since no test image has truth that shows it: LA on B."


def shortcut(run: RunConfig, domain: str, name: str) -> list[int]:
    """All find everything, 100 pixels, in 19 of 20 images; standard finds specks of the LA on B, but for two images."""
    if (domain, name) == ("B", "LA") and run.strategy.name == "standard":
        return [90, 80] + 18 * [9]
    return 19 * [100] + [0]


def make(directory: Path, data: dict[str, Any] = ANNOTATED, **options: Any) -> Leaderboard:
    suite = SuiteConfig.model_validate({**SUITE, "data": data})
    domains = options.pop("domains", DOMAINS)
    return load(write_suite(directory, suite, domains=domains, **{"sizes": shortcut, **options}))


@pytest.fixture
def nobody_knows(tmp_path: Path) -> Leaderboard:
    """B never annotated the LA, so that there is no truth of it."""
    return make(tmp_path, unknown=[("B", "LA")])


def test_where_nobody_knows_the_truth_the_shortcut_is_seen_without_it(nobody_knows: Leaderboard) -> None:
    (board,) = nobody_knows.boards
    assert board.ranked_by.name == "overall"
    assert [cell.name for cell in board.cells] == ["A/LV", "A/LA", "B/LV"]
    assert [cell.name for cell in board.unknown] == ["B/LA"]
    assert {entry.strategy.name: entry.rank is not None for entry in board.strategies} == {
        "full": False, "standard": True, "marginal": True
    }  # fmt: skip
    assert board.problems == ()
    found = presence_table.table(board)
    assert found is not None
    assert found.headers == ("LA on B†", "LA on A")
    assert {entry.strategy.name: fields for entry, fields in found.rows} == {
        "full": (("95 %", "100 px"), ("95 %", "100 px")),
        "standard": (("▼ 10 %", "85 px"), ("95 %", "100 px")),
        "marginal": (("95 %", "100 px"), ("95 %", "100 px")),
    }
    assert found.shortcuts == (SENTENCE,)


@pytest.mark.parametrize("text_format", ["terminal", "md", "html"])
def test_the_first_line_says_so_and_the_table_stands_below(
    nobody_knows: Leaderboard, text_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    text = render(nobody_knows, text_format)
    assert text.index(FIRST) < text.index("standard")
    assert text.index("standard") < text.index("Presence:") < text.index(SENTENCE)
    assert "Ranked by the overall mean of what can be scored" in text
    assert "1 of 4 pairs of class and domain, since nobody knows the truth: LA on B." in text
    assert "every class is annotated" not in text
    assert "full is trained on all labels that there are" in text


def test_the_sections_of_several_suites_say_so_too(nobody_knows: Leaderboard) -> None:
    text = section(nobody_knows, "results/hospitals")
    assert text.index(FIRST) < text.index("is first: Dice")
    assert "on what can be scored" in text
    assert SENTENCE in text


def test_with_the_labels_hidden_the_unannotated_column_ranks_and_the_table_is_the_same(
    tmp_path: Path, nobody_knows: Leaderboard
) -> None:
    hidden = make(tmp_path / "hidden", HIDDEN)
    (board,) = hidden.boards
    assert board.ranked_by.name == "unannotated"
    assert [cell.name for cell in board.ranked_by.cells] == ["B/LA"]
    assert board.not_scored == ()
    assert FIRST not in render(hidden, "md")
    found, other = presence_table.table(board), presence_table.table(nobody_knows.boards[0])
    assert found is not None
    assert other is not None
    assert (found.headers, found.shortcuts, found.captions) == (other.headers, other.shortcuts, other.captions)


def test_every_file_copes_with_what_nobody_is_scored_on(nobody_knows: Leaderboard, tmp_path: Path) -> None:
    assert write(tmp_path) == nobody_knows
    (header, *_) = csv.reader(io.StringIO((tmp_path / "leaderboard.csv").read_text()))
    assert "B/LA mean" not in header
    assert "unannotated mean" not in header
    assert "B/LV mean" in header
    assert {row["task"] for row in csv.DictReader((tmp_path / "challenger.csv").open())} == {"A/LV", "A/LA", "B/LV"}
    assert submit.merge(submit.check(tmp_path), tmp_path / "there")
    assert load(tmp_path / "there").boards[0].unknown == nobody_knows.boards[0].unknown


AGAINST = "against 100 % of those of A, where it was annotated"
MANY = tuple(f"organ {i}" for i in range(12))


def test_a_class_that_no_test_image_shows_costs_nobody_mean_and_rank(tmp_path: Path) -> None:
    options: dict[str, Any] = {"domains": {"A": MANY, "B": MANY}, "sizes": None}
    data = {"name": "phantom", "hidden": {"B": ["organ 1", "organ 2"]}}
    unshown = [("A", "organ 11"), ("B", "organ 1")]
    whole = make(tmp_path / "whole", data, unshown=unshown, **options)
    (board,) = whole.boards
    assert [cell.name for cell in board.unshown] == ["A/organ 11", "B/organ 1"]
    assert [cell.name for cell in board.ranked_by.cells] == ["B/organ 2"]
    assert len(board.cells) == 22
    assert board.problems == ()
    assert all(score.mean is not None for entry in board.strategies for score in entry.scores.values())
    text = render(whole, "md")
    assert "Left out for all strategies alike, 2 of 24 pairs of class and domain, since the truth of no test" in text
    assert "decide: organ 11 on A, organ 1 on B." in text
    # a run that is really missing is another matter
    part = make(tmp_path / "part", data, unshown=unshown, missing=["standard-seed1"], **options)
    standard = part.boards[0].entry("standard")
    assert standard.rank is None
    assert all(score.mean is None for score in standard.scores.values())
    assert part.boards[0].entry("marginal").rank == 1


def test_a_class_that_the_split_of_one_seed_does_not_show_is_left_out_of_all(tmp_path: Path) -> None:
    make(tmp_path, HIDDEN)
    for path in tmp_path.glob("runs/*-seed1/result.json"):
        content = json.loads(path.read_text())
        for row in content["rows"]:
            if (row["domain"], row["class"]) == ("A", "LV") and row["metric"] in records.METRICS:
                row.update(value=None, n=0)
        path.write_text(json.dumps(content))
    (board,) = load(tmp_path).boards
    assert [cell.name for cell in board.unshown] == ["A/LV"]
    assert board.entry("marginal").scores[board.column("overall")].mean is not None


def test_only_few_against_most_is_flagged_and_nothing_that_full_misses_is_called_a_shortcut(tmp_path: Path) -> None:
    found = {  # strategy, domain -> images with the LA, of 20
        ("full", "B"): 4, ("standard", "B"): 10, ("marginal", "B"): 9, ("marginal", "C"): 9,
    }  # fmt: skip

    def sizes(run: RunConfig, domain: str, name: str) -> list[int]:
        number = found.get((run.strategy.name, domain), 20) if name == "LA" else 20
        return number * [100] + (20 - number) * [9]

    data = {"name": "phantom", "hidden": {"B": ["LA"]}, "train_domains": ["A", "B"]}
    domains = dict.fromkeys("ABC", ("LV", "LA"))
    (board,) = make(tmp_path / "all", data, domains=domains, sizes=sizes).boards
    shown = presence_table.table(board)
    assert shown is not None
    assert shown.shortcuts == (
        f"full finds LA in 20 % of the images of B, {AGAINST}: although it was trained on all labels.",
        f"marginal finds LA in 45 % of the images of B, {AGAINST}: as full does, which was trained on all labels, so "
        f"it need not be the shortcut.",
        f"marginal finds LA in 45 % of the images of C, {AGAINST}: nothing of C was annotated.",
    )
    found["full", "B"] = 20
    (board,) = make(tmp_path / "bridged", data, domains=domains, sizes=sizes).boards
    shown = presence_table.table(board)
    assert shown is not None
    assert shown.shortcuts[0] == f"marginal finds LA in 45 % of the images of B, {AGAINST}: the shortcut."
    found["full", "B"] = 4
    (board,) = make(tmp_path / "unknown", data, domains=domains, sizes=sizes, unknown=[("B", "LA")]).boards
    shown = presence_table.table(board)
    assert shown is not None
    assert shown.shortcuts[0] == f"full finds LA in 20 % of the images of B, {AGAINST}: the shortcut."
    # where it is rare even where it was annotated there is nothing to compare with
    found.update({(name, "A"): 9 for name in ("full", "standard", "marginal")})
    found["marginal", "B"] = 0
    (board,) = make(tmp_path / "rare", data, domains=domains, sizes=sizes).boards
    shown = presence_table.table(board)
    assert shown is not None
    assert shown.shortcuts == ()


def test_the_table_shows_the_widest_gaps_and_fits_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def sizes(run: RunConfig, domain: str, name: str) -> list[int]:
        missed = int(name.split()[1]) if domain == "B" and run.strategy.name == "standard" else 0
        return missed * [0] + (20 - missed) * [100]

    data = {"name": "phantom", "hidden": {"B": list(MANY[:9])}}
    (board,) = (leaderboard := make(tmp_path, data, domains={"A": MANY, "B": MANY}, sizes=sizes)).boards
    shown = presence_table.table(board)
    assert shown is not None
    assert shown.headers == tuple(f"organ {i} on {end}" for i in range(3, 9) for end in ("B†", "A"))
    assert shown.captions[-1].endswith("3 more pairs of class and domain are in results.csv.")
    assert all(len(line) <= 80 for line in render(leaderboard, "terminal").splitlines())


def test_results_that_did_not_record_sizes_say_so_and_are_whole_otherwise(tmp_path: Path) -> None:
    make(tmp_path, HIDDEN)
    for path in tmp_path.glob("runs/*/result.json"):
        content = json.loads(path.read_text())
        content["rows"] = [row for row in content["rows"] if row["metric"] in records.METRICS]
        path.write_text(json.dumps(content))
    for path in tmp_path.glob("runs/*/cases.csv"):
        rows = list(csv.DictReader(path.open()))
        path.write_text(records.to_csv(records.CASE_COLUMNS, [{**row, "size": ""} for row in rows]))
    submit.check(tmp_path)
    text = render(load(tmp_path), "md")
    assert "Presence: these runs did not record in which images they find a class." in text
    assert "▼" not in text


def test_nothing_is_said_of_presence_where_everything_was_annotated(tmp_path: Path) -> None:
    leaderboard = make(tmp_path, {"name": "phantom"})
    assert presence_table.table(leaderboard.boards[0]) is None
    assert "Presence" not in render(leaderboard, "md")
