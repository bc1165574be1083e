"""How many trainings an hour one device does with 1, 2, 4 and 8 processes side by side.

    python -m benchmarks.trainings_per_hour --device cuda --out DIR

Each number of processes gets a sweep of its own over seeds of one strategy, in a new directory, by `sweep.run` with
`workers`. Counted is from the first run's beginning to the last one's end, so without the seconds in which processes
start. All processes get as many runs each, so that none waits for another at the end. Prints a table and writes
DIR/trainings_per_hour.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from tabulate import tabulate

from labeldrop_bench import suites, sweep
from labeldrop_bench.environment import describe
from labeldrop_bench.errors import FailedRunsError
from labeldrop_bench.suites import Suite
from labeldrop_bench.sweep.jobs import Job, make_fabric

PROCESSES = (1, 2, 4, 8)


class Watch:
    """A listener of a sweep that takes the time."""

    def __init__(self):
        self.notes, self.workers, self.began, self.ended = [], set(), None, None

    def note(self, text):
        """Keep it: it says why there are fewer workers than asked for."""
        self.notes.append(text)
        print(text, flush=True)

    def begin(self, todo, done):
        """Processes only start now."""

    def started(self, config, worker):
        """Start with the first run."""
        self.began = self.began or time.perf_counter()
        self.workers.add(worker)

    def epoch(self, config, epoch):
        """Runs are what counts."""

    def finished(self, config, result):
        """Stop with the last run."""
        self.ended = time.perf_counter()

    def failed(self, config, failure):
        """Show why there will be no number."""
        print(f"{failure.run}: {failure.message}\n{failure.traceback}", file=sys.stderr, flush=True)


def seeds_of_one_strategy(suite, strategy, runs):
    """The suite with so many seeds of one strategy."""
    chosen = [s for s in suite.config.strategies if s.name == strategy]
    if not chosen:
        known = ", ".join(s.name for s in suite.config.strategies)
        raise SystemExit(f"--strategy: {suite.source} has no strategy {strategy!r}; it has: {known}")
    changes = {"strategies": tuple(chosen), "seeds": tuple(range(runs)), "figures": (), "conditions": ()}
    return Suite(suite.source, suite.config.model_copy(update=changes))


def measure(suite, processes, device):
    """One sweep.

    Returns:
        The record: processes asked for and used, runs, seconds, trainings per hour, what limited them.
    """
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        sweep.run(suite, Path(folder), device=device, listener=watch, workers=processes)
    seconds = watch.ended - watch.began
    runs = len(suite.config.seeds)
    return {
        "processes": processes,
        "used": len(watch.workers),
        "runs": runs,
        "seconds": round(seconds, 2),
        "per_hour": round(3600 * runs / seconds, 1),
        "notes": watch.notes,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for trainings_per_hour.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--suite", default="quick", help="name or path")
    parser.add_argument("--strategy", default="adaptive", help="the one that is trained")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the suite")
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES, help="numbers to try")
    parser.add_argument("--runs", type=int, default=2, help="of each process")
    options = parser.parse_args()
    loaded = suites.load(options.suite, ["training.threads=1", *options.set])
    rows = []
    for processes in options.processes:
        suite = seeds_of_one_strategy(loaded, options.strategy, processes * options.runs)
        try:
            rows.append(measure(suite, processes, options.device))
        except FailedRunsError as error:
            print(f"{processes} processes: {error}", file=sys.stderr, flush=True)
            return 1
        print(f"{processes} processes: {rows[-1]['per_hour']} trainings per hour", flush=True)
    fabric = make_fabric(Job(loaded, options.device, "32-true", torch.get_num_threads()))
    environment = {k: v for k, v in describe(fabric).items() if k not in ("precision", "threads", "processes")}
    report = {"environment": environment, "suite": options.suite, "strategy": options.strategy, "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "trainings_per_hour.json").write_text(json.dumps(report, indent=1) + "\n")
    shown = [{**row, "against one": f"{row['per_hour'] / rows[0]['per_hour']:.2f} x"} for row in rows]
    columns = ("processes", "used", "runs", "seconds", "per_hour", "against one")
    print(tabulate([[row[c] for c in columns] for row in shown], columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
