"""Every figure draws what the files say, with gaps where runs are missing; names that do not exist are refused."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from invented import write_suite
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import PathPatch

from labeldrop_bench import leaderboard, records
from labeldrop_bench.leaderboard import LeaderboardError, check_figures, figure_names, figures, load
from labeldrop_bench.leaderboard.figures import against_dropout, boxes, heat, learning_curves, matrix
from labeldrop_bench.leaderboard.figures.style import shared_words
from labeldrop_bench.records import SuiteConfig

FULL = {"name": "full", "loss": "ce", "full_labels": True}
LONG = "adaptive binary cross-entropy + Dice with $p$ = 0 and more words in its name than anybody needs"
SUITE = {
    "name": "made up",
    "title": "A title that is rather long, as titles of suites are, which say what the suite shows",
    "seeds": [0, 1],
    "data": {"name": "phantom", "hidden": {"B": ["LA"]}},
    "strategies": [
        FULL,
        {"name": "adaptive", "loss": "adaptive_ce"},
        {"name": "adaptive + dropout 0.3", "loss": "adaptive_ce", "dropout": 0.3, "dropout_classes": ["LA"]},
        {"name": "adaptive + dropout 0.6", "loss": "adaptive_ce", "dropout": 0.6, "dropout_classes": ["LA"]},
        {"name": LONG, "loss": "adaptive_bce"},
    ],
}
SHARES = [{"name": f"missing {10 * i} %", "value": 10 * i} for i in range(3)]
TRAINED = [{"name": d, "data": {"train_domains": [d]}} for d in ("A", "B")]
DOMAINS = {"A": ("LV", "LA"), "B": ("LV", "LA")}


@pytest.fixture
def make(tmp_path):
    def make(missing=(), *, cases=6, **changes):
        options = {key: changes.pop(key) for key in ("unfinished", "truth") if key in changes}
        suite = SuiteConfig.model_validate(SUITE | changes)
        return load(write_suite(tmp_path, suite, domains=DOMAINS, cases=cases, missing=missing, **options))

    return make


def draw(loaded, name):
    return figures.FIGURES[name](loaded)


CONDITIONS_OF = {"matrix": TRAINED, "against_condition": SHARES}


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("conditions", [(), SHARES], ids=["one", "several"])
@pytest.mark.parametrize("missing", ["some", "most"])
def test_texts_of_every_figure_do_not_overlap_and_lie_inside(make, name, conditions, missing):
    conditions = list(CONDITIONS_OF.get(name, conditions))
    runs = [run.run for run in SuiteConfig.model_validate(SUITE | {"conditions": conditions}).runs()]
    loaded = make({"some": runs[3::4], "most": runs[1:]}[missing], conditions=conditions)
    check_texts(draw(loaded, name))


@pytest.mark.parametrize("name", ["heat", "matrix", "against_condition", "boxes", "learning_curves"])
@pytest.mark.parametrize("words", ["two domains, 70 % missing, dynunet", "aWordThatCannotBeWrappedAnywhere"])
def test_long_names_of_conditions_and_domains_do_not_overlap(tmp_path, name, words):
    conditions = [{"name": f"{words}{i}", "value": i} for i in range(8 if name == "heat" else 3)]
    loaded = load(
        write_suite(
            tmp_path,
            suite(conditions=conditions, strategies=SUITE["strategies"][:2]),
            domains={f"{words} {i}": ("left ventricle", "left atrium") for i in range(3)},
            cases=3,
        )
    )
    check_texts(draw(loaded, name))


def check_texts(figure):
    """No text of a figure covers another, or reaches over its edge."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [text for axes in figure.axes if axes.get_visible() for text in all_texts(axes)]
    texts += [figure._suptitle] if figure._suptitle else []
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    extents = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
    slanted = {text.get_text() for text in texts if text.get_rotation() not in (0, 90)}
    width, height = figure.canvas.get_width_height()
    for text, box in extents:
        # one pixel of slack: extents are rounded outwards
        assert -1 <= box.x0 < box.x1 <= width + 1, text
        assert -1 <= box.y0 < box.y1 <= height + 1, text
    for (one, a), (other, b) in itertools.combinations(extents, 2):
        assert not a.overlaps(b) or {one, other} <= slanted, (one, other)


