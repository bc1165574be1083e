import multiprocessing
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from number_reader import ReadNumber

from labeldrop_bench.data import case_file
from labeldrop_bench.data import prepare as module
from labeldrop_bench.data.case_file import Prepared
from labeldrop_bench.data.prepare import Case, DataProblem, assemble, prepare
from labeldrop_bench.label_space import LabelSpace

SPACE = LabelSpace.of_classes(("background", "odd"))


@pytest.fixture
def cases(tmp_path):
    """Six cases of three patients; c3 holds 3."""
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(str(i), "utf-8")
    return [Case(f"c{i}", f"p{i // 2}", 0, (tmp_path / f"{i}.txt",)) for i in range(6)]


@pytest.fixture
def run(tmp_path):
    """Prepares and tells the values read and which cases the reader was called for."""

    def call(cases, settings=None, skip_bad=False, problems=()):
        log = tmp_path / "log"
        for file in log.glob("*"):
            file.unlink()
        kept, prepared, skipped = prepare(
            cases, ReadNumber(log), name="numbers", settings=settings or {}, skip_bad=skip_bad, problems=problems
        )
        values = {case.name: int(item.image[0, 1, 1]) for case, item in zip(kept, prepared, strict=True)}
        return values, sorted(file.name.split("-")[0] for file in log.glob("*")), skipped

    return call


ALL = {f"c{i}": i for i in range(6)}


def test_second_call_reads_nothing(cases, run):
    assert run(cases) == (ALL, sorted(ALL), ())
    assert run(cases) == (ALL, [], ())


def test_what_is_kept_is_what_was_read(cases, tmp_path):
    for _ in range(2):
        _, prepared, _ = prepare(cases, ReadNumber(tmp_path / "log"), name="n", settings={}, skip_bad=False)
        assert prepared[3].image.dtype == prepared[3].labels.dtype == np.uint8
        assert prepared[3].labels.sum() == 255  # all but the corner
        assert [item.annotated for item in prepared[:2]] == [(True, True), (True, False)]


def test_a_change_prepares_only_what_it_concerns(cases, run):
    run(cases)
    (path,) = cases[2].inputs
    path.write_text("200", "utf-8")
    assert run(cases) == ({**ALL, "c2": 200}, ["c2"], ())
    os.utime(path, ns=(0, 0))  # same size, other time
    assert run(cases)[1] == ["c2"]
    before = path.stat()
    path.write_text("201")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # copied over it with its old time
    assert run(cases) == ({**ALL, "c2": 201}, ["c2"], ())
    path.write_text("200")
    run(cases)
    cases[4] = replace(cases[4], details={"corner": 9})
    assert run(cases)[1] == ["c4"]
    assert run(cases, settings={"size": 3})[1] == sorted(ALL)
    assert run(cases)[1] == []  # what was kept for the other settings is still there


def test_a_file_that_is_not_whole_is_not_taken(cases, run, cache):
    run(cases)
    files = sorted(cache.rglob("*.npy"))
    assert len(files) == 6
    for file in files[:2]:
        file.write_bytes(file.read_bytes()[:200])
    files[2].write_bytes(files[2].read_bytes() + b"more")
    files[3].write_bytes(b"something else")
    np.save(files[4].open("wb"), np.zeros(3))
    values, read, _ = run(cases)
    assert values == ALL
    assert read == [f"c{i}" for i in range(6) if f"c{i}" in read]
    assert len(read) == 5
    assert run(cases) == (ALL, [], ())


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from labeldrop_bench.data.prepare import Case
from labeldrop_bench.data import case_file, prepare as module
from number_reader import ReadNumber

