"""What the CUDA kernels' machine code says of their speed, without a GPU: an estimate.

    python -m benchmarks.machine_code [--architecture 90|all ...] [--objects DIR] [--loss NAME ... | --write | --check]

The emulated device of the tests says which kernel a loss launches, and with which arguments; a thread of that kernel's
machine code is run on them (benchmarks/sass_thread.py), once for some pixels and once for twice as many. The difference
is what the kernel does for pixels, not once. From the instructions that are counted and the assumptions of
benchmarks/machine_model.py follow the bound of each resource, and the largest is the estimated time.

Objects are those of a build in FOLDER, or are compiled here (nvcc). Needs cuobjdump and nvdisasm, from the CUDA toolkit
or `pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`.

--write puts a table and its numbers for each architecture into benchmarks/results/, --check compares with what is
there: exit code 1 if the share of copy bandwidth of a kernel is more than a tenth lower.
"""

import argparse
import ctypes
import importlib.metadata
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from benchmarks import sass
from benchmarks.machine_model import JUDGED, MACHINES, Counts, estimate, markdown
from benchmarks.sass_thread import Thread

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CSRC = ROOT / "csrc"
CLASSES = (2, 4, 8, 14, 32, 64, 105)
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last")
# Which labels are annotated, and for how many classes: where only half of them are, a background pixel may be one of
# several classes, or is looked at for some of them alone.
ANNOTATED = {"all": CLASSES, "half": (4, 14, 64)}
LOSSES = ("marginal_ce", "smile", "label_flip", "marginal_dice")  # of each family one
TOOLS = {"cuobjdump": "nvidia-cuda-cuobjdump", "nvdisasm": "nvidia-cuda-nvdisasm"}
# Constant bank 0: where blockDim and gridDim lie, and the first byte of the arguments
ARGUMENTS = {75: 0x160, 80: 0x160, 90: 0x210}
ALONE = 256  # bytes of shared memory of a kernel whose threads share nothing but their sums
LOST = 0.1  # of a kernel's share, at which --check fails


@dataclass(frozen=True)
class Launch:
    """A launch that the emulated device has seen.

    Attributes:
        kernel: demangled name.
        arguments: as the device has them.
        threads: of a block.
        shared: bytes of a block.
    """

    kernel: str
    arguments: bytes
    threads: int
    shared: int


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", action="append", choices=[*map(str, ARGUMENTS), "all"],
                        help="of a GPU, 90 if it is not given (repeatable)")  # fmt: skip
    parser.add_argument("--objects", type=Path, help="a folder in which some build has compiled csrc/cuda")
    parser.add_argument("--loss", action="append", choices=LOSSES, help="of this loss alone (repeatable)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/machine_code_sm_*")
    parser.add_argument("--check", action="store_true", help="compare with what is there")
    options = parser.parse_args()
    if options.loss and (options.write or options.check):
        parser.error("--write and --check are of all losses: leave out --loss")
    chosen = options.architecture or ["90"]
    architectures = sorted(ARGUMENTS if "all" in chosen else set(map(int, chosen)))
    with tempfile.TemporaryDirectory() as folder:
        objects = objects_of(options.objects, architectures, Path(folder))
        kernels = {each: disassembled(objects, each, Path(folder)) for each in architectures}
    rows = all_rows(kernels, options.loss or LOSSES)
    return max(report(each, rows[each], options) for each in architectures)


