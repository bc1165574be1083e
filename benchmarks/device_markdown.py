"""The device report for people: report.md from the content of report.json."""

from tabulate import tabulate

MEBIBYTE = 1 << 20
OUTPUT_LINES = 40  # of a step that failed
EXPLANATION = """\
ms: of the fused loss, launches included. device ms: replayed as a CUDA graph with a cold L2 cache. GB/s: logits read
once, gradient written once, target read once, in the device's time where it is known. of clone: that rate over the rate
of a clone of these logits; of copy: over that of a large copy, given above. Peers: their time over that of the fused
loss. MiB: peak memory beyond the inputs."""


def markdown(content):
    """The whole page."""
    steps = [[step["name"], step["status"], f"{step['seconds']} s", step["note"]] for step in content["steps"]]
    parts = [
        f"# Device report: {content['environment'].get('device', content['asked for'])}",
        _table([[key, str(value)] for key, value in content["environment"].items()], ["", ""]),
        "## Steps",
        _table(steps, ["step", "status", "time", "note"]),
        *_measurements(content),
        *_kernels(content["kernels"]),
        *_failures(content),
    ]
    return "\n\n".join(parts) + "\n"


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
    """The output of each step and case that failed."""
    for step in content["steps"]:
        if step["status"] == "failed" and step["output"]:
            lines = step["output"].strip().splitlines()[-OUTPUT_LINES:]
            yield f"## Output of {step['name']}\n\n" + "\n".join(f"    {line}" for line in lines)
    for failure in content["failures"]:
        lines = failure["error"].strip().splitlines()[-OUTPUT_LINES:]
        yield f"## {failure['case']}\n\n" + "\n".join(f"    {line}" for line in lines)
