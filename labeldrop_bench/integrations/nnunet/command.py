"""`labeldrop-bench nnunet`: where the trainers are, what was annotated, and which configuration is best."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from labeldrop_bench.errors import UserError

FOLDER = Path(__file__).parent / "trainers"
VARIABLE = "nnUNet_extTrainer"
PROGRAM = "labeldrop-bench nnunet"
BEST = "find-best-configuration"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == [BEST] and {"-h", "--help"}.isdisjoint(arguments):
            return _find_best(arguments[1:])
        options = _parser().parse_args(arguments)
        return _annotate(options) if options.command == "annotate" else _show()
    except (UserError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROGRAM,
        description="Trainers of nnU-Net v2 for cases in which not every label was annotated. Without a command: the "
        f'line that lets nnU-Net find them, and their names; eval "$({PROGRAM})" runs it.',
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    annotate = commands.add_parser(
        "annotate",
        help="write into dataset.json which labels were annotated in which case, or check what is there",
        description="Writes the key annotated_labels of dataset.json, in nnUNet_raw and, once the data set is planned, "
        "in nnUNet_preprocessed, after a look at all label files. A case that is not named has all labels. Without "
        "--source-pattern and --from, what is there already is checked.",
    )
    annotate.add_argument("dataset", help="number, name or folder of the data set")
    how = annotate.add_mutually_exclusive_group()
    how.add_argument(
        "--source-pattern",
        dest="sources",
        action="append",
        metavar="PATTERN=LABELS",
        help="cases that the pattern fits have these labels; once for each source: --source-pattern 'EchoNet_*=LV'",
    )
    how.add_argument(
        "--from",
        dest="table",
        type=Path,
        metavar="TABLE.csv",
        help="columns case and labels (names with ; between them), or case and one column for each label (1 or 0)",
    )
    commands.add_parser(
        BEST,
        add_help=True,
        help="nnUNetv2_find_best_configuration, scored where it was annotated",
        description="Takes the arguments of nnUNetv2_find_best_configuration, DATASET first. That scores all folds "
        "anew, and counts the prediction of what was not annotated as wrong; here it does not count.",
    )
    return parser


def _show() -> int:
    from . import trainer

    there = [path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]
    value = os.pathsep.join(dict.fromkeys([*there, str(FOLDER)]))
    print(shell_line(value, windows=os.name == "nt"))
    print("# Trainers, for nnUNetv2_train ... -tr NAME (nnUNetv2_predict wants the variable too):")
    for name in trainer.__all__:
        found = getattr(trainer, name)
        drop = f", label dropout {found.p_drop}" if found.p_drop else ""
        print(f"#   {name:<45} {found.loss_name}{drop}")
    print(f"# Trainers of your own: derive from one of {trainer.__name__}")
    return 0


def shell_line(value: str, *, windows: bool) -> str:
    """What sets the variable, in PowerShell or in a POSIX shell."""
    quoted = value.replace("'", "''")
    return f"$env:{VARIABLE} = '{quoted}'" if windows else f"export {VARIABLE}={shlex.quote(value)}"


def _annotate(options: argparse.Namespace) -> int:
    from . import annotate, sources
    from .annotations import KEY, checked, listed, read_annotations

    dataset = annotate.find_dataset(options.dataset)
    writes = bool(options.sources or options.table)
    source_of: dict[str, str] = {}
    if options.sources:
        given, source_of = sources.from_patterns(options.sources, dataset.files)
        annotations = checked(given, dataset.labels, dataset.files, "--source-pattern")
    elif options.table:
        given = sources.from_table(options.table, dataset.labels)
        annotations = checked(given, dataset.labels, dataset.files, str(options.table))
    else:
        found = [read_annotations(annotate.read_json(path), dataset.files, path) for path in dataset.copies]
        if found[0] != found[-1]:
            raise UserError(f"{KEY} is not the same in {dataset.copies[0]} and {dataset.copies[-1]}: write it again")
        annotations = found[0]
    pixels = annotate.pixels_of(dataset)
    wrong = annotate.contradictions(annotations, pixels)
    if wrong:
        rest = "Nothing was written. " if writes else ""
        raise UserError(
            listed("label files show what was not annotated:", wrong) + f"\n{rest}Name these labels for these cases, "
            f"or take their pixels out of the files"
        )
    lines, warnings = annotate.overview(annotations, pixels, source_of)
    print("\n".join([f"{dataset.folder.name}: {len(pixels)} cases", *lines]))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for path in annotate.write(dataset, annotations) if writes else []:
        print(f"wrote {KEY} into {path}")
    return 0


def _find_best(arguments: Sequence[str]) -> int:
    from .best import find_best_configuration

    if not arguments or arguments[0].startswith("-"):
        raise UserError(f"{BEST}: give the data set first, then the options of nnUNetv2_find_best_configuration")
    find_best_configuration(arguments)
    return 0
