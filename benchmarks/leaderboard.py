"""LEADERBOARD.md, and each suite's leaderboard.csv, from the results in results/: `python -m benchmarks.leaderboard`.

Each folder of results/ is a leaderboard directory that `labeldrop-bench submit DIR --to results/SUITE` made. With
`--check` nothing is written; a file that is not what the results give is an error, with the lines that differ.
"""

import argparse
import difflib
import itertools
import sys
from pathlib import Path

from labeldrop_bench import leaderboard, records, submit
from labeldrop_bench.leaderboard.overview import section

ROOT = Path(__file__).parents[1]
FIRST = ("quick", "ld-exp4-phantom", "all")  # the others follow in alphabetical order
HEAD = """\
# Leaderboard

Made from [results](results) by `python -m benchmarks.leaderboard`: do not edit. To enter a strategy of your own, run it
as [the example package](examples/labeldrop_example/README.md) does, then `labeldrop-bench submit DIR --to
results/SUITE`, then that command.
"""
SHOWN = 40  # lines of a difference


def suites(root):
    """The folders with results, in the order of the document."""
    folders = {path.parent.name: path.parent for path in (root / "results").glob("*/suite.json")}
    order = sorted(folders, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    return [folders[name] for name in order]


def wanted(root):
    """Path -> what it has to hold.

    Raises:
        SubmissionError: results that are not whole or do not agree with themselves.
    """
    sections, files = [HEAD.strip()], {}
    for folder in suites(root):
        submit.check(folder)
        board = leaderboard.load(folder)
        sections.append(section(board, f"results/{folder.name}"))
        files[folder / "leaderboard.csv"] = leaderboard.render(board, "csv")
    return {root / "LEADERBOARD.md": "\n\n".join(sections) + "\n", **files}


def drift(root):
    """The lines in which files differ from what the results give; none if all are as they should be."""
    lines = []
    for path, text in wanted(root).items():
        there = path.read_text() if path.exists() else ""
        names = f"{path.relative_to(root)}, as it is", f"{path.relative_to(root)}, as the results have it"
        found = difflib.unified_diff(there.splitlines(), text.splitlines(), *names, lineterm="", n=0)
        lines += itertools.islice(found, SHOWN)
    return lines


def main(arguments=None, root=ROOT):
    """What the command does; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file is out of date")
    if not parser.parse_args(arguments).check:
        for path, text in wanted(root).items():
            records.write_text(path, text)
        return 0
    lines = drift(root)
    if lines:
        sys.stderr.write("\n".join([*lines, "Out of date: call python -m benchmarks.leaderboard", ""]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
