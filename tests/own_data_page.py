"""docs/own-data.md shows what its commands print on made-up folders: `python tests/own_data_page.py` runs them anew.

How such a page is written, `pages.py` says. The suite files that this one shows lie in examples/own-data/ as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from data_trees import Heart, save_csv, write_camus, write_echonet
from nnunet_tree import write_nnunet
from numpy.typing import NDArray
from pages import ROOT, Page
from PIL import Image

EXAMPLES = ROOT / "examples" / "own-data"
SIZE, CASES = 48, 40


# ---- folders ----


def make_folders(place: Path) -> None:
    """Everything that the page speaks of; the two hospitals' scanners differ, as real ones do."""
    raw = place / "raw"
    raw.mkdir()
    north = {f"north_{i:03d}": heart(i) for i in range(1, CASES + 1)}
    south = {f"south_{i:03d}": without_la(heart(100 + i, other=True)) for i in range(1, CASES + 1)}
    write(raw / "Dataset501_North", north, {"background": 0, "LV": 1, "LVM": 2, "LA": 3})
    write(raw / "Dataset502_South", south, {"background": 0, "ventricle": 1, "wall": 2})
    east = {f"east_{i:03d}": heart(200 + i) for i in range(1, CASES + 1)}
    west = {f"west_{i:03d}": heart(300 + i, other=True) for i in range(1, CASES + 1)}
    second = set(list(west)[::4])  # read again by somebody who annotated the LA too
    west = {name: case if name in second else without_la(case) for name, case in west.items()}
    write(raw / "Dataset503_Cardiac", east | west, {"background": 0, "LV": 1, "LVM": 2, "LA": 3})
    rows = [[name, label] for name in west for label in ("LV", "LVM", *(["LA"] if name in second else []))]
    save_csv(raw / "Dataset503_Cardiac" / "annotated.csv", [["case", "label"], *rows])
    for part in ("images", "masks"):
        (place / "pictures" / part).mkdir(parents=True)
    for name, (image, labels) in (north | south).items():
        Image.fromarray(image[0]).save(place / "pictures" / "images" / f"{name}.png")
        Image.fromarray(labels).save(place / "pictures" / "masks" / f"{name}.png")
    write_camus(place / "echo" / "CAMUS_public", patients=20, size=SIZE)
    write_echonet(place / "echo" / "EchoNet-Dynamic", patients=20, size=SIZE, whole=True)


def heart(seed: int, *, other: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [1, H, W] and label map [H, W] of a heart, in one scanner, or in another that fades with depth."""
    drawn = Heart.random(seed, SIZE)
    labels = drawn.labels()
    image = drawn.image(labels).astype(np.float32)
    if other:
        image = image * np.linspace(1.3, 0.75, SIZE)[:, None] + np.random.default_rng(seed).normal(0, 8, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)[None], labels


def without_la(case: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return case[0], np.where(case[1] == 3, 0, case[1]).astype(np.uint8)


def write(folder: Path, cases: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]], labels: dict[str, int]) -> None:
    write_nnunet(folder, cases, labels, ending=".png", channel_names=("ultrasound",))


# ---- the page ----


def trains(command: str) -> bool:
    """Whether what is printed depends on the processor in its last digits."""
    return command.startswith(("labeldrop-bench run", "labeldrop-bench leaderboard"))


PAGE = Page(ROOT / "docs" / "own-data.md", make_folders, trains, {"LABELDROP_CACHE": "{place}/.cache/labeldrop_bench"})


def main() -> None:
    """What the command does: the page anew, and the files that it shows in examples/own-data/."""
    PAGE.renew()
    EXAMPLES.mkdir(exist_ok=True)
    for step in PAGE.files:
        (EXAMPLES / step.name).write_text(step.shown, encoding="utf-8")


if __name__ == "__main__":
    main()
