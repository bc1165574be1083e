"""Draw docs/phantom.png: the phantom's two domains, their truth, and what training sees of it.

Usage: python benchmarks/phantom_figure.py [--out docs/phantom.png]
"""

import argparse
import io
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from PIL import Image

from labeldrop_bench import data
from labeldrop_bench.data.edits import hide
from labeldrop_bench.records import HiddenConfig

COLUMNS_PER_DOMAIN = 4
COLOURS = {"LV": "#4cc9f0", "LVM": "#7ae582", "LA": "#ff9f1c"}
ROWS = ("image", "truth", "seen in\ntraining")


def overlay(axis, labels):
    """Classes of a label map [H, W] as tinted regions with outlines."""
    lv, lvm, la = (labels == value for value in (1, 2, 3))
    # Around the myocardium its outer border only: the inner one is the LV's.
    for name, region, border in (("LVM", lvm, lv | lvm), ("LV", lv, lv), ("LA", la, la)):
        if region.any():
            axis.contourf(region, [0.5, 1], colors=[COLOURS[name]], alpha=0.25)
            axis.contour(border, [0.5], colors=[COLOURS[name]], linewidths=1.2)


def draw_figure(size=160, gap=1.0):
    info = data.get("phantom")
    options = info.options(size=size, gap=gap, train=COLUMNS_PER_DOMAIN, validation=1, test=1, seed=1)
    dataset = hide(info.load(options), HiddenConfig(labels=("LA",), domains=("B",)))
    samples = dataset.train
    # A narrow empty column keeps the domains apart.
    widths = [1] * COLUMNS_PER_DOMAIN + [0.08] + [1] * COLUMNS_PER_DOMAIN
    figure, axes = plt.subplots(3, len(widths), figsize=(9.6, 4.0), width_ratios=widths)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, image in enumerate(samples.images[:][:, 0].numpy()):
        column = axes[:, i + (i >= COLUMNS_PER_DOMAIN)]
        for axis, labels in zip(column, (None, samples.truth[i], samples.target[i]), strict=True):
            axis.imshow(image, cmap="gray")
            if labels is not None:
                overlay(axis, labels.numpy())
    figure.subplots_adjust(left=0.075, right=0.995, top=0.93, bottom=0.075, wspace=0.03, hspace=0.04)
    annotate(figure, axes, gap)
    return figure


def annotate(figure, axes, gap):
    """Row names on the left, domain names on top, colours of the classes below."""
    for axis, name in zip(axes[:, 0], ROWS, strict=True):
        axis.text(-0.06, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=10)
    for name, first in (("A: all labels annotated", 0), ("B: LA hidden", COLUMNS_PER_DOMAIN + 1)):
        boxes = [axes[0, first].get_position(), axes[0, first + COLUMNS_PER_DOMAIN - 1].get_position()]
        figure.text((boxes[0].x0 + boxes[1].x1) / 2, 0.955, f"domain {name}", ha="center", fontsize=11, weight="bold")
    handles = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in COLOURS.items()]
    figure.legend(
        handles=handles, loc="lower center", ncol=3, frameon=False, fontsize=10, bbox_to_anchor=(0.53, -0.015)
    )
    figure.text(0.995, 0.02, f"gap {gap:g}", ha="right", fontsize=10)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/phantom.png"))
    out = parser.parse_args().out
    mpl.use("Agg")
    figure = draw_figure()
    out.parent.mkdir(parents=True, exist_ok=True)
    drawing = io.BytesIO()
    figure.savefig(drawing, dpi=110, facecolor="white")
    # Speckle does not compress; a palette of 256 colours shrinks the file to less than half.
    Image.open(drawing).convert("RGB").quantize(256, kmeans=1).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
