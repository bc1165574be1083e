"""Pages of docs/ that say what happens: their commands are run, and what is printed is put into the page.

In a page's blocks of `console` a line with `$ ` is a command, and the lines below it are what it prints. A block of
`toml`, `python`, `csv` or `json` whose first line is a comment with a file's name is that file: it is written before
the next command; JSON, which has no comments, without that line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = "/home/you"  # what a page calls the folder that it was run in
_BLOCK = re.compile(r"^```(console|toml|python|csv|json)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|//) ([\w-]+\.(?:toml|py|csv|json))\n")
KEPT = ("HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")  # of the environment: others change what is printed


@dataclass(frozen=True)
class Step:
    """A command of a page, or a file that it shows.

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


def steps(text: str) -> Iterator[Step]:
    """Everything to be done, in the order of the page."""
    for block in _BLOCK.finditer(text):
        kind, inside, at = block[1], block[2], block.start(2)
        if kind != "console":
            if named := _FILE.match(inside):
                start = named.end() if kind == "json" else 0
                yield Step(at + start, block.end(2), None, named[1], inside[start:])
            continue
        for part in re.finditer(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", inside, re.MULTILINE):
            yield Step(at + part.start(2), at + part.end(2), part[1], "", part[2])


def varies_never(command: str) -> bool:
    """Of a page whose commands print the same on every machine."""
    return False


@dataclass(frozen=True)
class Page:
    """A page that can be run.

    Attributes:
        path: of the Markdown file.
        make_folders: writes what the page speaks of into the folder in which it is run.
        varies: whether what a command prints depends on the processor in its last digits.
        environment: further variables, in which {place} stands for the folder.
    """

    path: Path
    make_folders: Callable[[Path], None]
    varies: Callable[[str], bool] = varies_never
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What the page says now."""
        return self.path.read_text(encoding="utf-8")

    @property
    def files(self) -> list[Step]:
        """The files that it shows."""
        return [step for step in steps(self.text) if step.command is None]

    def renewed(self, place: Path) -> str:
        """The page with what its commands print now, run in an empty folder."""
        self.make_folders(place)
        shell = Shell(place, {key: text.format(place=place) for key, text in self.environment.items()}, self.varies)
        text, pieces, at = self.text, [], 0
        for step in steps(text):
            if step.command is None:
                (place / step.name).write_text(step.shown, encoding="utf-8")
                continue
            pieces += [text[at : step.start], shell.run(step.command)]
            at = step.end
        return "".join([*pieces, text[at:]])

    def renew(self) -> None:
        """Run everything and write what is printed into the page."""
        with tempfile.TemporaryDirectory() as folder:
            text = self.renewed(Path(folder).resolve())
        self.path.write_text(text, encoding="utf-8")

    def check(self, place: Path, bare: Callable[[str], object]) -> None:
        """Run everything in an empty folder: what is printed is what the page shows.

        Args:
            place: the folder.
            bare: what has to agree of a text that varies.

        Raises:
            AssertionError: something else is printed (says what, and by which command).
        """
        shown = [step for step in steps(self.text) if step.command is not None]
        printed = [step for step in steps(self.renewed(place)) if step.command is not None]
        assert [step.command for step in printed] == [step.command for step in shown]
        other = [
            f"$ {now.command}\nnow prints\n{now.shown}"
            for then, now in zip(shown, printed, strict=True)
            if now.shown != then.shown and not (self.varies(now.command or "") and bare(now.shown) == bare(then.shown))
        ]
        assert not other, "\n".join([*other, "If that is as it should be, renew the page: see CONTRIBUTING.md"])


class Shell:
    """Runs the commands of a page one after another, in one folder; only exported variables last.

    Args:
        place: the folder.
        environment: variables of its own.
        varies: whether only the standard output of a command is kept: what goes elsewhere is its progress.
    """

    def __init__(self, place: Path, environment: Mapping[str, str], varies: Callable[[str], bool]) -> None:
        self.place = place
        self.varies = varies
        self.environment = {
            **{key: os.environ[key] for key in KEPT if key in os.environ},
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            **environment,
        }

    def run(self, command: str) -> str:
        """What a command prints.

        Raises:
            RuntimeError: it fails.
        """
        if variable := re.fullmatch(r"export (\w+)=(\S+)", command):
            self.environment[variable[1]] = variable[2].replace("$PWD", str(self.place))
            return ""
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", command],
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.varies(command) else subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"$ {command}\n{done.stdout}{done.stderr or ''}")
        text = done.stdout.replace(str(self.place), HOME)
        return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
