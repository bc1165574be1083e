"""Draw docs/abdomen.png and docs/brain.png: the two anatomical phantoms, their labels, and what is done to them.

Usage: python benchmarks/anatomy_figures.py [--out docs]
"""

import argparse
import io
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from PIL import Image

from labeldrop_bench import data
from labeldrop_bench.data import edits
from labeldrop_bench.data._brain import CENTRE, EXTENT, NAMES
from labeldrop_bench.records import HiddenConfig

ORGANS = {"liver": "#ff6b6b", "pancreas": "#ffd43b", "stomach": "#4cc9f0"}
# Left and right have one colour.
STRUCTURES = {
    "white matter": "#5c7cfa", "grey matter": "#f59f00", "lateral ventricle": "#0b7285", "cerebellum": "#e599f7",
    "thalamus": "#2b8a3e", "caudate": "#a9e34b", "putamen": "#f06595", "pallidum": "#862e9c", "accumbens": "#ffe066",
    "hippocampus": "#e03131", "amygdala": "#12b886", "ventral DC": "#8d6e63", "3rd ventricle": "#1098ad",
    "4th ventricle": "#22b8cf", "brainstem": "#adb5bd", "corpus callosum": "#d0ebff",
}  # fmt: skip
COLUMNS = 6
# Array axis across the slice, and the slice's place in mm: through the putamen, the amygdala and the hippocampus.
PLANES = {"coronal": (1, -4.0), "axial": (2, -2.0), "sagittal": (0, -25.0)}
NOISE = {"predictable = 0.4": {"predictable": 0.4}, "sporadic = 0.1": {"sporadic": 0.1}}


def tint(labels, colours, strength):
    """[H, W, 4] picture of a label map: each value in its colour, background transparent."""
    table = np.zeros((256, 4))
    for value, colour in enumerate(colours, start=1):
        table[value] = (*to_rgb(colour), strength)
    return table[labels]


def bare(axes):
    for axis in axes.flat:
        axis.set_axis_off()


def legend(figure, colours, columns):
    handles = [Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="lower center", ncol=columns, frameon=False, fontsize=9)


def draw_abdomen():
    info = data.get("abdomen_phantom")
    dataset = info.load(info.options(size=160, train=COLUMNS, validation=1, test=1, seed=4))
    partial = edits.hide(dataset, HiddenConfig(labels=tuple(ORGANS), share=0.5, independently=True, seed=1))
    samples = partial.train
    figure, axes = plt.subplots(3, COLUMNS, figsize=(9.6, 3.7))
    bare(axes)
    rows = {"image": None, "truth": samples.truth[:], "seen in\ntraining": samples.target[:]}
    for row, (name, maps) in zip(axes, rows.items(), strict=True):
        row[0].text(-0.06, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=10)
        for i, axis in enumerate(row):
            axis.imshow(samples.images[i][0], cmap="gray")
            for value, colour in enumerate(ORGANS.values(), start=1):
                if maps is not None and (maps[i] == value).any():
                    axis.contourf(maps[i] == value, [0.5, 1], colors=[colour], alpha=0.25)
                    axis.contour(maps[i] == value, [0.5], colors=[colour], linewidths=1.1)
            axis.set_xlim(6, 153)
            axis.set_ylim(133, 25)  # the body, without the air above and below
    figure.subplots_adjust(left=0.075, right=0.995, top=0.995, bottom=0.075, wspace=0.03, hspace=0.03)
    legend(figure, ORGANS, 3)
    return figure


def cut(volume, plane):
    """A slice [H, W] of [X, Y, Z], up being up; on the left of the picture lies the left, or the back."""
    axis, place = PLANES[plane]
    index = int((place - CENTRE[axis] + EXTENT[axis] / 2) / EXTENT[axis] * volume.shape[axis])
    return np.take(volume, index, axis=axis).T[::-1]


def draw_brain(case=0):
    info = data.get("brain_phantom")

    def load(**options):
        return info.load(info.options(train=case + 1, validation=1, test=1, **options)).train

    clean, fine = load(), load(size=(80, 96, 80)).images[case][0]  # the same subject
    image = clean.images[case][0]
    columns = {"2 mm": (fine, None), "4 mm": (image, None), "truth": (image, clean.truth[case].numpy())}
    columns |= {name: (image, load(noise=noise).target[case].numpy()) for name, noise in NOISE.items()}
    colours = [STRUCTURES[name.removesuffix(" L").removesuffix(" R")] for name in NAMES]
    figure, axes = plt.subplots(3, len(columns), figsize=(9.6, 6.7), height_ratios=[1, 1.2, 0.84])
    bare(axes)
    for row, plane in zip(axes, PLANES, strict=True):
        row[0].text(-0.06, 0.5, plane, transform=row[0].transAxes, ha="right", va="center", fontsize=10)
        for axis, (picture, labels) in zip(row, columns.values(), strict=True):
            axis.imshow(cut(picture.numpy(), plane), cmap="gray", interpolation="nearest")
            if labels is not None:
                axis.imshow(tint(cut(labels, plane), colours, 0.6), interpolation="nearest")
                outline(axis, cut(labels, plane))
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=11)
    figure.subplots_adjust(left=0.075, right=0.995, top=0.955, bottom=0.125, wspace=0.03, hspace=0.03)
    legend(figure, STRUCTURES, 6)
    return figure


def outline(axis, labels):
    """Lines between the voxels of a slice whose labels differ, but for white and grey matter, which fold too much."""
    shown = np.where(labels <= 4, 0, labels)
    rows, columns = np.nonzero(shown[1:] != shown[:-1])
    axis.hlines(rows + 0.5, columns - 0.5, columns + 0.5, colors="black", linewidths=0.9)
    rows, columns = np.nonzero(shown[:, 1:] != shown[:, :-1])
    axis.vlines(columns + 0.5, rows - 0.5, rows + 0.5, colors="black", linewidths=0.9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    folder = parser.parse_args().out
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("abdomen", draw_abdomen), ("brain", draw_brain)):
        drawing, out = io.BytesIO(), folder / f"{name}.png"
        draw().savefig(drawing, dpi=110, facecolor="white")
        # Noise does not compress; a palette of 256 colours shrinks the file to less than half.
        Image.open(drawing).convert("RGB").quantize(256, kmeans=1).save(out, optimize=True)
        print(f"{out}: {out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
