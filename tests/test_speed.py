"""The measuring itself: what the peers compute, what is compiled, and that numbers mean what they say."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import labeldrop_bench as lb
from labeldrop_bench import speed
from labeldrop_bench.commands import app
from labeldrop_bench.speed import Problem, peers, table, timing
from labeldrop_bench.speed.peers import check_backward_is_compiled, stock
from labeldrop_bench.speed.problem import COMPOUNDS, LAYOUTS, ORDINARY

CPU = torch.device("cpu")
ROOT = Path(lb.__file__).parents[1]  # where processes started here find the package that is being tested
NAMES = lb.losses.names()
needs_mallopt = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a C library without mallopt")
needs_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's own count")


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("loss", ORDINARY)
def test_stock_losses_compute_the_same(loss: str, num_classes: int) -> None:
    """In float64, where no order of operations can hide a difference of definition."""
    problem = Problem(loss, num_classes, (3, 6, 7), torch.float64)
    logits, target, annotated = problem.tensors(CPU)
    assert annotated.all()
    results = [problem.create("reference")(logits, target, annotated)]
    results += [make(problem)(logits, target.long()) for make in stock(problem).values()]
    assert len(results) == 2
    gradients = [torch.autograd.grad(value, logits)[0] for value in results]
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("integer", [torch.uint8, torch.int64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", NAMES)
def test_bytes_are_those_of_the_tensors(loss: str, layout: str, integer: torch.dtype) -> None:
    problem = Problem(loss, 5, (2, 4, 3), torch.bfloat16, layout, integer=integer)
    logits, target, _ = problem.tensors(CPU)
    assert target.dtype == integer
    assert ("int64 target" in problem.special) == (integer == torch.int64)
    assert logits.shape == (2, problem.create().out_channels, 4, 3)
    assert (logits.stride(1) == 1) == (layout == "channels_last")
    assert problem.compulsory_bytes == 2 * logits.nbytes + target.nbytes


def test_every_loss_is_measured_once_beside_everything() -> None:
    measurements = speed.default_measurements()
    assert len({problem.label for problem, _ in measurements}) == len(measurements)
    plain = [p.loss for p, names in measurements if names is None and not p.options]
    compounds = [c for c in COMPOUNDS if set(c.split("+")) <= set(NAMES)]
    assert plain == [*NAMES, *compounds]
    for problem, names in measurements:
        assert names is None or set(peers(problem, CPU)) & set(names) >= {"fused", "copy"}


@pytest.mark.parametrize(("num_classes", "shape"), [(4, (3, 256, 256)), (14, (1, 96, 96, 96)), (5, (2, 500))])
def test_blobs_are_like_labels_of_people(num_classes: int, shape: tuple[int, ...]) -> None:
    """Every label is there, two thirds are background, and most pixels have neighbours of their own label."""
    _, blobs, _ = Problem("ce", num_classes, shape).tensors(CPU)
    _, scattered, _ = Problem("ce", num_classes, shape, labels="scattered").tensors(CPU)
    assert len(blobs.unique()) == len(scattered.unique()) == num_classes
    assert (blobs == 0).float().mean() == pytest.approx(2 / 3, abs=0.01)
    for target, low, high in ((blobs, 0.05, 0.5), (scattered, 0.97, 1.0)):
        groups = target[..., : target.shape[-1] // 8 * 8].reshape(-1, 8)
        assert low <= (groups != groups[:, :1]).any(dim=1).float().mean() <= high


def test_an_upstream_gradient_reaches_every_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float | None] = []

    def grad(value: torch.Tensor, logits: torch.Tensor, upstream: torch.Tensor | None) -> None:
        seen.append(None if upstream is None else float(upstream))

    for factor in (1.0, 0.5):
        problem = Problem("ce", 3, (1, 8, 8), upstream=factor)
        steps = {name: make() for name, make in peers(problem, CPU).items() if name not in ("copy", "compile")}
        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", grad)
            for step in steps.values():
                step()
    assert seen == [None] * 3 + [0.5] * 3


def test_the_compiled_peer_is_compiled_forward_and_backward() -> None:
    problem = Problem("marginal_ce", 3, (1, 4, 4))
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    peers(problem, CPU)["compile"]()()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1


def test_a_backward_pass_that_is_not_compiled_is_refused() -> None:
    logits, target, annotated = Problem("marginal_ce", 3, (1, 4, 4)).tensors(CPU)
    loss = lb.losses.create("marginal_ce", num_classes=3, backend="reference")
    eager = loss(logits, target, annotated)
    partly = torch.compile(loss, fullgraph=True)(logits * 2, target, annotated) * 3
    for value in (eager, partly):
        with pytest.raises(RuntimeError, match="not one compiled graph"):
            check_backward_is_compiled(value, logits)


def _alone(code: str) -> list[str]:
    """What a process of its own prints: the state of memory belongs to a process."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


