"""From files to arrays: read once by several processes, kept on disk, and every bad file named.

A loader lists its cases and hands them to `prepare` with a function that reads one of them. Each case is kept in a file
of its own in the folder that the environment variable LABELDROP_CACHE names (default: the user's cache folder), under a
name that is a SHA-256 of all that the result depends on: data set, settings, the case, and path, size and times of
change of its files and of those beside them that hold their voxels. Of the two times, the system's own (ctime) also
tells what was copied with its old time of change. So a second call reads nothing again, a changed
file or setting prepares only what it concerns, and a killed process loses only the cases it was at. The folder may be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from math import nan
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labeldrop_bench.data._beside import side_files
from labeldrop_bench.data.arrays import Images, LabelMaps
from labeldrop_bench.data.base import Dataset, Samples, make_samples, user_path
from labeldrop_bench.data.case_file import InFiles, Kept, Prepared, keep, kept
from labeldrop_bench.label_space import LabelSpace

CACHE_VARIABLE = "LABELDROP_CACHE"
"""Environment variable: the folder that prepared cases are kept in."""
_FORMAT = 4  # of the files in the cache; a change of it prepares everything again
_ALONE = 3.0  # seconds of reading in this process before it starts others, which takes them about as long


class DataProblem(Exception):  # noqa: N818 - not an error of the program: one line of a list that the user gets
    """One thing wrong with one case.

    Args:
        path: the file, or the place in it ("labels.csv, line 7").
        text: what is wrong, and what to do.
    """

    def __init__(self, path: Path | str, text: str) -> None:
        super().__init__(str(path), text)  # both, so that it comes whole out of another process

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


@dataclass(frozen=True)
class Case:
    """What becomes one sample.

    Attributes:
        name: unlike that of any other case of the data set.
        patient: whose it is.
        domain: index of its domain.
        inputs: the files that it is read from; it is prepared again when one of them changes.
        details: anything else that its reader needs to know; what `json.dumps` takes.
    """

    name: str
    patient: str
    domain: int
    inputs: tuple[Path, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


Read = Callable[[Case], Prepared]


def prepare(
    cases: Sequence[Case],
    read: Read,
    *,
    name: str,
    settings: Mapping[str, Any],
    skip_bad: bool,
    problems: Sequence[DataProblem] = (),
    not_taken: Sequence[str] = (),
) -> tuple[list[Case], list[Kept], tuple[str, ...]]:
    """Reads what is not in the cache yet, by several processes if it is much. Pixels stay there until asked for.

    Args:
        cases: what to read.
        read: reads a case, or raises DataProblem; any other exception is a problem of the case too. Its result may
            depend on the case and on `settings`, on nothing else. Processes other than this one call it too, so it is
            a function of a module, a `functools.partial` of one, or a frozen dataclass with `__call__`.
        name: of the data set.
        settings: what the samples depend on besides the case; what `json.dumps` takes.
        skip_bad: leave out cases with problems, with a warning, instead of raising an error.
        problems: what the loader found wrong while it listed the cases.
        not_taken: lines on files that are no case's, with the reason: a warning, no error.

    Returns:
        The cases that could be read, in the order given; what is kept of them; and a line for each problem and each of
        `not_taken`.

    Raises:
        ValueError: bad data without `skip_bad`; all of it is listed.
        OSError: the cache cannot be written, or not read again.
        RuntimeError: a process that was to read cases ended before its time.
    """
    found = [str(problem) for problem in problems]
    files: dict[str, Path] = {}
    for case in cases:
        try:
            files[case.name] = _folder() / name / f"{_key(case, name, settings)}.npy"
        except DataProblem as problem:  # noqa: PERF203 - all problems are listed at once
            found.append(str(problem))
    listed = [case for case in cases if case.name in files]
    result = {case.name: there for case in listed if (there := kept(files[case.name]))}
    todo = [case for case in listed if case.name not in result]
    for case, line in _read_all(todo, read, files, name):
        if line is not None:
            found.append(line)
        elif there := kept(files[case.name]):
            result[case.name] = there
        else:
            raise OSError(f"{name}: {files[case.name]} was written just now and cannot be read; is the disk all right?")
    _report(name, sorted(found), not_taken, skip_bad)
    good = [case for case in listed if case.name in result]
    return good, [result[case.name] for case in good], (*sorted(found), *not_taken)


def assemble(
    space: LabelSpace,
    domains: Sequence[str],
    cases: Sequence[Case],
    prepared: Sequence[Kept],
    part_of: Mapping[str, int],
    skipped: tuple[str, ...] = (),
) -> Dataset:
    """The data set, everything in it as its owners annotated it. Its pixels stay where they are until asked for.

    Args:
        space: what label values mean.
        domains: names; `Case.domain` indexes them.
        cases: what the samples are called.
        prepared: the samples, all of the same size.
        part_of: patient -> 0 (training), 1 (validation) or 2 (test).
        skipped: lines on what was left out.
    """

    def part(number: int) -> Samples:
        chosen = [(case, item) for case, item in zip(cases, prepared, strict=True) if part_of[case.patient] == number]
        if not chosen:
            split = ("training", "validation", "test")[number]
            raise ValueError(
                f"the {split} split has no case: {len(cases)} case(s) of {len({c.patient for c in cases})} patient(s) "
                f"could be read in all, {len(skipped)} problem(s) left out"
            )
        items = tuple(item for _, item in chosen)
        if len({item.shape for item in items}) > 1:
            raise ValueError(f"all images must have one shape, got {sorted({item.shape for item in items})}")
        return make_samples(
            space,
            Images.stored(
                InFiles.images(items),
                torch.from_numpy(np.stack([item.scaling for item in items])),
                torch.from_numpy(np.stack([item.pooled for item in items])),
            ),
            LabelMaps.stored(InFiles.labels(items), torch.from_numpy(np.stack([item.counts for item in items]))),
            torch.tensor([item.annotated for item in items]),
            torch.tensor([case.domain for case, _ in chosen]),
            [case.name for case, _ in chosen],
            [case.patient for case, _ in chosen],
            torch.tensor([item.spacing or (nan,) * (len(item.shape) - 1) for item in items], dtype=torch.float64),
        )

    return Dataset(space, tuple(domains), part(0), part(1), part(2), skipped)


def _folder() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return user_path(named)
    from platformdirs import user_cache_path

    return user_cache_path("labeldrop_bench")


def _key(case: Case, name: str, settings: Mapping[str, Any]) -> str:
    """Changes with everything that the prepared case depends on."""
    inputs = []
    for path in (file for given in case.inputs for file in (given, *side_files(given))):
        try:
            found = path.stat()
        except OSError as error:
            raise DataProblem(path, f"cannot be found ({error.strerror}); put the file back") from error
        except ValueError as error:  # a broken header names a file that cannot be
            raise DataProblem(case.inputs[0], f"names a file that cannot be ({error}): {path!r}") from error
        inputs.append((str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    what = {"format": _FORMAT, "name": name, "settings": settings, "case": {**asdict(case), "inputs": inputs}}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _keep(file: Path, prepared: Prepared) -> None:
    try:
        keep(file, prepared)
    except OSError as error:
        raise OSError(
            error.errno,
            f"prepared cases cannot be kept in {file.parent} ({error.strerror}): make room there, or set "
            f"{CACHE_VARIABLE} to a folder that can be written",
        ) from error


def _read_one(case: Case, read: Read, file: Path) -> str | None:
    """Reads a case into the cache; the problem, if there is one."""
    try:
        prepared = read(case)
    except DataProblem as problem:
        return str(problem)
    except Exception as error:  # whatever files make a library do, it is their case's problem and no other's
        files = ", ".join(map(str, case.inputs)) or case.name
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return str(DataProblem(files, f"cannot be prepared ({type(error).__name__}: {error}; {where}); mend the files"))
    _keep(file, prepared)
    return None


def _read_all(
    todo: Sequence[Case], read: Read, files: Mapping[str, Path], name: str
) -> Iterator[tuple[Case, str | None]]:
    """Reads cases into the cache; gives each case, in any order, with its problem."""
    if not todo:
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    console.print(
        f"{name}: preparing {len(todo)} cases, once; kept in {_folder()}", markup=False, highlight=False, soft_wrap=True
    )
    yield from track(
        _share_out(todo, read, files),
        description=name,
        total=len(todo),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _share_out(todo: Sequence[Case], read: Read, files: Mapping[str, Path]) -> Iterator[tuple[Case, str | None]]:
    """Reads here what takes no longer than the start of other processes, the rest in these."""
    started = time.monotonic()
    for place, case in enumerate(todo):
        number = _processes(len(todo) - place)
        if number > 1 and time.monotonic() - started > _ALONE:
            yield from _side_by_side(todo[place:], read, files, number)
            return
        yield case, _read_one(case, read, files[case.name])


def _processes(todo: int) -> int:
    """How many processes may read. One that ends with its parent must not start others itself."""
    if multiprocessing.current_process().daemon:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, todo)


def _side_by_side(
    todo: Sequence[Case], read: Read, files: Mapping[str, Path], number: int
) -> Iterator[tuple[Case, str | None]]:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    executor = ProcessPoolExecutor(number, mp_context=context, initializer=_start_worker)
    try:
        case_of = {executor.submit(_read_one, case, read, files[case.name]): case for case in todo}
        for future in as_completed(case_of):
            yield case_of[future], future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that prepared cases ended before its time. Memory may have run out; a script that loads data "
            "needs the guard `if __name__ == '__main__':`. What was prepared is kept: call again to do the rest"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent would leave workers that wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _report(name: str, problems: Sequence[str], not_taken: Sequence[str], skip_bad: bool) -> None:
    if problems and not skip_bad:
        listed = "\n  ".join([f"{name}: {len(problems)} problem(s):", *problems, *not_taken])
        raise ValueError(f"{listed}\nskip_bad = true leaves out what these concern")
    if problems:
        warnings.warn(f"{name}: {len(problems)} problem(s), and what they concern was left out", stacklevel=3)
    if not_taken:
        warnings.warn("\n  ".join([f"{name}: files that were not taken:", *not_taken]), stacklevel=3)
