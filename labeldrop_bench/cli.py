"""The front of the command line: what needs no extra is run from here, everything else is typer's, in `commands`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from labeldrop_bench import __version__, extras

PROGRAM = "labeldrop-bench"
# name -> (module with `main(arguments) -> exit code`, what it does)
ALONE = {
    "doctor": ("labeldrop_bench.doctor", "Say what is installed, try it on each device, and how to mend what is wrong"),
    "nnunet": ("labeldrop_bench.integrations.nnunet.command", "Trainers for nnU-Net v2, and what was annotated"),
}
# The benchmark's, with the first lines of their docstrings: help does not wait for typer, which need not be there
BENCH = {
    "init": "Look at data folders and print a suite file with what was found: `init FOLDER... > my.toml`",
    "run": "Train, evaluate, print and write the leaderboard. The same call again goes on where it was broken off",
    "data": "Look at the data of a suite",
    "leaderboard": "Print the leaderboard of a suite's directory, finished or not",
    "submit": "Check a finished suite's results, and merge them into a leaderboard of the same suite",
    "speed": "Time the kernels against their peers: forward and backward passes of every loss",
    "suites": "List the suites that come with the package",
    "losses": "List the losses: name, channels that the network must give, source, formula",
    "datasets": "List the data sets",
    "models": "List the networks",
}
USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """What the console script `labeldrop-bench` calls; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What it cannot encode is escaped, as Python does on standard error: no finished run ends in an error
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not words:
        parser.print_help()
        return USER_ERROR
    command = parser.parse_args(words).command
    if command not in {*ALONE, *BENCH}:
        close = get_close_matches(command, [*ALONE, *BENCH], n=1)
        parser.error(f"there is no command {command!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    try:
        if command in ALONE:
            return int(import_module(ALONE[command][0]).main(words[1:]))
        from labeldrop_bench.commands import app

        app(words, prog_name=PROGRAM)  # exits
    except ModuleNotFoundError as error:
        sentence = extras.explain(error)
        if sentence is None:
            raise
        print(f"Error: {PROGRAM} {command}: {sentence}", file=sys.stderr)
    return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    there = find_spec("typer") is not None
    title = "the benchmark:" if there else f"the benchmark, which is the extra 'bench' ({extras.install('bench')}):"
    alone = {name: text for name, (_, text) in ALONE.items()}
    parser = argparse.ArgumentParser(
        PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        description="Train partial-label segmentation strategies side by side, and rank them by accuracy and speed.",
        epilog="\n\n".join(
            [_listed("commands:", alone), _listed(title, BENCH), f"{PROGRAM} COMMAND --help: what a command takes"]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}", help="print the version")
    parser.add_argument("command", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _listed(title: str, commands: Mapping[str, str]) -> str:
    return "\n".join([title, *(f"  {name:<12} {text}" for name, text in commands.items())])


if __name__ == "__main__":
    sys.exit(main())
