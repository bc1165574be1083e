"""A reader of files that hold one number, which leaves a trace of every call: for the tests of `data.prepare`.

A module of its own, since the processes that prepare cases import it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labeldrop_bench.data.case_file import Prepared
from labeldrop_bench.data.prepare import DataProblem


@dataclass(frozen=True)
class ReadNumber:
    """Reads "7" as an image full of 7; each call adds a file with the process id to the folder `log`."""

    log: Path

    def __call__(self, case):
        (path,) = case.inputs
        self.log.mkdir(exist_ok=True)
        calls = len(list(self.log.glob(f"{case.name}-*")))
        (self.log / f"{case.name}-{calls}").write_text(str(os.getpid()), "utf-8")
        text = path.read_text("utf-8")
        if text == "broken":
            raise RuntimeError("a mistake in the reader")
        if not text.isdigit():
            raise DataProblem(path, f"must hold a number, got {text!r}")
        image = np.full((1, 16, 16), int(text), np.uint8)
        image[0, 0, 0] = case.details.get("corner", 0)
        return Prepared(image, image[0] % 2, (True, case.name != "c1"))
