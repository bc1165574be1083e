"""Calls the command line again and again, each time in a process of its own, after importing everything once.

Importing torch and MONAI takes seconds, which most of the calls that the tests kill would not survive. This process
imports and then forks for each call; it trains nothing itself, so that there are no threads to be lost in a fork. A
call's worker processes are started anew, as they always are.

A line of JSON on standard input is a call: {"args": [...], "stderr": path, "limit": largest file in bytes or null}. The
answers on standard output are its process id, which is also that of its group, and later its exit code.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Calls:
    """The other end: starts that process, and calls."""

    def __init__(self, directory: Path) -> None:
        import labeldrop_bench

        where = Path(labeldrop_bench.__file__).parents[1]  # the package that is being tested
        self._stderr, self._pid = directory / "stderr", 0
        self._server = subprocess.Popen(
            [sys.executable, __file__], cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(where), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def start(self, *args: str, limit: int | None = None) -> int:
        """Begin a call; its process id. One at a time."""
        assert self._server.stdin is not None
        if self._pid:  # of a test that has failed
            os.killpg(self._pid, signal.SIGKILL)
            self.wait()
        self._stderr.unlink(missing_ok=True)
        call = {"args": args, "stderr": str(self._stderr), "limit": limit}
        self._server.stdin.write(json.dumps(call) + "\n")
        self._server.stdin.flush()
        self._pid = self._number()
        return self._pid

    def wait(self) -> int:
        """The exit code of the call that was begun; minus the signal that killed it."""
        self._pid = 0
        return self._number()

    def run(self, *args: str, limit: int | None = None) -> int:
        """A call from begin to end."""
        self.start(*args, limit=limit)
        return self.wait()

    @property
    def stderr(self) -> str:
        """Of the last call."""
        return self._stderr.read_text()

    def close(self) -> None:
        """End it."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)

    def _number(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def _child(call: dict[str, Any]) -> None:
    """What a forked process does."""
    output = os.open(call["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, handle in enumerate((nothing, nothing, output)):
        os.dup2(handle, number)
    if call["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (call["limit"], resource.RLIM_INFINITY))
    from labeldrop_bench.commands import app

    app(call["args"])  # ends with SystemExit


def main() -> None:
    """Serve until standard input ends."""
    import labeldrop_bench.sweep  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            _child(json.loads(line))
        os.setpgid(pid, pid)  # also here, so that there is a group before anybody hears of it
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
