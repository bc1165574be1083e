"""The suite file: a table of what was found, and every key that a person may want to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labeldrop_bench.data.edits import setting
from labeldrop_bench.init.decisions import Decided, Decisions
from labeldrop_bench.init.folders import Source
from labeldrop_bench.init.plan import Plan, middle
from labeldrop_bench.init.toml import comment, key, value

_LONGEST = 110  # characters of a line that is not split
_MOST_SIZES, _LEAST = 5, 3  # image sizes that may tell of domains, and images of each
_RUNS = 5 * 3  # strategies and seeds
_LISTED = 12  # rows or columns of the table of labels, labels in a comment
_SHARES = {60: (0.1, 0.2), 12: (0.15, 0.3), 0: (0.25, 0.3)}
"""Patients of the smallest domain, at least -> shares of validation and test: a single patient tells of nobody else."""
_INTRODUCTION = """\
# Written by `labeldrop-bench init`. Look at the lines marked (!). Then, with this file as my.toml:
#   labeldrop-bench data check my.toml    reads every file, tells what training sees and what can be scored
#   labeldrop-bench run my.toml           trains and ranks
#"""
_SETTINGS = """\
seeds = [0, 1, 2]          # every strategy is trained once with each
workers = "auto"           # runs side by side"""
_TRAINING = """\
[model]
name = {network}
channels = {channels:<14}  # widths of its levels: sizes must be divisible by {divisor}

{patches}

[training]
epochs = {epochs:<16}  # all {runs} runs take {hours} on two cores, very roughly
batch_size = {batch_size}
learning_rate = 0.1        # the peak of the schedule; grid = {{ learning_rate = [0.01, 0.1] }} tries several
schedule = "one_cycle"
validate_every = {validate_every:<8}  # epochs
threads = 1                # of each run

[augmentation]
probability = 0.3          # of each change, for each image; 0 switches it off
scale = 0.1
rotation = 10
blur = {blur}
brightness = 0.1
contrast = 0.1

[scoring]
tolerance = {tolerance:<13}  # of the surface Dice, in {unit}"""
_WHOLE = """\
[patches]
kind = "whole"             # kind = "box" with a size trains on parts of larger images"""
_BOXES = """\
[patches]
kind = "box"               # random boxes in training, sliding windows in prediction
size = {size}
per_image = {per_image:<13}  # boxes of an image in an epoch
foreground = 0.33          # share of the boxes with a labelled pixel in their middle"""
_FULL = """\
# [[strategies]]           # the upper bound, trained on all labels: for `hidden`, see [data]
# name = "full"
# loss = "ce"
# full_labels = true"""
_TO_MEASURE = """\
# What nobody annotated cannot be scored. To measure what a strategy makes of missing labels, hide one that is there,
# and take the strategy `full` in, at the end of this file:"""
_NOTHING_MISSING = """\
# (!) Every label counts as annotated everywhere: nothing is partially labelled; strategies will differ little. For an
# experiment, hide a label from training, and take the strategy `full` in, at the end of this file:"""
_NOT_SHOWN = """\
# (!) No label map of {domain} shows {labels}: most likely nobody annotated that there. If it was looked for, delete
# the next line: then training learns from its absence."""

_SELDOM = '''\
# (!) Fewer than half of the label maps of {domain} show {labels}. If nobody looked for that in some cases,
# say what was annotated in which, or it counts as absent there: a file with the columns case,label, a row for each.
# annotated_file = "annotated.csv"'''


