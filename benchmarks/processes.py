"""Child processes with a time limit; a child takes its own children with it when it is stopped."""

import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Done:
    """What a process left: exit code, output and errors in one, whether it was stopped."""

    code: int
    output: str
    timed_out: bool


def execute(command, variables, seconds):
    """Run a command in the repository; its output goes to a file, so that a process that is stopped leaves it."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = _start(command, variables, stdout=output, stderr=subprocess.STDOUT)
        timed_out = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _stop(process)
        output.seek(0)
        return Done(process.returncode, output.read(), timed_out)


class Worker:
    """A process that prints messages, one line of JSON each; a context manager."""

    def __init__(self, command, variables, seconds):
        self.command, self.variables, self.seconds = command, variables, seconds
        self.said_error, self.errors, self.code = False, "", None

    def __enter__(self):
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = _start(self.command, self.variables, stdout=subprocess.PIPE, stderr=self._stderr, text=True)
        self._timer = threading.Timer(max(self.seconds, 0), _stop, [self._process])
        self._timer.start()
        return self

    def messages(self):
        """Each message as it comes; other lines, which some library printed, are passed over."""
        for line in self._process.stdout:
            if line.startswith("{"):
                message = json.loads(line)
                self.said_error |= "error" in message
                yield message

    def __exit__(self, *_):
        self._timer.cancel()
        self._process.stdout.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        _stop(self._process)
        self.code = self._process.returncode
        self._stderr.seek(0)
        self.errors = self._stderr.read()
        self._stderr.close()


def _start(command, variables, **options):
    return subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=True, **options)


def _stop(process):
    """End a process and everything that it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
