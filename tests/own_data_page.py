"""docs/own-data.md shows what its commands print on made-up folders: `python tests/own_data_page.py` runs them anew.

In the page's blocks of `console` a line with `$ ` is a command, and the lines below it are what it prints. A block of
`toml` whose first line is a comment with a file's name is that file: it is written before the next command, and it lies
in examples/own-data/ as well. The command above, in a folder of its own, runs everything and puts what is printed into
the page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data_trees import Heart, save_csv, write_camus, write_echonet
from nnunet_tree import write_nnunet
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own-data.md"
EXAMPLES = ROOT / "examples" / "own-data"
HOME = "/home/you"  # what the page calls the folder that it was run in
_BLOCK = re.compile(r"^```(console|toml)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w-]+\.toml)\n")
KEPT = ("HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")  # of the environment: others change what is printed
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


@dataclass(frozen=True)
class Step:
    """A command of the page, or a file that it shows.

    Attributes:
        start, end: where the text of the step lies in the page: what is printed, or the file.
        command: None for a file.
        name: of the file.
        shown: what the page says is printed, or what is in the file.
    """

    start: int
    end: int
    command: str | None
    name: str
    shown: str


def steps(page: str) -> Iterator[Step]:
    """Everything to be done, in the order of the page."""
    for block in _BLOCK.finditer(page):
        kind, text, at = block[1], block[2], block.start(2)
        if kind == "toml":
            if named := _FILE.match(text):
                yield Step(at, block.end(2), None, named[1], text)
            continue
        for part in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            yield Step(at + part.start(2), at + part.end(2), part[1], "", part[2])


class Shell:
    """Runs the commands of the page one after another, in one folder; only exported variables last.

    Args:
        place: the folder, with what `make_folders` writes.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = {
            **{key: os.environ[key] for key in KEPT if key in os.environ},
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LABELDROP_CACHE": str(place / ".cache" / "labeldrop_bench"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
        }

    def run(self, command: str) -> str:
        """What a command prints; of a training, without its progress.

        Raises:
            RuntimeError: it fails.
        """
        if variable := re.fullmatch(r"export (\w+)=(\S+)", command):
            self.environment[variable[1]] = variable[2]
            return ""
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", command],
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if trains(command) else subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"$ {command}\n{done.stdout}{done.stderr or ''}")
        text = done.stdout.replace(str(self.place), HOME)
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def trains(command: str) -> bool:
    """Whether what is printed depends on the processor in its last digits."""
    return command.startswith(("labeldrop-bench run", "labeldrop-bench leaderboard"))


def renewed(page: str, place: Path) -> str:
    """The page with what its commands print now."""
    make_folders(place)
    shell, pieces, at = Shell(place), [], 0
    for step in steps(page):
        if step.command is None:
            (place / step.name).write_text(step.shown, encoding="utf-8")
            continue
        pieces += [page[at : step.start], shell.run(step.command)]
        at = step.end
    return "".join([*pieces, page[at:]])


def main() -> None:
    """What the command does: the page anew, and the files that it shows in examples/own-data/."""
    with tempfile.TemporaryDirectory() as folder:
        text = renewed(PAGE.read_text(encoding="utf-8"), Path(folder).resolve())
    PAGE.write_text(text, encoding="utf-8")
    EXAMPLES.mkdir(exist_ok=True)
    for step in steps(text):
        if step.command is None:
            (EXAMPLES / step.name).write_text(step.shown, encoding="utf-8")


if __name__ == "__main__":
    main()
