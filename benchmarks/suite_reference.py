"""docs/suite-file.md, every key of a suite file, from the records that read it: `python -m benchmarks.suite_reference`.

Types and defaults are those of the annotations, meanings those of the docstrings; both stand there and nowhere else.
With `--check` nothing is written; a page that is not what the code says is an error, with the lines that differ.
"""

import argparse
import difflib
import functools
import inspect
import operator
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor

from labeldrop_bench import data, losses, models, procedures, records, suites
from labeldrop_bench.data.combined import Source
from labeldrop_bench.leaderboard.figures import figure_names
from labeldrop_bench.losses import SumOfLosses
from labeldrop_bench.plugins import summary
from labeldrop_bench.records import meanings, toml, words, words_of
from labeldrop_bench.records.config import TABLES

PAGE = Path(__file__).parents[1] / "docs" / "suite-file.md"
COMMAND = "python -m benchmarks.suite_reference"
HEAD = f"""\
# Every key of a suite file

Made from the code by `{COMMAND}`: do not edit.

A suite is one file in [TOML](https://toml.io). Keys of the whole suite stand at its top; then come tables, each under
its name in brackets, such as `[training]`, and lists of tables, each under its name in two pairs of brackets, such as
`[[strategies]]`. `hidden.B = ["LA"]` is short for a table `hidden` with a key `B`. The smallest suite is one table:

```toml
[data]
name = "nnunet"
root = "/data/nnUNet_raw"
dataset = "Dataset501_Heart"
annotated.B = ["LV"]
domains = {{ A = "a_*", B = "b_*" }}
```

`--set` changes any key on the command line, as in `--set training.epochs=5`, `--set data.hidden.B='["LA"]'`,
`--set data.sources.camus.size=128` or `--set 'strategies."marginal + dropout 0.3".dropout=0.5'`. [Your own
data](own-data.md) shows whole files and what is done with them. Below, `-` as a default means that the key is left out:
its meaning says what happens then.
"""
NOT_IN_A_FILE = ("num_classes", "label_space", "ignore_index", "process_group")  # the harness sets them
SHOWN = 40  # lines of a difference


def table(rows):
    """Markdown of rows of (key, type, default, meaning)."""
    cells = [["key", "type", "default", "meaning"], [":--", ":--", ":--", ":--"], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells)


def said(text):
    """What a docstring says, for people who write no Python: what is None is left out of the file."""
    text = re.sub(r"\bNone (?=[a-z]+)", "left out, it ", text)
    if not text or "None" in text:
        raise ValueError(f"no meaning for people who write no Python: {text!r}")
    text = re.sub(r"(?:^|(?<=\. ))[a-z]", lambda start: start[0].upper(), text)
    return text.removesuffix(".")


def keys(model, defaults=None, without=()):
    """A row for each key of a record.

    Raises:
        ValueError: a key without a meaning.
    """
    meaning, rows = meanings(model), []
    for name, field in model.model_fields.items():
        if name in without:
            continue
        if name not in meaning:
            raise ValueError(f"{model.__module__}.{model.__name__}: say under Attributes what {name} is")
        default = (defaults or {}).get(name) or default_of(field)
        rows.append((f"`{name}`", typed(words_of(field)), default, said(meaning[name])))
    return rows


def typed(text):
    """A type's name, where quoted choices are code."""
    return re.sub(r'"[^"]*"', lambda word: f"`{word[0]}`", text)


def default_of(field):
    """A default as a file has it; empty for what is required, and "-" where leaving out has a meaning of its own."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    return "-" if value is None or value in ({}, (), "") or isinstance(value, BaseModel) else f"`{toml(value)}`"


def suite():
    """The top of the file, and the tables that are its own."""
    config = records.SuiteConfig
    lists = ("conditions", "strategies")
    tables = {name: config.model_fields[name].annotation for name in (*TABLES, "scoring")}
    top = keys(config, suites.FILLED_IN, without=tables)
    yield "## The top of the file", table(top)
    yield (f"`figures` may name {', '.join(f'`{name}`' for name in figure_names())}.",)
    for name in ("data", "model", "patches", "training", "augmentation", "scoring"):
        yield f"## `[{name}]`", said(meanings(config)[name]) + ".", table(keys(tables[name]))
        if name == "data":
            yield from data_sets()
        if name == "model":
            yield (networks(),)
    for name, model in zip(lists, (records.ConditionConfig, records.StrategyConfig), strict=True):
        yield f"## `[[{name}]]`", first_line(model), table(keys(model))
    yield from loss_options()
    yield from procedure_options()


def first_line(model):
    return summary(model) + "."


def data_sets():
    """`[[data.hidden]]`, and the keys of each data set with the tables that are in it."""
    yield "### `[[data.hidden]]`", first_line(records.HiddenConfig), table(keys(records.HiddenConfig))
    for name in data.REGISTRY.ours:
        info = data.get(name)
        inner = {
            key: field.annotation
            for key, field in info.options.model_fields.items()
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        }
        about = f"{info.description}. Licence: {info.licence}."
        yield f'### `[data]` with `name = "{name}"`', about, table(keys(info.options))
        for key, model in inner.items():
            yield f"#### `[data.{key}]`", first_line(model), table(keys(model))
        if name == "combined":
            yield "#### `[[data.sources]]`", first_line(Source), table(keys(Source))


def networks():
    """What each network's `channels` are."""
    lines = ["Networks, and what their `channels` are:", ""]
    for name in models.REGISTRY.ours:
        make = models.REGISTRY.get(name)
        lines.append(f"- `{name}`: {summary(make)}. Channels: {arguments(make)['channels']}")
    return "\n".join(lines)


