"""The files that `write` leaves, and what importing the leaderboard brings with it."""

import subprocess
import sys
from pathlib import Path

import labeldrop_bench
from labeldrop_bench import leaderboard

FIGURES = ("annotated_vs_unannotated", "significance", "rank_stability")
FILES = {
    "leaderboard.md", "leaderboard.csv", "leaderboard.html", "challenger.csv", "figures",
    *(f"{name}.png" for name in FIGURES), *(f"{name}.svg" for name in FIGURES),
}  # fmt: skip


def test_write(make_directory, whole):
    directory = make_directory()
    before = {path.name for path in directory.iterdir()}
    assert leaderboard.write(directory) == whole
    assert {path.name for path in directory.iterdir()} - before == FILES  # no temporary file is left
    for suffix in ("md", "csv", "html"):
        assert (directory / f"leaderboard.{suffix}").read_text() == leaderboard.render(whole, suffix)


def test_write_replaces_as_runs_finish(make_directory, dice):
    directory, finished = make_directory({("adaptive", 0): dice["adaptive", 0]}), make_directory()
    leaderboard.write(directory)
    assert "1 of 6 runs" in (directory / "leaderboard.md").read_text()
    (directory / "runs").rename(directory / "old")
    (finished / "runs").rename(directory / "runs")
    leaderboard.write(directory)
    assert "of 6 runs" not in (directory / "leaderboard.md").read_text()


def test_needs_no_torch_and_no_other_part_of_the_package(make_directory):
    # The package's own __init__ is left out: this is about what the leaderboard imports.
    code = """
import sys, types
package = types.ModuleType("labeldrop_bench")
package.__path__ = [sys.argv[1]]
sys.modules["labeldrop_bench"] = package
from labeldrop_bench import leaderboard
loaded = leaderboard.load(sys.argv[2])
leaderboard.render(loaded, "terminal")
assert "matplotlib" not in sys.modules, "a terminal table needs no figure"
leaderboard.write(sys.argv[2])
assert "torch" not in sys.modules
ours = {name.split(".")[1] for name in sys.modules if name.startswith("labeldrop_bench.")}
assert ours == {"records", "errors", "leaderboard", "text"}, ours
"""
    package = Path(labeldrop_bench.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(package), str(make_directory())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
