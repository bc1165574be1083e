"""The device report for people: report.md from the content of report.json."""

from tabulate import tabulate

MEBIBYTE = 1 << 20
OUTPUT_LINES = 40  # of a part that failed
EXPLANATION = """\
ms: of the fused loss, launches included. device ms: replayed as a CUDA graph, after other memory has been read through
the L2 cache. GB/s: logits read once, gradient written once, target read once, in the device's time where it is known.
of clone: the time in which a clone moves as many bytes, at the rate of a clone of these logits, over the loss's; of
copy: the same of a large copy, whose rate is given above. Peers: their time over that of the fused loss. MiB: peak
memory beyond the inputs."""


def markdown(content):
    """The whole page."""
    rehearsal = ", a rehearsal on the CPU: the figures mean nothing" if content["dry"] else ""
    sections = [
        f"# Device report: {content['environment'].get('device', 'no device')}{rehearsal}",
        _table([[key, str(value)] for key, value in content["environment"].items()], ["", ""]),
        "## Parts",
        _parts(content),
        *_sanitizers(content["sanitizers"]),
        *_measurements(content),
        *_metrics(content["ncu"]),
        *_kernels(content["kernels"]),
        *_failures(content),
    ]
    return "\n\n".join(sections) + "\n"


def summary(content):
    """What fits on a screen: each part, each failure in a line, and how near to a clone set cross-entropy comes."""
    lines = [_parts(content)]
    lines += [f"FAILED {each['case']}: {each['error'].strip().splitlines()[-1]}" for each in content["failures"]]
    shares = {}
    for peers in _problems(content["rows"], "sweep").values():
        row = peers["fused"]
        if not row["options"]:
            shares.setdefault(f"{row['dtype']} {row['layout']}", {})[row["num_classes"]] = row["share_of_copy"]
    classes = sorted({k for known in shares.values() for k in known})
    if classes:
        table = [[name, *(_percent(known.get(k)) for k in classes)] for name, known in shares.items()]
        lines.append(f"Set cross-entropy: of a clone of as many bytes\n{_table(table, ['K', *map(str, classes)])}")
    return "\n\n".join(lines)


def _parts(content):
    parts = [[part["name"], part["status"], f"{part['seconds']} s", part["note"]] for part in content["parts"]]
    return _table(parts, ["part", "status", "time", "note"])


def _sanitizers(sanitizers):
    if sanitizers:
        yield "## compute-sanitizer"
        yield _table([[each["tool"], each["status"], each["note"]] for each in sanitizers], ["tool", "status", "said"])


def _metrics(kernels):
    """What ncu measured of each kernel."""
    if kernels:
        heads = list(dict.fromkeys(head for kernel in kernels for head in kernel))
        yield "## ncu"
        yield _table([[kernel.get(head, "") for head in heads] for kernel in kernels], heads)


def _table(rows, heads):
    """A table whose numbers are text already; columns of numbers are right-aligned."""
    right = [all(str(row[i])[:1].isdigit() or row[i] == "" for row in rows) for i in range(len(heads))]
    align = ["right" if numbers and rows else "left" for numbers in right]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=align if rows else None)


def _problems(rows, part):
    """The rows of a part by problem, and in it by peer."""
    found = {}
    for row in rows:
        if row["part"] == part:
            key = row["loss"], row["options"], row["num_classes"], row["shape"], row["dtype"], row["layout"]
            found.setdefault(key, {})[row["peer"]] = row
    return found


def _measurements(content):
    """Set cross-entropy over everything, then every loss."""
    rows, rate = content["rows"], content["environment"].get("copy GB/s")
    sweep, losses = _problems(rows, "sweep"), _problems(rows, "losses")
    if not sweep and not losses:
        return
    yield "## Forward and backward pass"
    yield EXPLANATION
    if sweep:
        yield "### Set cross-entropy"
        lines = [
            [*_name(peers)[1:], *_fused(peers, rate), _ratio(peers, "F.cross_entropy")] for peers in sweep.values()
        ]
        yield _table(lines, [*_NAME[1:], *_FUSED, "F.cross_entropy"])
        yield _lowest(sweep.values(), rate)
    if losses:
        yield "### Every loss"
        lines = [
            [
                *_name(peers),
                *_fused(peers, rate),
                *(_ratio(peers, *names) for names in _PEERS.values()),
                *_memory(peers),
            ]
            for peers in losses.values()
        ]
        yield _table(lines, [*_NAME, *_FUSED, *_PEERS, "eager MiB", "memory"])
    notes = [f"- {row['loss']} {row['options']} K={row['num_classes']} {row['shape']} {row['dtype']}, {row['peer']}: "
             f"{row['note']}" for row in rows if row["note"]]  # fmt: skip
    if notes:
        yield "Notes:\n\n" + "\n".join(notes)