def arguments(thing):
    """Argument -> what a docstring says of it under `Args:`, in one line."""
    section = re.search(r"^Args:\n((?: {4}.*\n|\n)+)", inspect.cleandoc(thing.__doc__ or "") + "\n", re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*\n(?: {5,}.*\n)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def loss_options():
    """`loss_options`: a row for each option, with the losses that have it."""
    holders = {}
    for name in losses.REGISTRY.ours:
        info = losses.info(name)
        types, told = hints(info.module), arguments(info.module)
        for option, parameter in inspect.signature(info.module).parameters.items():
            if option not in NOT_IN_A_FILE:
                default = info.options.get(option, parameter.default)
                shown = "-" if default is None else f"`{toml(default)}`"
                row = (f"`{option}`", typed(words(types[option])), shown, said(told[option]))
                holders.setdefault(row, []).append(f"`{name}`")
    everywhere = len(losses.REGISTRY.ours)
    rows = [
        (key, kind, default, f"{meaning}. {'All losses' if len(names) == everywhere else ', '.join(names)}")
        for (key, kind, default, meaning), names in sorted(holders.items(), key=lambda item: -len(item[1]))
    ]
    rows.append(("`weights`", "a list of numbers", "-", f"{said(arguments(SumOfLosses)['weights'])}. Sums, `ce+dice`"))
    yield "### `loss_options` of `[[strategies]]`", "Each term of a sum takes the options that it knows.", table(rows)


def hints(module):
    """Argument of a constructor -> its type, as far as a file can hold it."""
    found = {}
    for ancestor in reversed(module.__mro__):
        if ancestor.__module__.startswith("labeldrop_bench") and "__init__" in vars(ancestor):
            found |= typing.get_type_hints(vars(ancestor)["__init__"], localns={"ProcessGroup": object})
    return {name: in_a_file(kind) for name, kind in found.items()}


def in_a_file(kind):
    """A type without tensors, sequences being lists."""
    if typing.get_origin(kind) is Sequence:
        return tuple[typing.get_args(kind)[0], ...]
    parts = typing.get_args(kind)
    return functools.reduce(operator.or_, (in_a_file(p) for p in parts if p is not Tensor)) if Tensor in parts else kind


def procedure_options():
    """`procedure`: the options of each scheme."""
    for name in procedures.PROCEDURES:
        options = procedures.REGISTRY.get(name).options
        if options.model_fields:
            doc = summary(sys.modules[options.__module__])
            yield f'### `procedure` of `[[strategies]]`: `name = "{name}"`', f"{doc}.", table(keys(options))


def wanted():
    """What the page has to hold."""
    return "\n\n".join([HEAD.strip(), *(part for parts in suite() for part in parts)]) + "\n"


def drift(page=PAGE):
    """The lines in which the page differs from what the code says; none if it is as it should be."""
    there = page.read_text(encoding="utf-8") if page.exists() else ""
    names = f"{page.name}, as it is", f"{page.name}, as the code has it"
    return list(difflib.unified_diff(there.splitlines(), wanted().splitlines(), *names, lineterm="", n=0))[:SHOWN]


def main(words=None, page=PAGE):
    """What the command does; its exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is out of date")
    if not parser.parse_args(words).check:
        records.write_text(page, wanted())
        return 0
    lines = drift(page)
    if lines:
        sys.stderr.write("\n".join([*lines, f"Out of date: call {COMMAND}", ""]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