def all_texts(axes):
    labels = [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title]
    ticks = [tick for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_majorticklabels() if tick.get_visible()]
    inside = [t for t in ticks if t.get_text() and in_view(axes, t)]
    return [*axes.texts, *labels, *inside]


def in_view(axes, tick):
    x, y = tick.get_position()
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    return (left <= x <= right) if tick in axes.xaxis.get_majorticklabels() else (low <= y <= high)


def test_figures_are_written_linked_and_embedded(make):
    loaded = make(figures=["heat", "wilcoxon"], cases=8)
    leaderboard.write(loaded.directory)
    for figure in ("annotated_vs_unannotated", "heat"):
        assert (loaded.directory / f"{figure}.png").read_bytes().startswith(b"\x89PNG\r\n")
        svg = (loaded.directory / f"{figure}.svg").read_bytes()
        assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own file)
        assert f"({figure}.png)" in (loaded.directory / "leaderboard.md").read_text()
    page = (loaded.directory / "leaderboard.html").read_text()
    assert page.count('<svg role="img" aria-label="All scores at a glance;') == 1
    assert not list(loaded.directory.glob("wilcoxon*"))  # a table, no figure


def test_same_file_every_time(make):
    loaded = make(strategies=SUITE["strategies"][:2], cases=3)
    first = figures.svg(draw(loaded, "boxes"), "boxes")
    assert first == figures.svg(draw(loaded, "boxes"), "boxes")
    assert first != figures.svg(draw(loaded, "boxes"), "other")  # no id in common with another figure


def cells_of(axes):
    return [text.get_text() for text in axes.texts]


def test_matrix_shows_the_mean_of_each_domain(make):
    loaded = make(["B_adaptive-seed1"], conditions=TRAINED)
    figure = draw(loaded, "matrix")
    board = loaded.boards[0]
    scores = board.entry("adaptive").scores
    expected = [np.mean([scores[board.column(f"{d}/{c}")].mean for c in ("LV", "LA")]) for d in "AB"]
    panel = next(axes for axes in figure.axes if axes.get_title("left") == "adaptive")
    assert cells_of(panel) == [f"{expected[0]:.3f}", f"{expected[1]:.3f}", "—", "—"]
    assert matrix.domain_score(board, "adaptive", "A").mean == pytest.approx(expected[0])


def test_heat_of_conditions(make):
    loaded = make(["missing-10-_adaptive-seed0"], conditions=SHARES)
    cells = np.array(cells_of(draw(loaded, "heat").axes[0])).reshape(5, 3)
    assert cells[1, 1] == "—"
    assert cells[2, 2] == f"{loaded.compared(loaded.boards[2], 'adaptive + dropout 0.3').mean:.3f}"
    assert draw(loaded, "heat").axes[0].get_xlabel() == "condition: missing %"


def test_heat_without_conditions_is_of_losses_and_dropouts(make):
    loaded = make(["adaptive-dropout-0.6-seed0"])
    rows, columns, values = heat._dropouts(loaded)
    assert rows == ["full", "adaptive_ce", "adaptive_bce"]
    assert columns == ["0", "0.3", "0.6"]
    (board,) = loaded.boards
    assert values[1] == [
        *(loaded.compared(board, name).mean for name in ("adaptive", "adaptive + dropout 0.3")), None
    ]  # fmt: skip
    assert np.isnan(values[2][1])  # not asked for, which is no missing run
    assert cells_of(draw(loaded, "heat").axes[0]).count("—") == 1


def line_data(axes):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_against_dropout(make):
    loaded = make(["adaptive-dropout-0.3-seed1"])
    (board,) = loaded.boards
    (axes,) = draw(loaded, "against_dropout").axes
    unannotated = board.column("unannotated")
    means = [board.entry(name).scores[unannotated].mean for name in ("adaptive", "adaptive + dropout 0.6")]
    of_line = next(y for x, y in line_data(axes) if len(x) == 3 and y[0] == means[0])
    assert of_line == pytest.approx([means[0], np.nan, means[1]], nan_ok=True)  # a gap
    (alone,) = board.entry("adaptive + dropout 0.3").scores[unannotated].present
    assert any(y == [alone] for _, y in line_data(axes))
    upper = board.entry("full").scores[unannotated].mean
    assert any(y == [upper, upper] for _, y in line_data(axes))


