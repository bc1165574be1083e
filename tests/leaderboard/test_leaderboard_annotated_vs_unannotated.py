"""The figure: what it shows, and that no label covers another."""

import itertools
import xml.etree.ElementTree as ET

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from labeldrop_bench.leaderboard import figures, load
from labeldrop_bench.leaderboard.figures import annotated_vs_unannotated


def lines_of(figure):
    """Points of every plotted line that has more than an axis's worth of meaning: [(x, y), ...] and its marker."""
    (axes,) = figure.axes
    return [(line.get_marker(), list(line.get_xdata())) for line in axes.lines]


def test_every_seed_and_every_mean_is_shown(whole):
    lines = lines_of(annotated_vs_unannotated.draw(whole))
    seeds = [x for marker, x in lines if marker == "."]
    assert len(seeds) == 3 * 2  # strategies x (unannotated, annotated)
    assert [0.8, 0.84] in seeds
    assert [0.2, 0.4] in seeds
    means = {(marker, round(x[0], 3)) for marker, x in lines if marker in ("D", "o")}
    assert means == {("D", 0.82), ("D", 0.65), ("D", 0.3), ("o", 0.88), ("o", 0.533), ("o", 0.867)}


def test_incomplete_strategy_has_seeds_but_no_mean(half):
    lines = lines_of(annotated_vs_unannotated.draw(half))
    assert [0.6] in [x for marker, x in lines if marker == "."]
    assert [x[0] for marker, x in lines if marker == "D"] == [pytest.approx(0.82)]  # full alone


def test_nothing_unannotated_draws_all_classes_together(make_directory):
    figure = annotated_vs_unannotated.draw(load(make_directory(data={"name": "phantom"})))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[0].endswith("overall")
    assert not any("unannotated" in text for text in texts)


@pytest.mark.parametrize("strategies", [1, 14])
def test_labels_do_not_overlap_and_lie_inside(make_directory, dice, strategies):
    names = [f"a rather long strategy name with $p$ = {i / 10} and more words" for i in range(strategies)]
    values = {(name, 0): dice["adaptive", 0] for name in names}
    entries = [{"name": name, "loss": "ce"} for name in names]
    board = load(make_directory(values, seeds=[0], strategies=entries, title="A long title of a suite " * 4))
    figure = annotated_vs_unannotated.draw(board)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    (axes,) = figure.axes
    texts = [
        *axes.texts,
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
        axes.xaxis.label,
        axes.title,
        axes._left_title,
    ]
    boxes = {text: text.get_window_extent(renderer) for text in texts if text.get_text()}
    assert len(boxes) >= 3 * strategies + 2
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        assert not a.overlaps(b), (one.get_text(), other.get_text())
    width, height = figure.canvas.get_width_height()
    for text, box in boxes.items():
        # one pixel of slack: extents are rounded outwards
        assert -1 <= box.x0 < box.x1 <= width + 1, text.get_text()
        assert -1 <= box.y0 < box.y1 <= height + 1, text.get_text()


def test_files_are_valid_and_repeatable(whole):
    def files():
        figure = annotated_vs_unannotated.draw(whole)
        return figures.png(figure), figures.svg(figure, "annotated_vs_unannotated")

    png, svg = files()
    assert png.startswith(b"\x89PNG\r\n")
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314 (our own file)
    assert (png, svg) == files()