def report(architecture, rows, options):
    """What is asked for, of one architecture; the exit code."""
    path = RESULTS / f"machine_code_sm_{architecture}"
    if options.check:
        print(f"sm_{architecture}: ", end="")
        return compared(rows, json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    page = markdown(rows, MACHINES[architecture], judged=architecture == JUDGED)
    print(page)
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        path.with_suffix(".md").write_text(page + "\n", encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


# ------------------------------------------------------------------------------------------------------- machine code


def tool(name):
    """A disassembler: on the path, in CUDA_HOME, or from its package.

    Raises:
        SystemExit: it is nowhere.
    """
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}{home}"):
        return Path(found)
    try:
        files = importlib.metadata.files(TOOLS[name]) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((Path(file.locate()).resolve() for file in files if file.name == name), None)
    if found is None:
        raise SystemExit(f"{name} is neither on the path nor in CUDA_HOME: pip install {' '.join(TOOLS.values())}")
    return found


def objects_of(folder, architectures, work):
    """The compiled csrc/cuda: what a build has left in a folder, or compiled here."""
    names = [source.name for source in sorted((CSRC / "cuda").glob("*.cu"))]
    if folder is not None:
        found = {path.name: path for path in folder.rglob("*.cu.o")}
        missing = [name for name in names if f"{name}.o" not in found]
        if missing:
            raise SystemExit(f"--objects {folder}: no object of {', '.join(missing)} is in it")
        return [found[f"{name}.o"] for name in names]
    nvcc = shutil.which("nvcc") or shutil.which(str(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/nvcc"))
    if nvcc is None:
        raise SystemExit("nvcc is neither on the path nor in CUDA_HOME: give --objects, the folder of a build")
    flags = _flags_of_files()
    codes = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]

    def compiled(name):
        target = work / f"{name}.o"
        command = [nvcc, "-std=c++17", "-O3", "-DNDEBUG", *codes, *flags.get(name, ())]
        subprocess.run([*command, "-c", CSRC / "cuda" / name, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, names))


def _flags_of_files():
    """Options that CMakeLists.txt has for single files."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = {}
    for files, options in re.findall(r"_properties\(([^)]*?\.cu)\s+PROPERTIES COMPILE_OPTIONS ([^)]*)\)", text):
        found |= {Path(file).name: options.split() for file in files.split()}
    return found


def disassembled(objects, architecture, work):
    """The kernels of some objects by demangled names."""
    cuobjdump, nvdisasm = tool("cuobjdump"), tool("nvdisasm")
    environment = os.environ | {"PATH": f"{nvdisasm.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    names = f"sm_{architecture}"

    def one(path):
        folder = work / f"elf {names} {path.name}"
        folder.mkdir()

        def dump(*arguments):
            command = [cuobjdump, *arguments, path.resolve()]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            return done.stdout

        kernels = sass.parse(dump("-sass", "-arch", names) + dump("-res-usage", "-arch", names))
        dump("-xelf", names)
        for cubin in folder.glob("*.cubin"):
            for name, table in sass.branch_tables(cubin.read_bytes()).items():
                if name in kernels:
                    kernels[name].tables = table
        return kernels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kernels = {name: kernel for found in pool.map(one, objects) for name, kernel in found.items()}
    if not kernels:
        raise SystemExit(f"the objects have no code for sm_{architecture}: build them with LABELDROP_CUDA_ARCHS")
    return dict(zip(demangled(kernels), kernels.values(), strict=True))


def binutil(name):
    """A program that comes with the compiler.

    Raises:
        SystemExit: it is not on the path.
    """
    if found := shutil.which(name):
        return found
    raise SystemExit(f"{name} is not on the path: install binutils")


def demangled(names):
    """Readable names."""
    done = subprocess.run([binutil("c++filt")], input="\n".join(names), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# ---------------------------------------------------------------------------------------------------------- launches


def emulated():
    """The emulated device of the tests, and the names of its kernels by their addresses."""
    sys.path.insert(0, str(ROOT / "tests"))
    from emulation.build import build
    from emulation.device import EmulatedDevice

    module = build(ROOT / ".pytest_cache" / "d" / "emulated_cuda" / "kernels")
    path = Path(module.__spec__.origin)
    listed = subprocess.run([binutil("nm"), path], capture_output=True, text=True, check=True).stdout
    symbols = [line.split(maxsplit=2) for line in listed.splitlines() if line[:1].isalnum()]
    places = {name: int(address, 16) for address, _, name in symbols}
    base = ctypes.cast(module.emulation_order, ctypes.c_void_p).value - places["emulation_order"]
    wanted = [(name, place) for name, place in places.items() if "_kernel" in name]
    readable = demangled([name for name, _ in wanted])
    kernels = {base + place: name for name, (_, place) in zip(readable, wanted, strict=True)}
    return EmulatedDevice(module), kernels


@dataclass(frozen=True)
class Case:
    """What a loss is called with; `annotated` is a key of ANNOTATED."""

    loss: str
    annotated: str
    classes: int
    dtype: torch.dtype
    layout: str


def all_rows(kernels, losses):
    """Rows of some losses in every case, of each architecture; by as many processes as there are cores."""
    torch.set_num_threads(1)
    _SHARED.update(kernels=kernels, device=emulated())
    every = (Case(*case) for case in product(losses, ANNOTATED, CLASSES, DTYPES, LAYOUTS))
    cases = [case for case in every if case.classes in ANNOTATED[case.annotated]]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(rows_of, cases, chunksize=4))
    return {each: [row for rows in found for row in rows[each]] for each in kernels}


_SHARED = {}  # what the processes inherit


def rows_of(case):
    """Of each architecture: a row for each kernel of a case that reads the logits."""
    pixels = turn(case.loss, case.classes, case.layout)
    once, twice = (counted(case, count) for count in (pixels, 2 * pixels))
    rows = {architecture: [] for architecture in _SHARED["kernels"]}
    for (architecture, name), (launch, more) in twice.items():
        counts = more - once[architecture, name][1]
        counts.registers = _SHARED["kernels"][architecture][name].registers
        names = {"kernel": short(name), "loss": case.loss, "annotated": case.annotated, "K": case.classes}
        names |= {"dtype": str(case.dtype).removeprefix("torch."), "layout": case.layout}
        machine = MACHINES[architecture]
        rows[architecture].append(
            names | estimate(counts, launch, pixels * counts.channels, case.dtype.itemsize, machine)
        )
    return rows


def turn(loss, classes, layout):
    """At least as many pixels as a block takes at a time."""
    if loss in ("smile", "label_flip"):
        return 1024
    return 1024 if loss in ("marginal_ce", "marginal_dice") and classes <= 32 else 256


def short(name):
    """A kernel's name without what follows from its place and its arguments."""
    return re.sub(r"<.*|\(.*", "", re.sub(r"\(anonymous namespace\)::|labeldrop::cuda::|^void ", "", name))


def counted(case, pixels):
    """What a thread of each kernel that reads the logits executes: (architecture, kernel) -> (launch, counts)."""
    import labeldrop_bench as lb

    device, names = _SHARED["device"]
    module = lb.losses.create(case.loss, num_classes=case.classes + (case.loss in ("smile", "label_flip")))
    channels = module.out_channels
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, pixels, channels, generator=generator).to(case.dtype).movedim(-1, 1)
    logits = (logits if case.layout == "channels_last" else logits.contiguous()).requires_grad_()
    target = torch.zeros(1, pixels, dtype=torch.uint8)
    annotated = torch.ones(1, module.label_space.num_labels, dtype=torch.bool)
    if case.annotated == "half":
        annotated[:, 2::2] = False  # not the first one: a kernel in which it is a thread's only class has to show
    found, stored, errors = {}, [], []

    def run(kernel, arguments, size, threads, shared):
        launch = Launch(names[kernel], ctypes.string_at(arguments, size), threads, shared)
        if logits.data_ptr().to_bytes(8, "little") not in launch.arguments:
            return  # one that makes tables or adds up: it would wait for what other threads do
        for architecture, kernels in _SHARED["kernels"].items():
            thread = Thread(kernels[launch.kernel], constants(launch, ARGUMENTS[architecture]), ctypes.string_at)
            trace = thread.run()
            counts = Counts.of(trace, channels, addresses(logits), addresses(target), sorted(thread.unknown))
            if counts.widths:
                found[architecture, launch.kernel] = launch, counts
            if launch.shared <= ALONE:
                stored.extend(thread.stored.items())

    def listen(*arguments):
        try:
            run(*arguments)
        except Exception as error:  # which a function that C calls cannot hand on
            errors.append(error)

    pointer, number = ctypes.c_void_p, ctypes.c_size_t
    callback = ctypes.CFUNCTYPE(None, pointer, pointer, number, ctypes.c_uint, number)(listen)
    device.module.emulation_listen(callback)
    try:
        with device():
            (gradient,) = torch.autograd.grad(module(logits, target, annotated), logits)
    finally:
        device.module.emulation_listen(None)
    if errors:
        raise errors[0]
    check_gradient(gradient, stored)
    return found


def check_gradient(gradient, stored):
    """What the machine code has stored is what the emulated kernel has.

    Raises:
        RuntimeError: it is not, and what was counted is not what the kernel does.
    """
    for place, data in stored:
        if place in addresses(gradient):
            expected = torch.frombuffer(bytearray(ctypes.string_at(place, len(data))), dtype=gradient.dtype)
            found = torch.frombuffer(bytearray(data), dtype=gradient.dtype)
            # an ulp of bfloat16, and what approximate functions are off by
            if not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-8):
                raise RuntimeError(f"the machine code gives {found.tolist()} for {expected.tolist()}")


def addresses(tensor):
    """Where a tensor lies."""
    return range(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes)


def constants(launch, first):
    """Constant bank 0 of a block that is alone in its grid."""
    dimensions = b"".join(number.to_bytes(4, "little") for number in (launch.threads, 1, 1, 1, 1, 1))
    return dimensions.ljust(first, b"\0") + launch.arguments


def compared(rows, before):
    """Say which kernels are slower than they were; the exit code."""

    def key(row):
        return tuple(row[name] for name in ("kernel", "loss", "annotated", "K", "dtype", "layout"))

    known = {key(row): row["share"] for row in before}
    worse = [row for row in rows if row["share"] < (1 - LOST) * known.get(key(row), 0)]
    for row in worse:
        print(f"{' '.join(map(str, key(row)))}: estimated {known[key(row)]:.0%} of copy before, {row['share']:.0%} now")
    gone = known.keys() - {key(row) for row in rows}
    new = {key(row) for row in rows} - known.keys()
    for name in sorted(map(str, gone | new)):
        print(f"{name}: not in both; write the table anew with --write")
    print(f"{len(rows)} kernels and sizes, {len(worse)} lose more than a tenth")
    return int(bool(worse or gone or new))


if __name__ == "__main__":
    sys.exit(main())
