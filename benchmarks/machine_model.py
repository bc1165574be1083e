"""From counted instructions to an estimate: what a multiprocessor does in a cycle, as NVIDIA's guides have it.

A kernel needs at least the time of each of these, and is estimated to need the longest one:

    memory       its bytes at the rate of a large copy
    issue        its instructions, one each cycle on each scheduler
    a unit       those of one kind, at that unit's rate
    latency      what a multiprocessor's warps have under way: each takes its instructions and its waits for memory, one
                 after the other, and all of them together no less than that

What is left out: waits at barriers and for shared memory, bank conflicts, the cache, the last wave of blocks. So this
is what a kernel cannot be faster than, under these assumptions, not what it reaches.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.sass import UNIFORM

KINDS = ("memory", "float", "integer", "special", "other")
LATENCY = 800  # cycles of a load from device memory, with memory busy: an assumption
CACHED = 200  # of one that others have brought into a cache, such as the tables': an assumption
BUSY = 0.75  # of a scheduler's cycles, those in which it issues something at best: an assumption
BETWEEN = 2  # cycles between two instructions of a warp, on average: an assumption


HEAD = """\
# CUDA kernels, **estimated** from their machine code: {name}

Nothing here was measured. A thread of each kernel was run instruction by instruction, on pixels of background alone,
and what it executed was counted; see `benchmarks/machine_code.py` and the model in `benchmarks/machine_model.py`,
which says what is left out. Annotated: all labels, or half of them, so that a background pixel may be one of several
classes (cross-entropy, Dice) or says nothing of some (sigmoid family). K: classes of the logits, of which `label_flip`
has two channels each. Bytes in flight: of a thread's loads of logits when it waits for one. Of copy: the time of a
copy of the compulsory bytes over the longest of the bounds, 100 % at most.
Assumed: {assumed}.

