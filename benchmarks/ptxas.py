"""What ptxas says about each kernel: registers and spills. Exit code 1 if a kernel spills that may not.

Usage: python benchmarks/ptxas.py LOG, the output of a build with `-Xptxas -v`.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Kernels that may spill: a regular expression that is found in the demangled name, and the reason. Anything else that
# spills moves registers through memory in a loop whose only cost should be that of the logits.
MAY_SPILL: dict[str, str] = {
    r"set_cross_entropy_kernel<.*(RowPath<.*, 16, 4>|TilePath<.*, (16, 9, 4|32, 17, 2)>)": (
        "4 to 36 bytes on some architectures, once for 4 pixels of 16 classes or 2 of 32; with fewer pixels a thread "
        "bfloat16 is estimated a fifth slower"
    ),
}

COMPILING = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\S+)")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass
class Kernel:
    """One compiled function for one architecture; sizes in bytes for each thread."""

    name: str
    architecture: str
    registers: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0

    @property
    def spills(self) -> bool:
        """Whether registers go through memory."""
        return self.spill_stores + self.spill_loads > 0

    @property
    def excuse(self) -> str | None:
        """The reason why this kernel may spill, if there is one."""
        return next((reason for pattern, reason in MAY_SPILL.items() if re.search(pattern, self.name)), None)


def kernels(log: str) -> list[Kernel]:
    """Every function that a log tells of, with readable names where c++filt is installed."""
    found: list[Kernel] = []
    architecture = "?"
    for line in log.splitlines():
        if match := COMPILING.search(line):
            architecture = match[2]
        elif match := PROPERTIES.search(line):
            found.append(Kernel(match[1], architecture))
        elif found and (match := SPILLS.search(line)):
            found[-1].stack, found[-1].spill_stores, found[-1].spill_loads = map(int, match.groups())
        elif found and (match := REGISTERS.search(line)):
            found[-1].registers = int(match[1])
    for kernel, name in zip(found, _demangled([kernel.name for kernel in found]), strict=True):
        kernel.name = name
    return found


def _demangled(names: list[str]) -> list[str]:
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None or not names:
        return names
    done = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def main(path: Path) -> int:
    found = kernels(path.read_text(encoding="utf-8"))
    if not found:
        print(f"{path}: no kernel in this log; was it built anew, with -Xptxas -v?")
        return 1
    spilling = [kernel for kernel in found if kernel.spills]
    for kernel in spilling:
        verdict = f"allowed: {kernel.excuse}" if kernel.excuse else "NOT ALLOWED"
        print(
            f"{kernel.architecture} {kernel.name}: {kernel.registers} registers, {kernel.spill_stores} bytes of spill "
            f"stores, {kernel.spill_loads} of spill loads; {verdict}"
        )
    most = max(found, key=lambda kernel: kernel.registers)
    print(f"{len(found)} kernels, {len(spilling)} spill; most registers: {most.registers} in {most.name}")
    return int(any(kernel.excuse is None for kernel in spilling))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
