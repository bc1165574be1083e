"""The benchmark's commands: parse, call, print. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

if TYPE_CHECKING:
    from labeldrop_bench.plugins import Registry

T = TypeVar("T")
app = typer.Typer(
    name="labeldrop-bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, help="Look at the data of a suite.")
app.add_typer(data_app, name="data")
FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Log(str, Enum):
    """Where epochs are written besides history.csv."""

    tensorboard = "tensorboard"


class Format(str, Enum):
    """How to show a leaderboard."""

    terminal = "terminal"
    md = "md"
    csv = "csv"
    html = "html"
    challenger = "challenger"


DeviceOption = Annotated[
    Device, typer.Option("--device", help="auto: CUDA where there is a device and every loss can use it.")
]


@app.command("init")
def init_suite(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="nnU-Net's raw data, or folders with images/ and masks/.")
    ],
) -> None:
    """Look at data folders and print a suite file with what was found: `init FOLDER... > my.toml`.

    Looks for labels by name, which source or domain lacks which label, sizes, spacing, hospitals and patients in names.
    Of a file that is bad it says so on standard error. The file can be checked (`data check`) and run as it is.
    """
    with _clean_errors():
        from labeldrop_bench.init import suite_for  # imports torch

        text = suite_for(folders, lambda line: typer.echo(line, err=True))
        typer.echo(text.encode(), nl=False)  # UTF-8 whatever the locale says, as TOML wants it


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="Name of a suite (see `suites`), or path of a TOML file.")],
    out: Annotated[Path | None, typer.Option("--out", help="Directory for the results. [default: runs/SUITE]")] = None,
    device: DeviceOption = Device.auto,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key: training.epochs=5, data.gap=0, seeds=[0,1] ..."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="N|auto", help="Runs side by side. auto: one per GPU, or per so many cores."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="auto|ADDRESS", help="Do the runs on a Ray cluster. auto: the one here, or new."),
    ] = None,
    log: Annotated[Log | None, typer.Option("--log", help="Also write event files, in each run's directory.")] = None,
) -> None:
    """Train, evaluate, print and write the leaderboard. The same call again goes on where it was broken off.

    Exit code: 0 if everything is done, 1 if runs failed, 2 for a mistake in the call or the suite.
    """
    with _clean_errors():
        from labeldrop_bench import leaderboard, suites
        from labeldrop_bench.errors import FailedRunsError
        from labeldrop_bench.records.config import path_part

        loaded = suites.load(suite, overrides or [])
        number = _workers(workers)
        leaderboard.check_figures(loaded.config)
        failed: FailedRunsError | None = None
        directory = out or Path("runs") / path_part(loaded.config.name)
        with _told_how_to_resume(directory):
            # after the cheap checks: these import torch and MONAI, which takes seconds
            from labeldrop_bench import sweep
            from labeldrop_bench.progress import ProgressListener
            from labeldrop_bench.run import epochs

            with ProgressListener(directory, epochs) as listener:
                try:
                    sweep.run(
                        loaded,
                        directory,
                        device=device.value,
                        listener=listener,
                        workers=number,
                        ray=ray,
                        log_tensorboard=log is Log.tensorboard,
                    )
                except FailedRunsError as error:
                    failed = error  # the others are done
        something = failed is None or any(directory.glob("runs/*/result.json"))
        if something and os.environ.get("RANK", "0") == "0":  # torchrun's number of this process
            typer.echo(leaderboard.render(leaderboard.load(directory), "terminal"))
            typer.echo(f"Written to {directory}: results.csv, leaderboard.md, .csv and .html, figures, runs/")
        if failed is not None:
            typer.echo(f"Error: {failed}", err=True)
            raise typer.Exit(FAILED)


def _workers(text: str | None) -> int | Literal["auto"] | None:
    """What `--workers` says.

    Raises:
        SuiteError: it is neither a number from 1 up nor "auto".
    """
    from labeldrop_bench.errors import SuiteError

    if text is None or text == "auto":
        return "auto" if text else None
    if not text.isdecimal() or int(text) < 1:
        raise SuiteError(f"--workers: must be a number from 1 up, or auto, got {text!r}")
    return int(text)


@app.command("leaderboard")
def show_leaderboard(
    directory: Annotated[Path, typer.Argument(help="What `run` wrote.")],
    format_: Annotated[Format, typer.Option("--format", help="How to show it.")] = Format.terminal,
) -> None:
    """Print the leaderboard of a suite's directory, finished or not."""
    with _clean_errors():
        from labeldrop_bench import leaderboard

        typer.echo(leaderboard.render(leaderboard.load(directory), format_.value))