case_file.np.save = lambda file, record: (file.write(b"half of it"), file.flush(), os._exit(9))
folder = Path(sys.argv[1])
cases = [Case("c0", "p0", 0, (folder / "0.txt",))]
module.prepare(cases, ReadNumber(folder / "log"), name="numbers", settings={}, skip_bad=False)
"""


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_taken(cases, run, cache, tmp_path):
    path = os.pathsep.join([str(Path(module.__file__).parents[2]), str(Path(__file__).parents[1])])
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env={**os.environ, "PYTHONPATH": path})
    assert killed.returncode == 9
    assert len(list(cache.rglob("*.part"))) == 1
    assert run(cases) == (ALL, sorted(ALL), ())


def test_all_problems_are_listed_at_once(cases, run, tmp_path):
    cases[1].inputs[0].write_text("one", "utf-8")
    cases[5].inputs[0].unlink()
    listed = [DataProblem(tmp_path / "list.csv", "patient p9 has no folder")]
    with pytest.raises(ValueError, match=r"numbers: 3 problem\(s\)") as error:
        run(cases, problems=listed)
    lines = str(error.value).splitlines()
    assert lines[1] == f"  {tmp_path / '1.txt'}: must hold a number, got 'one'"
    assert lines[2] == f"  {tmp_path / '5.txt'}: cannot be found (No such file or directory); put the file back"
    assert lines[3] == f"  {tmp_path / 'list.csv'}: patient p9 has no folder"
    assert "skip_bad" in lines[4]


def test_skip_bad_counts_and_warns(cases, run):
    cases[1].inputs[0].write_text("one", "utf-8")
    with pytest.warns(UserWarning, match=r"numbers: 1 problem\(s\)"):
        values, _, skipped = run(cases, skip_bad=True)
    assert values == {name: value for name, value in ALL.items() if name != "c1"}
    assert skipped == (f"{cases[1].inputs[0]}: must hold a number, got 'one'",)
    cases[1].inputs[0].write_text("1", "utf-8")  # put right
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(cases, skip_bad=True) == (ALL, ["c1"], ())


def test_several_processes_give_the_same_as_one(cases, run, monkeypatch, cache, tmp_path):
    cases[1].inputs[0].write_text("one", "utf-8")
    with pytest.warns(UserWarning, match="problem"):
        alone = run(cases, skip_bad=True)
    for file in cache.rglob("*.npy"):
        file.unlink()
    monkeypatch.setattr(module, "_processes", lambda todo: 2)
    monkeypatch.setattr(module, "_ALONE", 0.0)
    with pytest.warns(UserWarning, match="problem"):
        assert run(cases, skip_bad=True) == alone
    assert str(os.getpid()) not in {file.read_text("utf-8") for file in (tmp_path / "log").iterdir()}


def test_whatever_a_reader_raises_is_one_problem_of_its_case(cases, run):
    """Libraries raise errors of every kind on broken files; the others of the data set are read all the same."""
    cases[1].inputs[0].write_text("broken", "utf-8")
    line = rf"{cases[1].inputs[0]}: cannot be prepared \(RuntimeError: a mistake in the reader; number_reader.py, line "
    with pytest.raises(ValueError, match=rf"1 problem\(s\):\n  {line}"):
        run(cases)
    with pytest.warns(UserWarning, match="1 problem"):
        values, _, skipped = run(cases, skip_bad=True)
    assert values == {name: value for name, value in ALL.items() if name != "c1"}
    assert re.match(line, skipped[0])


def test_how_many_processes(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(4), raising=False)
    assert [module._processes(todo) for todo in (1, 3, 1000)] == [1, 3, 4]
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert module._processes(1000) == 1


def test_a_cache_that_cannot_be_written(cases, run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot be kept in .*LABELDROP_CACHE"):
        run(cases)


def test_assemble(cases, tmp_path):
    kept, prepared, _ = prepare(cases, ReadNumber(tmp_path / "log"), name="n", settings={}, skip_bad=False)
    parts = {"p0": 2, "p1": 0, "p2": 1}
    dataset = assemble(SPACE, ("all",), kept, prepared, parts, ("a line",))
    assert dataset.train.cases == ("c2", "c3")
    assert dataset.validation.patients == ("p2", "p2")
    assert dataset.test.annotated.tolist() == [[True, True], [True, False]]
    assert dataset.test.known.tolist() == [[True, True], [True, False]]
    assert torch.equal(dataset.train.target[1], torch.from_numpy(prepared[3].labels.copy()))
    assert dataset.train.images[:].std(correction=0) == pytest.approx(1, abs=1e-5)
    assert dataset.skipped == ("a line",)
    with pytest.raises(ValueError, match="the test split has no case: 6"):
        assemble(SPACE, ("all",), kept, prepared, {**parts, "p0": 1})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": np.zeros((1, 4, 4))}, TypeError, "got float64 and uint8"),
        ({"labels": np.zeros((4, 5), np.uint8)}, ValueError, r"must have the image's shape \(4, 4\), got \(4, 5\)"),
        ({"annotated": (False, True)}, ValueError, "must begin with True"),
    ],
)
def test_prepared_errors(change, error, message):
    good = {"image": np.zeros((1, 4, 4), np.uint8), "labels": np.zeros((4, 4), np.uint8), "annotated": (True,)}
    with pytest.raises(error, match=message):
        Prepared(**{**good, **change})


def test_a_disk_that_is_full_leaves_no_half_a_file(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(case_file.np, "save", full)
    item = Prepared(np.zeros((1, 16, 16), np.uint8), np.zeros((16, 16), np.uint8), (True, True))
    with pytest.raises(OSError, match=r"cannot be kept .*make room"):
        module._keep(tmp_path / "kept" / "one.npy", item)
    assert list((tmp_path / "kept").iterdir()) == []


def test_the_home_directory_is_expanded(cases, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(module.CACHE_VARIABLE, "~/kept")
    run(cases)
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 6


def test_spacing_is_kept_and_handed_on(cases, tmp_path):
    item = Prepared(np.zeros((1, 16, 16), np.uint8), np.zeros((16, 16), np.uint8), (True, True), (0.5, 0.25))
    for name, spacing in (("one", item.spacing), ("two", None)):
        case_file.keep(tmp_path / name, replace(item, spacing=spacing))
        assert case_file.kept(tmp_path / name).spacing == spacing
    known, unknown = (case_file.kept(tmp_path / name) for name in ("one", "two"))
    parts = {"p0": 0, "p1": 1, "p2": 2}
    spacing = assemble(SPACE, ("all",), cases, [known, unknown, *[known] * 4], parts).train.spacing
    assert spacing[0].tolist() == [0.5, 0.25]
    assert spacing[1].isnan().all()
    with pytest.raises(ValueError, match=r"positive number for each of 2 axes, got \(1.0, 0.0\)"):
        replace(item, spacing=(1.0, 0.0))


def test_a_header_that_names_no_file_is_its_cases_problem(tmp_path):
    (tmp_path / "a.mhd").write_bytes(b"ElementDataFile = a\0b.raw\n")
    broken = [Case("a", "a", 0, (tmp_path / "a.mhd",))]
    with pytest.raises(ValueError, match=r"a.mhd: names a file that cannot be \(embedded null byte\)"):
        prepare(broken, ReadNumber(tmp_path / "log"), name="n", settings={}, skip_bad=False)