def test_lines_against_dropout():
    strategies = [
        FULL,
        {"name": "a", "loss": "x"},
        {"name": "b", "loss": "x", "dropout": 0.5, "dropout_classes": ["LA"]},
        {"name": "c", "loss": "x", "dropout": 0.1, "dropout_classes": ["LA"]},
        {"name": "d", "loss": "x", "dropout": 0.5},
        {"name": "e", "loss": "y", "dropout": 0.5, "dropout_classes": ["LV"]},
        {"name": "f", "loss": "y", "dropout": 0.5, "loss_options": {"gamma": 2}},
        {"name": "g", "loss": "z"},
    ]
    lines = against_dropout.series(SuiteConfig.model_validate(SUITE | {"strategies": strategies}))
    assert {name: [s.name for s in members] for name, members in lines.items()} == {
        "x, LA may drop": ["a", "c", "b"],
        "x, any label may drop": ["a", "d"],
        "y": ["e"],
        'y {"gamma": 2}': ["f"],
        "z": ["g"],
    }


def test_against_condition(make):
    shuffled = [SHARES[2], SHARES[0], SHARES[1]]
    loaded = make(["missing-10-_adaptive-seed0"], conditions=shuffled)
    (axes,) = draw(loaded, "against_condition").axes
    assert axes.get_xlabel() == "missing %"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "10", "20"]
    ends = [loaded.compared(loaded.boards[i], "adaptive").mean for i in (1, 0)]
    of_line = next(y for x, y in line_data(axes) if len(x) == 3 and y[0] == ends[0])
    assert of_line == pytest.approx([ends[0], np.nan, ends[1]], nan_ok=True)


@pytest.mark.parametrize(
    ("names", "label", "rest"),
    [
        (["alpha 0.1", "alpha 0.2"], "alpha", ["0.1", "0.2"]),
        (["10 % missing", "20 % missing"], "% missing", ["10", "20"]),
        (["same", "same more"], "", ["same", "same more"]),
        (["a b", "a b c"], "a", ["b", "b c"]),
        (["alone here"], "", ["alone here"]),
    ],
)
def test_shared_words(names, label, rest):
    assert shared_words(names) == (label, rest)


def test_boxes(make):
    loaded = make(["adaptive-dropout-0.6-seed1"], cases=21)
    panels = draw(loaded, "boxes").axes
    assert [axes.get_title("left") for axes in panels] == ["A", "B"]
    assert [tick.get_text() for tick in panels[1].get_xticklabels()] == ["LV", "LA†", "mean"]
    for axes in panels:
        assert sum(isinstance(patch, PathPatch) for patch in axes.patches) == 4 * 3  # one strategy is incomplete
    values = {(r.class_, r.case): [] for r in cases_of(loaded, "adaptive", 0) if r.domain == "B"}
    for seed in (0, 1):
        for row in cases_of(loaded, "adaptive", seed):
            if row.domain == "B":
                values[row.class_, row.case].append(row.dice)
    of_lv = [np.mean(v) for (name, _), v in values.items() if name == "LV"]
    of_all = [np.mean([np.mean(values[n, c]) for n in ("LV", "LA")]) for n, c in values if n == "LV"]
    medians = [y[0] for x, y in line_data(panels[1]) if len(y) == 2 and y[0] == y[1]]
    assert any(median == pytest.approx(np.median(of_lv)) for median in medians)
    assert any(median == pytest.approx(np.median(of_all)) for median in medians)


def cases_of(loaded, strategy, seed):
    run = next(r for r in loaded.boards[0].entry(strategy).runs if r.seed == seed)
    return records.read_cases(loaded.directory, run)


def test_boxes_of_one_class_have_no_mean(tmp_path):
    suite = SuiteConfig.model_validate(SUITE)
    (axes,) = boxes.draw(load(write_suite(tmp_path, suite, domains={"A": ("LV",)}, cases=5))).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["LV"]