"""


@dataclass(frozen=True)
class Machine:
    """A GPU; the copy rate and the clock are assumptions."""

    name: str
    copy: float  # bytes per second, read and written
    multiprocessors: int
    clock: float  # Hz
    warps: int  # of a multiprocessor
    blocks: int
    shared: int  # bytes of a multiprocessor
    reserved: int  # bytes of a block that the system takes
    double: float  # double instructions of a warp in a cycle


MACHINES = {
    90: Machine("H200 (sm_90)", 4.3e12, 132, 1.98e9, 64, 32, 228 << 10, 1 << 10, 2),
    80: Machine("A100 40 GB (sm_80)", 1.35e12, 108, 1.41e9, 64, 32, 164 << 10, 1 << 10, 1),
    75: Machine("T4 (sm_75)", 0.25e12, 40, 1.2e9, 32, 16, 64 << 10, 0, 0.0625),
}
REGISTERS, GRANULE, SCHEDULERS = 65536, 256, 4


@dataclass
class Counts:
    """What a thread executes.

    Attributes:
        kinds, stems: instructions by kind and by name.
        read, written: bytes of the logits and the target that are read, and of global memory that are written.
        widths: bytes of a load of logits -> how many.
        waits: for logits and target, each for all loads that are under way.
        cached: waits for loads of something else, which all threads read.
        flight: bytes of logits that were under way at each wait, together.
        shared: 4-byte words of shared memory.
        channels: of the logits.
        unknown: names of instructions that were not understood.
        registers: of a thread.
    """

    channels: int
    kinds: Counter = field(default_factory=Counter)
    stems: Counter = field(default_factory=Counter)
    widths: Counter = field(default_factory=Counter)
    read: int = 0
    written: int = 0
    waits: int = 0
    cached: int = 0
    flight: int = 0
    shared: int = 0
    unknown: tuple = ()
    registers: int = 0

    @classmethod
    def of(cls, trace, channels, logits, target, unknown):
        """Of what a thread has executed; `logits` and `target` are the ranges of their addresses."""
        counts, registers, flight, streams = cls(channels, unknown=tuple(unknown)), set(), 0, False
        for instruction, done, place in trace:
            counts.kinds[instruction.kind] += 1
            counts.stems[instruction.stem] += 1
            if not done:
                continue
            if registers and not registers.isdisjoint(instruction.reads):
                counts.waits += streams
                counts.cached += not streams
                counts.flight += flight
                registers, flight, streams = set(), 0, False
            if instruction.stem == "LDG":
                registers |= instruction.loads
                if place in logits:
                    counts.widths[instruction.width] += 1
                    flight += instruction.width
                if place in logits or place in target:
                    counts.read += instruction.width
                    streams = True
            elif instruction.stem == "STG":
                counts.written += instruction.width
            elif instruction.stem in ("LDS", "STS"):
                counts.shared += (instruction.width + 3) // 4
        return counts

    def __sub__(self, other):
        numbers = {name: getattr(self, name) - getattr(other, name)
                   for name in ("read", "written", "waits", "cached", "flight", "shared")}  # fmt: skip
        numbers |= {name: getattr(self, name) - getattr(other, name) for name in ("kinds", "stems", "widths")}
        return Counts(self.channels, **numbers, unknown=self.unknown)


def occupancy(registers, threads, shared, machine):
    """Warps of a multiprocessor, and what keeps them from being more."""
    warps = threads // 32
    by_registers = REGISTERS // max(-(-registers * 32 // GRANULE) * GRANULE, 1) // 4 * 4 // warps
    limits = {
        "warps": machine.warps // warps,
        "registers": by_registers,
        "shared memory": machine.shared // (shared + machine.reserved) if shared + machine.reserved else machine.blocks,
        "blocks": machine.blocks,
    }
    limit = min(limits, key=limits.get)
    return limits[limit] * warps, limit


def units(counts, machine):
    """Cycles of a multiprocessor that each unit takes for the instructions of a warp."""
    stems = counts.stems
    doubles = sum(count for stem, count in stems.items() if stem[0] == "D" and stem != "DEPBAR")
    quarter = sum(stems[stem] for stem in ("F2F", "F2I", "I2F", "I2I", "FRND", "MUFU"))
    multiply = stems["IMAD"] + stems["FADD"] + stems["FMUL"] + stems["FFMA"] + stems["HFMA2"] + stems["HADD2"]
    integers = counts.kinds["integer"] - stems["IMAD"] + sum(stems[name] for name in ("FMNMX", "FSEL", "FSETP", "F2FP"))
    integers -= sum(count for stem, count in stems.items() if stem[0] == UNIFORM)
    accesses = stems["LDG"] + stems["STG"] + counts.shared + stems["SHFL"]
    return {
        "issue": counts.kinds.total() / SCHEDULERS / BUSY,
        "multiplications": multiply / 4,
        "integers": integers / 2,
        "special functions": quarter / 0.5,
        "doubles": doubles / machine.double,
        "shared memory": accesses,
    }


def estimate(counts, launch, logits, size, machine):
    """The columns of a row that follow from the counts.

    Args:
        counts: of a thread, for the pixels of `logits`.
        launch: of the kernel.
        logits: that the block has dealt with.
        size: bytes of a logit.
        machine: the GPU.
    """
    warps, limit = occupancy(counts.registers, launch.threads, launch.shared, machine)
    of_block = launch.threads / 32
    moved = (counts.read + counts.written) * launch.threads
    # what has to be moved: logits and gradient, the target once; dice_sums has no gradient
    compulsory = logits * size * (2 if counts.written >= counts.channels else 1) + logits / counts.channels
    per_cycle = machine.copy / machine.clock / machine.multiprocessors  # bytes
    chain = counts.waits * LATENCY + counts.cached * CACHED + counts.kinds.total() * BETWEEN
    cycles = {"memory": max(moved, compulsory) / per_cycle, "latency": chain * of_block / max(warps, 1)}
    cycles |= {name: used * of_block for name, used in units(counts, machine).items()}
    bound = max(cycles, key=cycles.get)
    share = compulsory / per_cycle / cycles[bound]
    per_logit = launch.threads / logits
    loads = counts.widths.total()
    of_loads = sum(width * count for width, count in counts.widths.items())
    return {
        "instructions": {kind: round(counts.kinds[kind] * per_logit, 2) for kind in KINDS},
        "total": round(counts.kinds.total() * per_logit, 2),
        "bytes per load": round(of_loads / loads, 1),
        "bytes in flight": round(counts.flight / counts.waits) if counts.waits else 0,
        "registers": counts.registers,
        "shared": launch.shared,
        "warps": warps,
        "warps limited by": limit,
        "bound": bound,
        "share": round(min(share, 1), 3),
        "unknown": list(counts.unknown),
    }


JUDGED = 90  # the architecture that the bars are for, where all labels are annotated
# (loss, smallest and largest K, type, the share of copy bandwidth that is aimed at); Dice: of both its passes together
BARS = (
    *((loss, 4, 32, "float32", 0.9) for loss in ("marginal_ce", "smile")),
    *((loss, 4, 32, "bfloat16", 0.8) for loss in ("marginal_ce", "smile")),
    *((loss, 33, 128, dtype, 0.75) for loss in ("marginal_ce", "smile") for dtype in ("float32", "bfloat16")),
    *(("marginal_dice", 2, 128, dtype, 0.85) for dtype in ("float32", "bfloat16")),
)


def shares(rows):
    """The share of each loss in each case: of Dice the floor of three passes over both kernels' time."""
    times, floors = Counter(), Counter()
    for row in rows:
        passes = 1 if re.fullmatch(r"dice_sums(_lanes)?_kernel", row["kernel"]) else 2  # over memory
        key = row["loss"], row["annotated"], row["K"], row["dtype"], row["layout"]
        times[key] += passes / row["share"]
        floors[key] += passes
    return {key: floors[key] / times[key] for key in times}