@app.command()
def submit(
    directory: Annotated[Path, typer.Argument(help="What `run` wrote.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Directory of the leaderboard; made if need be. Without it nothing is written."),
    ] = None,
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", metavar="NAME", help="Only this strategy (again for more).")
    ] = None,
) -> None:
    """Check a finished suite's results, and merge them into a leaderboard of the same suite."""
    with _clean_errors():
        from labeldrop_bench import submit as submission

        results = submission.check(directory, strategies or ())
        typer.echo(f"{directory}: {len(results.runs)} runs of suite {results.suite.name!r}, all finished and valid")
        if to is not None:
            added = submission.merge(results, to)
            had = len(results.runs) - len(added)
            typer.echo(f"{to}: {len(added)} runs added; {had} were there with the same numbers")


@app.command()
def speed(
    device: DeviceOption = Device.auto,
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV file, or directory for speed.csv; a plot beside it.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--loss", help="Only this loss (again for more).")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Only fresh or only reused memory of the CPU: half of the time.")
    ] = None,
) -> None:
    """Time the kernels against their peers: forward and backward passes of every loss."""
    with _clean_errors():
        from labeldrop_bench.speed import main as measure

        measure(device.value, out, only or (), memory)


@app.command("suites")
def list_suites() -> None:
    """List the suites that come with the package."""
    from labeldrop_bench import suites

    configs = [suites.load(name).config for name in suites.names()]
    _lines((config.name, f"{len(config.runs())} runs", config.title) for config in configs)


@app.command("losses")
def list_losses() -> None:
    """List the losses: name, channels that the network must give, source, formula."""
    from labeldrop_bench import losses

    _registered(losses.REGISTRY, lambda info: (info.channels, info.source, info.formula))


@app.command("datasets")
def list_datasets() -> None:
    """List the data sets."""
    from labeldrop_bench import data

    _registered(data.REGISTRY, lambda info: (info.licence, info.description))


@app.command("models")
def list_models() -> None:
    """List the networks."""
    from labeldrop_bench import models, plugins

    _registered(models.REGISTRY, lambda make: (plugins.summary(make),))


@data_app.command("check")
def check_data(
    suite: Annotated[str, typer.Argument(help="Name of a suite (see `suites`), or path of a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key: data.root=/my/data ...")
    ] = None,
) -> None:
    """Load every data set of a suite and count what is there, or list all that is wrong with it (exit code 1).

    Counted are the images in which training sees each label, and those in which it can be scored.
    """
    with _clean_errors():
        from labeldrop_bench import suites

        loaded = suites.load(suite, overrides or [])
        from labeldrop_bench.data.check import check  # imports torch

        found = check((run.condition, run.data) for run in loaded.config.runs())
        typer.echo("\n".join(line for checked in found for line in checked.lines))
        if not all(checked.good for checked in found):
            raise typer.Exit(FAILED)


def _registered(registry: Registry[T], row: Callable[[T], tuple[str, ...]]) -> None:
    """One line for each name of a registry; after what cannot be used stands why, in a line of its own."""
    found = registry.all()
    broken = {name: thing for name, thing in found.items() if isinstance(thing, Exception)}
    _lines((name, *row(thing)) for name, thing in found.items() if not isinstance(thing, Exception))
    for name, error in broken.items():
        typer.echo(f"{name}  Error: {' '.join(str(error).split())}")


def _lines(rows: Iterable[tuple[str, ...]]) -> None:
    """One line for each row, in columns."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def _clean_errors() -> Iterator[None]:
    """What a person can put right is one message, without a traceback; anything else is a bug and keeps its own."""
    from labeldrop_bench.errors import UserError, storage_error
    from labeldrop_bench.leaderboard import LeaderboardError

    try:
        yield
    except (UserError, LeaderboardError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(USER_ERROR) from error
    except OSError as error:
        known = storage_error(error)
        if known is None:
            raise
        typer.echo(f"Error: {known}", err=True)
        raise typer.Exit(USER_ERROR) from error


@contextmanager
def _told_how_to_resume(directory: Path) -> Iterator[None]:
    """Ctrl-C leaves what is finished; say how to get the rest."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo(
            f"\nStopped. Finished runs are in {shlex.quote(str(directory))}; the same command does the others.",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from error