def write_history(loaded, run, rows):
    columns = ("epoch", "loss", "validation_dice", "truth_dice", "lr", "seconds")
    table = [dict(zip(columns, (epoch, 1, dice, truth, 0.1, 1), strict=True)) for epoch, dice, truth in rows]
    records.write_text(loaded.directory / "runs" / run / "history.csv", records.to_csv(columns, table))


def test_learning_curves(make):
    loaded = make(strategies=[{"name": "one", "loss": "ce"}])
    write_history(loaded, "one-seed0", [(1, 0.2, None), (2, None, None), (3, 0.6, None)])
    write_history(loaded, "one-seed1", [(1, 0.4, None), (2, None, None), (3, 0.8, None), (5, 0.9, None)])
    (axes,) = learning_curves.draw(loaded).axes
    (mean, alone) = line_data(axes)
    assert mean == ([1, 3], pytest.approx([0.3, 0.7]))
    assert alone == ([3, 5], pytest.approx([0.8, 0.9]))  # the seed that is ahead
    assert axes.get_ylabel().endswith("against the annotations")
    band = axes.collections[0].get_paths()[0].vertices
    assert {0.2, 0.4, 0.6, 0.8} <= set(band[:, 1])


def test_learning_curves_prefer_the_truth_where_all_recorded_it(make):
    loaded = make(strategies=[{"name": "one", "loss": "ce"}])
    for seed in (0, 1):
        write_history(loaded, f"one-seed{seed}", [(1, 0.9, 0.2), (2, 0.9, 0.4)])
    (axes,) = learning_curves.draw(loaded).axes
    assert line_data(axes) == [([1, 2], [0.2, 0.4])]
    assert axes.get_ylabel().endswith("against all known truth")
    write_history(loaded, "one-seed1", [(1, 0.9, None), (2, 0.9, None)])
    (axes,) = learning_curves.draw(loaded).axes
    assert line_data(axes) == [([1, 2], [0.9, 0.9])]
    assert axes.get_ylabel().endswith("against the annotations")


def test_learning_curves_of_a_strategy_with_missing_seeds(make):
    loaded = make(["adaptive-seed1"], unfinished=["full-seed0"], truth=True)
    (axes,) = draw(loaded, "learning_curves").axes
    assert len(axes.collections) == 4  # bands: of all but the one that lacks a seed


def test_wrong_history_is_named(make):
    loaded = make()
    (loaded.directory / "runs" / "full-seed1" / "history.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(LeaderboardError, match=r"full-seed1/history\.csv cannot be read: remove "):
        draw(loaded, "learning_curves")


def suite(**changes):
    return SuiteConfig.model_validate(SUITE | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"figures": ["boxs"]},
            r"figures: there is no figure 'boxs'; did you mean 'boxes'\? Known: annotated_vs_unannotated",
        ),
        ({"figures": ["xyz"]}, r"there is no figure 'xyz'\. Known"),
        ({"figures": ["matrix"]}, r"figures: 'matrix' compares conditions: add \[\[conditions\]\]"),
        ({"figures": ["against_condition"], "conditions": TRAINED}, r"needs a `value` .* got none in \['A', 'B'\]"),
        ({"figures": ["wilcoxon"], "strategies": [FULL]}, "'wilcoxon' compares strategies: add one"),
        ({"figures": ["wilcoxon"], "strategies": SUITE["strategies"][1:2]}, "'wilcoxon' compares strategies: add one"),
    ],
)
def test_wrong_figures_are_refused(changes, message):
    with pytest.raises(LeaderboardError, match=message):
        check_figures(suite(**changes))


def test_every_figure_name_is_accepted():
    assert set(figure_names()) == {*figures.FIGURES, "wilcoxon"}
    assert set(figures.CAPTIONS) == set(figures.FIGURES)
    check_figures(suite(figures=figure_names(), conditions=SHARES))


def test_suite_json_with_a_wrong_figure_is_not_read(make):
    loaded = make()
    records.write_json(loaded.directory / "suite.json", suite(figures=["pie"]))
    with pytest.raises(LeaderboardError, match="there is no figure 'pie'"):
        load(loaded.directory)