_NAME = ("loss", "N x size", "dtype", "layout", "K")
_FUSED = ("ms", "device ms", "GB/s", "of clone", "of copy", "MiB")
_PEERS = {"eager": ("eager",), "compile": ("compile",), "stock": ("F.cross_entropy", "F.binary_cross_entropy", "MONAI")}


def _name(peers):
    row = peers["fused"]
    return [f"{row['loss']} {row['options']}".strip(), row["shape"], row["dtype"], row["layout"], row["num_classes"]]


def _fused(peers, rate):
    row = peers["fused"]
    return [
        _number(row["milliseconds"], 3), _number(row["graph_milliseconds"], 4), _number(row["gigabytes_per_second"], 0),
        _percent(row["share_of_copy"]), _percent(_share(row, rate)), _mebibytes(row),
    ]  # fmt: skip


def _share(row, rate):
    return row["gigabytes_per_second"] / rate if rate else None


def _memory(peers):
    """Peak memory of eager, and how many times that of the fused loss it is."""
    eager, fused = peers.get("eager"), peers["fused"]
    if not eager or not eager["peak_bytes"] or not fused["peak_bytes"]:
        return ["", ""]
    return [_mebibytes(eager), f"{eager['peak_bytes'] / fused['peak_bytes']:.1f} x"]


def _ratio(peers, *names):
    """Of the first of some peers that is there; of the devices' times where both have one."""
    for name in names:
        row, fused = peers.get(name), peers["fused"]
        if row:
            key = "graph_milliseconds" if row["graph_milliseconds"] and fused["graph_milliseconds"] else "milliseconds"
            return f"{row[key] / fused[key]:.2f} x" if row[key] else ""
    return ""


def _lowest(problems, rate):
    """The share of the copy rate that every case reaches."""
    lines = []
    for name, inside in (("K <= 32", lambda k: k <= 32), ("K > 32", lambda k: k > 32)):
        rows = [peers["fused"] for peers in problems if inside(peers["fused"]["num_classes"])]
        if rows:
            clone = min(row["share_of_copy"] for row in rows)
            copy = _percent(min(_share(row, rate) for row in rows)) if rate else "?"
            lines.append(f"{name}: at least {_percent(clone)} of the clone's rate, {copy} of the large copy's.")
    return "\n".join(lines)


def _number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value):
    return "" if value is None else f"{100 * value:.0f} %"


def _mebibytes(row):
    return "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / MEBIBYTE:.1f}"


def _kernels(kernels):
    """Those that spill, and those with most registers."""
    if kernels:
        chosen = [kernel for kernel in kernels if kernel["spill_stores"] + kernel["spill_loads"]]
        chosen += sorted(kernels, key=lambda kernel: -kernel["registers"])[:10]
        heads = ["registers", "stack", "spill_stores", "spill_loads", "name"]
        yield "## Kernels: those that spill, and the ten with most registers"
        yield _table([[str(kernel[head]) for head in heads] for kernel in chosen], heads)


def _failures(content):
    """The output of each part and case that failed."""
    for part in content["parts"]:
        if part["status"] == "failed" and part["output"]:
            lines = part["output"].strip().splitlines()[-OUTPUT_LINES:]
            yield f"## Output of {part['name']}\n\n" + "\n".join(f"    {line}" for line in lines)
    for failure in content["failures"]:
        lines = failure["error"].strip().splitlines()[-OUTPUT_LINES:]
        yield f"## {failure['case']}\n\n" + "\n".join(f"    {line}" for line in lines)