def suite(decisions: Decisions, plan: Plan) -> str:
    """The text of the file."""
    first, single = decisions.sources[0], len(decisions.sources) == 1
    title = ", ".join(d.name for d in decisions.sources)
    head = [_INTRODUCTION, *(comment(f"# {line}".rstrip()) for line in _tables_of_findings(decisions))]
    combined = ["[data]", _with('name = "combined"', "several data sets as one, each a domain with the labels it has")]
    data = _keys(first, plan, combined=False) if single else combined
    sections = [
        head,
        [f"title = {value(title)}", _SETTINGS],
        [*data, *_experiments(decisions), *(_long_tables(first, "data") if single else [])],
        *([] if single else [_source(d, plan, decisions) for d in decisions.sources]),
        [_training(plan)],
        [_FULL],
        *_strategies(decisions),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _tables_of_findings(decisions: Decisions) -> list[str]:
    lines = [*_columns(_sources_table(decisions)), "", *_columns(_labels_table(decisions))]
    partly = [d for d in decisions.sources if not d.source.all_read]
    lines += [f"(!) {d.name}: to save time only {d.source.read} label maps were read, evenly spread" for d in partly]
    return lines


def _sources_table(decisions: Decisions) -> list[list[str]]:
    rows = [["source", "cases", "of labelsTs", "channels", "median size", "mm", "folder"]]
    for d in decisions.sources:
        grids, source = d.source.grids, d.source
        spacing = [grid.spacing for grid in grids if grid.spacing is not None]
        rows.append(
            [
                d.name, str(len(source.files)), str(len(source.test)), ", ".join(source.channels),
                _by(middle([grid.shape for grid in grids])) if grids else "?",
                _by(middle(spacing)) if spacing else "-", str(source.folder),
            ]
        )  # fmt: skip
    return rows if any(d.source.test for d in decisions.sources) else [[*row[:2], *row[3:]] for row in rows]


def _labels_table(decisions: Decisions) -> list[list[str]]:
    """In how many label maps of each domain each class is seen; "-" where the source has no such label."""
    domains, classes = decisions.domains[:_LISTED], decisions.shown
    some = classes if len(classes) <= _LISTED else decisions.missing[: 2 * _LISTED]
    more = "..." if len(decisions.domains) > _LISTED else ""
    rows = [["label maps", *(d.name for d in domains), more], ["  read", *(str(d.read) for d in domains)]]
    rows += [[f"  with {c}", *(str(d.shows[c]) if c in d.named else "-" for d in domains)] for c in some]
    return rows if len(some) == len(classes) else [*rows, [f"and {len(classes) - len(some)} other labels"]]


def _source(decided: Decided, plan: Plan, decisions: Decisions) -> list[str]:
    """One of the sources of `combined`."""
    lines = _keys(decided, plan, combined=True) + _perhaps_the_same(decided, decisions)
    return lines + _long_tables(decided, "data.sources")


def _keys(decided: Decided, plan: Plan, combined: bool) -> list[str]:
    """The keys of one data set, in a table of its own or among the sources of `combined`."""
    source = decided.source
    lines = ["[[data.sources]]" if combined else "[data]", f"name = {value(source.kind)}"]
    if source.kind == "nnunet":
        lines += [f"root = {value(source.folder.parent)}", f"dataset = {value(source.folder.name)}"]
    else:
        lines += [f"root = {value(source.folder)}"]
    if combined:
        lines.append(_with(f"domain = {value(decided.name)}", "what it is called in results"))
    lines += [
        line for name, table, note in _tables(decided) if not _long(line := _with(f"{name} = {value(table)}", note))
    ]
    if decided.channels is not None:
        note = "(!) all sources need the same number" if combined else "the images have colours"
        lines.append(_with(f"channels = {value(decided.channels)}", note))
    if plan.spacing is not None:
        note = f"millimetres along D, H, W; median of the files: {_by(plan.native_spacing or ())}"
        lines.append(_with(f"spacing = {value(plan.spacing)}", note))
    note = f"median of the files: {_by(plan.native)}" + "; coarser here, to be affordable on two cores" * plan.coarser
    if plan.whole is not None:
        note += f"; holds {plan.whole[0]} of {plan.whole[1]} volumes whole" + ", cuts others" * (
            plan.whole[0] < plan.whole[1]
        )
    lines.append(_with(f"size = {value(plan.size)}", note))
    if source.copies:
        lines.append(
            _with(f"together = {value(source.copies)}", "(!) the same picture more than once: kept in one split")
        )
    lines += _domains(decided, combined)
    if source.problems:
        lines.append("# skip_bad = true         # (!) leaves out what `init` listed as bad; better mend the files")
    return lines


def _tables(decided: Decided) -> list[tuple[str, Mapping[str, object], str]]:
    """Keys whose value is a table: name, value, comment."""
    tables: list[tuple[str, Mapping[str, object], str]] = []
    if decided.source.kind == "folder":
        note = "(!) masks have no names for their values: rename the labels; equal names mean the same in all sources"
        tables.append(("labels", decided.source.labels, note))
    if decided.renamed:
        tables.append(("map", decided.called, "label of the source = class here"))
    return tables


def _long_tables(decided: Decided, prefix: str) -> list[str]:
    """Those that do not fit on a line, a row each; TOML wants them behind all other keys."""
    lines = []
    for name, table, note in _tables(decided):
        if _long(_with(f"{name} = {value(table)}", note)):
            lines += ["", f"[{prefix}.{name}]          # {note}", *(f"{key(k)} = {value(v)}" for k, v in table.items())]
    return lines


def _long(line: str) -> bool:
    return max(map(len, line.splitlines())) > _LONGEST


def _perhaps_the_same(decided: Decided, decisions: Decisions) -> list[str]:
    """Labels that this source alone has, beside those that it lacks, may be the same under another name."""
    own, others = decided.called, {c for d in decisions.sources if d is not decided for c in d.called.values()}
    alone = [c for c in own.values() if c not in others and c in decisions.shown]
    lacking = [c for c in decisions.shown if c not in own.values()]
    if not alone or not lacking or len(own) > _LISTED or decided.source.kind == "folder":
        return []
    said = dict(zip(alone, lacking, strict=False))
    listed = [", ".join(names[:_LISTED]) for names in (alone, lacking)]
    return [
        comment(f"# (!) Here alone: {listed[0]}. Not here: {listed[1]}. If any are the same, say it as in this line:"),
        comment(f"# map = {value({label: said.get(c, c) for label, c in own.items()})}"),
    ]


def _domains(decided: Decided, combined: bool) -> list[str]:
    """Hospitals, patients and splits."""
    lines = []
    if decided.parts:
        found = {part.name: part.patterns[0] if len(part.patterns) == 1 else part.patterns for part in decided.parts}
        lines.append(
            _with(f"domains = {value(found)}", "(!) by the names of the cases: are these hospitals or scanners?")
        )
    elif sizes := _sizes(decided.source):
        lines.append(f"# domains = {value(sizes)}  # (!) by image size: are these hospitals or scanners?")
    elif not combined:
        lines.append('# domains = { A = "a_*", B = "b_*" }  # where names of cases tell of hospitals or scanners')
    pattern, active = decided.group
    if active:
        lines.append(_with(f"group = {value(pattern)}", "(!) cases of one patient stay in one split"))
    elif pattern or not combined:
        example = value(pattern or "(patient[0-9]+)")
        lines.append(f"# group = {example}  # (!) are several cases of one patient? Keep them in one split")
    patients = min(domain.patients for domain in decided.domains)
    validation, test = next(shares for least, shares in _SHARES.items() if patients >= least)
    lines.append(_with(f"validation = {validation}", "share of the patients that chooses the best epoch"))
    if not decided.source.test:
        lines.append(_with(f"test = {test}", "share of the patients that is scored"))
    return lines


def _sizes(source: Source) -> dict[str, str]:
    """Domains by image size, which the reader of pictures can tell apart, where a few sizes are all that there are."""
    counts = Counter(grid.shape for grid in source.grids)
    if source.kind != "folder" or not 2 <= len(counts) <= _MOST_SIZES or min(counts.values()) < _LEAST:
        return {}
    return {f"{width}x{height}": f"{width}x{height}" for height, width in sorted(counts)}


def _experiments(decisions: Decisions) -> list[str]:
    """What holds for all sources: classes, what was annotated where as far as files tell it, what could be hidden."""
    lines = []
    if decisions.shown != decisions.classes:
        left_out = ", ".join(c for c in decisions.classes if c not in decisions.shown)
        lines.append(_with(f"classes = {value(decisions.shown)}", f"(!) no label map shows {left_out}"))
    if decisions.table is not None:
        lines.append(_with(f"annotated_file = {value(decisions.table)}", "which labels were annotated in which case"))
    for path, wrong in decisions.tables:
        lines += [comment(f"# annotated_file = {value(path)}  # (!) not used: {wrong}")] if wrong else []
    for domain in decisions.domains:
        if domain.annotated is not None and not domain.told_by_case:
            absent = ", ".join(c for c in domain.named if c not in domain.annotated)
            lines += map(comment, _NOT_SHOWN.format(domain=domain.name, labels=absent).splitlines())
            lines.append(setting("annotated", domain.name, domain.annotated))
        if domain.seldom and not domain.told_by_case:
            labels = ", ".join(f"{c} ({domain.shows[c]} of {domain.read})" for c in domain.seldom[:_LISTED])
            lines += map(comment, _SELDOM.format(domain=domain.name, labels=labels).splitlines())
    return [*lines, _TO_MEASURE if decisions.missing else _NOTHING_MISSING, comment(f"# {_hidden(decisions)}")]


def _hidden(decisions: Decisions) -> str:
    """A label that a domain could do without: others show it, and it shows others. Otherwise in half of the cases."""
    for domain in reversed(decisions.domains):
        there = [c for c, n in domain.shows.items() if n]
        for c in reversed(there):
            if len(there) > 1 and any(other.shows.get(c) for other in decisions.domains if other is not domain):
                return setting("hidden", domain.name, [c])
    return f"hidden = [{value({'labels': [decisions.shown[-1]], 'share': 0.5})}]"


def _training(plan: Plan) -> str:
    """Network, patches, training, augmentation, scoring."""
    spacing = plan.sample_spacing
    return _TRAINING.format(
        network=value(plan.network),
        channels=value(plan.channels),
        divisor=2 ** (len(plan.channels) - 1),
        patches=_WHOLE if plan.patch is None else _BOXES.format(size=value(plan.patch), per_image=plan.per_image),
        epochs=plan.epochs,
        runs=_RUNS,
        hours=_duration(_RUNS * plan.core_hours / 2),
        batch_size=plan.batch_size,
        validate_every=plan.validate_every,
        blur=0.5 if len(plan.size) == 2 else 0,
        tolerance=float(f"{max(spacing):.2g}") if spacing else 1.0,
        unit="millimetres" if spacing else "pixels",
    )


def _duration(hours: float) -> str:
    return f"{hours:.0f} hours" if hours > 1.5 else f"{max(1, round(60 * hours))} minutes"


def _strategies(decisions: Decisions) -> list[list[str]]:
    may_drop = f"dropout_classes = {value(decisions.missing)}"
    dropped = [_with(may_drop, "missing somewhere")] if decisions.missing else []
    blocks = [["[[strategies]]", 'name = "standard"', 'loss = "ce"']]
    for name in ("adaptive", "marginal"):
        plain = f'loss = "{name}_ce"'
        blocks.append(["[[strategies]]", f'name = "{name}"', plain])
        blocks.append(["[[strategies]]", f'name = "{name} + dropout 0.3"', plain, "dropout = 0.3", *dropped])
    return blocks


def _with(line: str, note: str) -> str:
    """A line with a comment behind it, or above it where it is long."""
    note = comment(note)
    return f"{line:<25}  # {note}" if len(line) + len(note) <= _LONGEST else f"# {note}\n{line}"


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    number = max(map(len, rows))
    padded = [[*row, *[""] * (number - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*padded, strict=True)]
    return ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in padded]