FAULTS = """
import ctypes
import resource
import statistics
import torch
from labeldrop_bench.speed import set_memory_state, settle

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    source.clone()
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def empty_lists_of_small_blocks():  # the state in which most rounds are needed, see settle
    library = ctypes.CDLL(None)
    for size in range(24, 200, 16):
        for _ in range(32):
            library.malloc(size)

source = torch.ones(4 << 20)  # 16 MiB, 4096 pages of 4 KiB
for state in ("fresh", "reused"):
    found = []
    set_memory_state(state)
    empty_lists_of_small_blocks()
    assert settle([faults])
    rounds = len(found)
    for _ in range(9):
        faults()
    print(rounds, statistics.median(found[rounds:]))
"""


@needs_mallopt
def test_fresh_memory_faults_and_reused_memory_does_not() -> None:
    no_rounds, fresh, rounds, reused = map(float, _alone(FAULTS))
    assert fresh >= 8  # huge pages of 2 MiB, where the system uses them; else 4096
    assert reused == 0
    assert no_rounds == 0
    assert rounds <= 5  # 2 or 3, and most often 9 if the lists are left as they are


@needs_mallopt
def test_memory_that_does_not_settle_is_a_note() -> None:
    code = """
import torch
from labeldrop_bench.speed import set_memory_state, time_peers

set_memory_state("reused")
kept = []
timings = time_peers({"fused": lambda: lambda: kept.append(torch.ones(1 << 20))}, torch.device("cpu"))
print(timings["fused"].rounds, timings["fused"].note)
"""
    rounds, *note = _alone(code)
    assert int(rounds) in (timing.ROUNDS, timing.MANY_ROUNDS)  # as long as the machine took for a step
    assert " ".join(note) == timing.UNSETTLED


@needs_mallopt
def test_fresh_does_not_follow_reused() -> None:
    code = "from labeldrop_bench.speed import set_memory_state as s; s('reused')\ntry: s('fresh')\n"
    assert "start" in _alone(code + "except RuntimeError as error: print(error)")


@needs_mallopt
@needs_linux
def test_peak_memory_is_that_of_the_tensors() -> None:
    code = """
import torch
from labeldrop_bench.speed import peak_bytes, set_memory_state

set_memory_state("fresh")
source = torch.ones(4 << 20)  # 16 MiB
source.clone() + source.clone()
for step in (lambda: source.clone(), lambda: source.clone() + source.clone()):
    print(peak_bytes(step, source.device))
"""
    one, three = (int(size) / (1 << 20) for size in _alone(code))
    # 2 MiB: a huge page that is touched in part, and the counters' own grain
    assert one == pytest.approx(16, abs=2)
    assert three == pytest.approx(48, abs=6)


def test_rows_relate_time_to_bytes() -> None:
    problem = Problem("ce", 4, (1, 16, 16))
    rows = {row.peer: row for row in speed.measure(problem, CPU, "fresh", ("fused", "copy", "F.cross_entropy"), 0.05)}
    fused, copy, other = rows["fused"], rows["copy"], rows["F.cross_entropy"]
    assert fused.bytes == problem.compulsory_bytes == 16 * 16 * (2 * 4 * 4 + 1)
    assert fused.gigabytes_per_second == pytest.approx(fused.bytes / fused.milliseconds / 1e6)
    assert copy.gigabytes_per_second == pytest.approx(2 * problem.logits_bytes / copy.milliseconds / 1e6)
    assert fused.share_of_copy == pytest.approx(fused.gigabytes_per_second / copy.gigabytes_per_second)
    assert copy.share_of_copy == fused.ratio == 1
    assert other.ratio == pytest.approx(other.milliseconds / fused.milliseconds)