def bars(rows):
    """What is aimed at, and the lowest and the highest share that the kernels are estimated to reach now."""
    known = shares(rows)

    def reached(loss, annotated, dtype, least, most):
        found = [share for (*names, k, of_type, _), share in known.items()
                 if names == [loss, annotated] and of_type == dtype and least <= k <= most]  # fmt: skip
        return f"{100 * min(found):.0f} to {100 * max(found):.0f} %" if found else "-"

    lines = ["| loss | K | dtype | bar | all annotated | half annotated |", "|---|---|---|---|---|---|"]
    for loss, least, most, dtype, bar in BARS:
        if any(key[0] == loss for key in known):
            found = (reached(loss, annotated, dtype, least, most) for annotated in ("all", "half"))
            lines.append(f"| {loss} | {least} to {most} | {dtype} | {100 * bar:.0f} % | {' | '.join(found)} |")
    return "\n".join(["## Bars, both layouts", "", *lines])


def markdown(rows, machine, *, judged):
    """The table, under a heading that says what it is; `judged`: by the bars."""
    heads = [
        *("loss", "annotated", "kernel", "K", "dtype", "layout", "instructions a logit", *KINDS),
        *("bytes a load", "bytes in flight", "registers", "shared", "warps", "bound", "of copy"),
    ]
    keys = ("bytes per load", "bytes in flight", "registers", "shared", "warps", "bound")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        names = [row[key] for key in ("loss", "annotated", "kernel", "K", "dtype", "layout", "total")]
        cells = [*names, *row["instructions"].values(), *(row[key] for key in keys), f"{100 * row['share']:.0f} %"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    unknown = sorted({name for row in rows for name in row["unknown"]})
    notes = f"\n\nNot understood, and taken to do nothing: {', '.join(unknown)}." if unknown else ""
    assumed = (
        f"a copy of {machine.copy / 1e12:g} TB/s, read and written; {machine.multiprocessors} multiprocessors at "
        f"{machine.clock / 1e9:g} GHz with {SCHEDULERS} schedulers, which issue in {100 * BUSY:.0f} % of the cycles at "
        f"best; {LATENCY} cycles for a load from memory and {CACHED} from a cache, {BETWEEN} between two instructions "
        f"of a warp"
    )
    table = "\n".join(lines) + notes
    heading = HEAD.format(name=machine.name, assumed=assumed) + (f"{bars(rows)}\n\n" if judged else "")
    return f"{heading}## Kernels\n\n{table}"
