"""docs/nnunet.md is run on made-up hearts: `python tests/nnunet_page.py` puts what its commands print into it.

Two hospitals: North has all labels and ten cases, South has thirty and never annotated the left ventricle (LV). What
was not annotated there is known all the same, for six more of its images: in truth/, which the page does not speak of.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from data_trees import Heart
from nnunet_case import environment
from nnunet_tree import write_array, write_nnunet
from numpy.typing import NDArray
from pages import ROOT, Page

SIZE, NORTH, SOUTH, NEW = 48, 10, 30, 6
LABELS = {"background": 0, "LV": 1, "LVM": 2, "LA": 3}


def heart(seed: int, *, south: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [1, H, W] and label map [H, W]; in South's images the signal fades with depth."""
    drawn = Heart.random(seed, SIZE)
    labels = drawn.labels()
    image = drawn.image(labels).astype(np.float32)
    if south:
        image *= np.linspace(1.15, 0.85, SIZE)[:, None]
    return np.clip(image, 0, 255).astype(np.uint8)[None], labels


def make_folders(place: Path) -> None:
    """The data set, and new images of South."""
    cases = {f"North_{i:03d}": heart(i) for i in range(1, NORTH + 1)}
    for i in range(1, SOUTH + 1):
        image, labels = heart(500 + i, south=True)
        cases[f"South_{i:03d}"] = image, np.where(labels == LABELS["LV"], 0, labels).astype(np.uint8)
    (place / "raw").mkdir()
    write_nnunet(place / "raw" / "Dataset007_Heart", cases, LABELS, ending=".png", channel_names=("ultrasound",))
    for i in range(1, NEW + 1):
        image, labels = heart(900 + i, south=True)
        write_array(place / "new" / f"South_{900 + i}_0000.png", image[0], ())
        write_array(place / "truth" / f"South_{900 + i}.png", labels, ())


def trains(command: str) -> bool:
    """Whether what is printed depends on the processor."""
    return command.startswith(("grep", "nnUNetv2_"))


def bare(text: str) -> str:
    """What such a command prints, without its numbers."""
    return re.sub(r"\d[\d.]*|NaN", "0", text)


PAGE = Page(
    ROOT / "docs" / "nnunet.md",
    make_folders,
    trains,
    {
        **{
            key: value
            for key, value in environment(Path("{place}")).items()
            if key in ("PYTHONPATH", "nnUNet_def_n_proc")
        },
        "nnUNet_n_proc_DA": "1",
    },
)

if __name__ == "__main__":
    PAGE.renew()