def test_a_peer_that_fails_is_a_note_and_the_fused_loss_is_an_error() -> None:
    def fail() -> timing.Step:
        raise MemoryError("no room\nat all")

    timings = timing.time_peers({"fused": lambda: lambda: None, "eager": fail}, CPU)
    assert timings["eager"].note == "MemoryError: no room"
    assert timings["eager"].seconds is None
    with pytest.raises(MemoryError):
        timing.time_peers({"fused": fail}, CPU)


class Clock:
    """A clock that only its steps move, and how often each of them was called."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, dict[str, int]()

    def perf_counter(self) -> float:
        return self.now

    def maker(self, name: str, seconds: float) -> Callable[[], timing.Step]:
        """Makes a step that takes so long."""
        self.calls[name] = 0

        def step() -> None:
            self.now += seconds
            self.calls[name] += 1

        return lambda: step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(timing, "time", found)
    return found


def test_a_short_step_has_many_rounds_beside_a_long_one(clock: Clock) -> None:
    found = timing.time_peers({"fused": clock.maker("fused", 0.0001), "copy": clock.maker("copy", 0.004)}, CPU)
    assert clock.calls == {"fused": 2 + timing.MANY_ROUNDS, "copy": 2 + timing.ROUNDS}
    assert (found["fused"].rounds, found["copy"].rounds) == (timing.MANY_ROUNDS, timing.ROUNDS)


def test_a_slow_peer_is_called_no_more_often_than_its_budget_allows(clock: Clock) -> None:
    seconds = {"fused": 0.01, "eager": 3.0, "compile": 0.6}
    timings = timing.time_peers({name: clock.maker(name, each) for name, each in seconds.items()}, CPU, budget=2.0)
    # two calls to warm up, or one of what is slow; then rounds
    assert clock.calls == {"fused": 2 + timing.ROUNDS, "eager": 1, "compile": 1 + 3}
    assert {name: found.rounds for name, found in timings.items()} == {"fused": timing.ROUNDS, "eager": 1, "compile": 3}
    for name, found in timings.items():
        assert found.seconds == pytest.approx(seconds[name])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two problems of a moment, and a process whose memory stays as it is."""
    problems = (Problem("ce", 3, (1, 8, 8)), Problem("marginal_ce", 3, (1, 8, 8), layout="channels_last"))
    monkeypatch.setattr(table, "default_measurements", lambda: [(problem, None) for problem in problems])
    monkeypatch.setattr(table, "set_memory_state", lambda state: None)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("out", ["folder", "file.csv"])
def test_speed_prints_and_writes(out: str, tmp_path: Path) -> None:
    import pandas as pd

    result = CliRunner().invoke(app, ["speed", "--device", "cpu", "--loss", "ce", "--out", str(tmp_path / out)])
    assert result.exit_code == 0, result.output
    assert "of copy" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if "Written" not in line) <= 120
    path = tmp_path / out if out.endswith(".csv") else tmp_path / out / "speed.csv"
    rows = pd.read_csv(path)
    assert set(rows["peer"]) == {"fused", "copy", "eager", "compile", "F.cross_entropy"}
    assert set(rows["loss"]) == {"ce"}
    assert rows["milliseconds"].notna().all()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@needs_mallopt
@pytest.mark.usefixtures("small")
def test_speed_of_one_state_of_memory() -> None:
    result = CliRunner().invoke(app, ["speed", "--device", "cpu", "--loss", "ce", "--memory", "reused"])
    assert result.exit_code == 0, result.output
    assert "reused memory\n" in result.stdout
    assert "fresh memory\n" not in result.stdout


@pytest.mark.usefixtures("small")
def test_speed_keeps_what_it_has_when_a_loss_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Problem.create

    def fail(self: Problem, backend: str = "fused") -> torch.nn.Module:
        if self.loss == "ce" and backend == "fused":
            raise RuntimeError("no kernel")
        return create(self, backend)

    monkeypatch.setattr(Problem, "create", fail)
    result = CliRunner().invoke(app, ["speed", "--device", "cpu"])
    assert "marginal_ce" in result.stdout
    assert "ce-K3-1x8x8" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "cee"], "no measured loss"),
        (["--device", "cuda"], "no CUDA"),
        (["--device", "cpu", "--memory", "warm"], "got 'warm'"),
    ],
)
def test_speed_refuses_in_one_line(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["speed", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
