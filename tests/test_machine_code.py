"""What is read from machine code, on a listing made by hand: instructions, branches, a thread that runs, and counts."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("benchmarks/ is not in this copy of the sources", allow_module_level=True)
sys.path.append(str(ROOT))

from benchmarks import machine_code, machine_model, sass  # noqa: E402
from benchmarks.sass_thread import Thread  # noqa: E402

# for (i = 0; i < count; i += 2) out[i .. i + 1] = 3 * exp2(in[i .. i + 1]): of two numbers at a time
LISTING = """
	code for sm_90
		Function : _Z4halfPf
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                   /* 0x00000a00ff017b82 */
                                                                            /* 0x000fe20000000800 */
        /*0010*/                   S2R R9, SR_TID.X ;                       /* 0x0 */
        /*0020*/                   ULDC.64 UR8, c[0x0][0x208] ;             /* 0x0 */
        /*0030*/                   LDC.64 R2, c[0x0][0x210] ;               /* 0x0 */
        /*0040*/                   LDC.64 R4, c[0x0][0x218] ;               /* 0x0 */
        /*0050*/                   IMAD.WIDE.U32 R2, R9, 0x8, R2 ;          /* 0x0 */
        /*0060*/                   ISETP.GE.AND P0, PT, R9, c[0x0][0x220], PT ; /* 0x0 */
        /*0070*/               @P0 EXIT ;                                   /* 0x0 */
        /*0080*/                   LDG.E.64 R6, desc[UR8][R2.64] ;          /* 0x0 */
        /*0090*/                   IADD3 R2, P1, R2, 0x8, RZ ;              /* 0x0 */
        /*00a0*/                   IADD3.X R3, RZ, R3, RZ, P1, !PT ;        /* 0x0 */
        /*00b0*/                   VIADD R9, R9.reuse, 0x2 ;                /* 0x0 */
        /*00c0*/                   MUFU.EX2 R6, R6 ;                        /* 0x0 */
        /*00d0*/                   MUFU.EX2 R7, R7 ;                        /* 0x0 */
        /*00e0*/                   FMUL.FTZ R6, R6, 3 ;                     /* 0x0 */
        /*00f0*/                   FMUL.FTZ R7, R7, 3 ;                     /* 0x0 */
        /*0100*/                   STG.E.64 desc[UR8][R4.64], R6 ;          /* 0x0 */
        /*0110*/                   IADD3 R4, P1, R4, 0x8, RZ ;              /* 0x0 */
        /*0120*/                   IADD3.X R5, RZ, R5, RZ, P1, !PT ;        /* 0x0 */
        /*0130*/                   ISETP.LT.AND P0, PT, R9, c[0x0][0x220], PT ; /* 0x0 */
        /*0140*/               @P0 BRA 0x80 ;                               /* 0x0 */
        /*0150*/                   EXIT ;                                   /* 0x0 */
        /*0160*/                   BRA 0x160;                               /* 0x0 */

 Function _Z4halfPf:
  REG:10 STACK:0 SHARED:1024 LOCAL:0 CONSTANT[0]:548 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
IN, OUT, CANCELLED = 0x7F00_0000_FFF8, 0x7F00_0001_0000, 0x9000


def thread(count, listing=LISTING, numbers=(0.0, 1.0, 2.0, -1.0, 3.0, 0.5, 0.0, 0.0)):
    kernel = sass.parse(listing)["_Z4halfPf"]
    memory = struct.pack(f"<{len(numbers)}f", *numbers)
    bank = bytes(0x210) + struct.pack("<QQi", IN, OUT, count)
    return Thread(kernel, bank, lambda address, size: memory[address - IN : address - IN + size])


def counts(count):
    run = thread(count).run()
    return machine_model.Counts.of(run, 1, range(IN, IN + 64), range(0), [])


def test_a_listing_is_read():
    kernel = sass.parse(LISTING)["_Z4halfPf"]
    assert kernel.registers == 10
    assert len(kernel.code) == 23
    load = kernel.code[0x80]
    assert (load.name, load.stem, load.width, load.kind) == ("LDG.E.64", "LDG", 8, "memory")
    assert load.loads == {6, 7}
    assert kernel.code[0x70].guard == "P0"
    assert kernel.code[0xB0].operands == ("R9", "R9", "0x2")
    kinds = [kernel.code[address].kind for address in (0x00, 0x90, 0xC0, 0xE0, 0x140)]
    assert kinds == ["other", "integer", "special", "float", "other"]


def test_a_thread_computes_what_its_code_says():
    """Over a carry from the lower half of an address to the upper one, too."""
    run = thread(6)
    run.run()
    stored = b"".join(run.stored[OUT + 8 * pair] for pair in range(3))
    assert struct.unpack("<6f", stored) == pytest.approx([3.0, 6.0, 12.0, 1.5, 24.0, 3 * 2**0.5])


def test_what_is_executed_is_counted_and_not_what_stands_there():
    difference = counts(8) - counts(4)  # two more turns
    assert dict(difference.kinds) == {"memory": 4, "integer": 12, "special": 4, "float": 4, "other": 2}
    assert (difference.read, difference.written) == (16, 16)
    assert difference.waits == 2  # one load under way at a time
    assert difference.flight == 16
    assert counts(0).kinds.total() == 7  # the guard of EXIT holds


def test_loads_that_are_under_way_together_are_one_wait():
    ahead = LISTING.replace("VIADD R9, R9.reuse, 0x2 ", "LDG.E.64 R10, desc[UR8][R2.64] ")
    run = thread(1, ahead.replace("@P0 BRA 0x80", "@!PT BRA 0x80")).run()
    found = machine_model.Counts.of(run, 1, range(IN, IN + 64), range(0), [])
    assert (found.waits, found.flight, found.widths) == (1, 16, {8: 2})


def test_what_is_not_understood_is_named():
    run = thread(2, LISTING.replace("FMUL.FTZ R7, R7, 3", "FROB.FTZ R7, R7, 3"))
    run.run()
    assert run.unknown == {"FROB"}


def test_a_branch_to_nowhere_and_a_loop_without_end_are_errors():
    with pytest.raises(RuntimeError, match="_Z4halfPf: a branch to 0x180"):
        thread(2, LISTING.replace("@P0 BRA 0x80", "    BRA 0x180")).run()
    with pytest.raises(RuntimeError, match="still running after 1000"):
        thread(2, LISTING.replace("@P0 BRA 0x80", "    BRA 0x140")).run(1000)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("LOP3.LUT R6, R6, 0xff, RZ, 0xc0, !PT", 0x3F800000 & 0xFF),
        ("PRMT R6, R6, 0x7632, RZ", 0x3F80),
        ("SHF.R.S32.HI R6, RZ, 0x1f, R6", 0),
        ("SHF.R.U32.HI R6, RZ, 0x10, R6", 0x3F80),
        ("LEA.HI R6, R6, RZ, RZ, 0x2", 0),
        ("LEA R6, R6, 0x1, 0x1", 0x7F000001),
        ("IMAD.U32 R6, R6, 0x2, RZ", 0x7F000000),
        ("IMAD.HI.U32 R6, R6, 0x10, RZ", 3),
        ("IADD3 R6, -R6, 0x1, RZ", (1 - 0x3F800000) & 0xFFFFFFFF),
        ("VIMNMX R6, R6, 0x5, PT", 5),
        ("SEL R6, R6, 0x7, !PT", 7),
        ("FADD.FTZ R6, -R6, 3", 0x40000000),
        ("FFMA.FTZ R6, R6, 2, -R6", 0x3F800000),
        ("FMNMX.FTZ R6, R6, 5, !PT", 0x40A00000),
        ("F2FP.BF16.F32.PACK_AB R6, R6, RZ", 0x3F800000),
        ("HADD2.F32 R6, -RZ, R6.H1_H1", 0x3FF00000),
        ("I2FP.F32.S32 R6, 0x3", 0x40400000),
    ],
)
def test_instructions_do_what_they_are_named_for(code, expected):
    """On the float 1 in R6."""
    listing = LISTING.replace("MUFU.EX2 R6, R6 ;", f"{code} ;").replace("FMUL.FTZ R6, R6, 3 ;", "NOP ;")
    run = thread(2, listing, numbers=(1.0, 0.0))
    run.run()
    assert struct.unpack("<I", run.stored[OUT][:4])[0] == expected


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("R2+0x10", 2, (7 << 32) + 26),  # of sm_75, where nothing says that a pointer has 64 bits
        ("R2.64+0x10", 2, (7 << 32) + 26),
        ("R2.64+UR4+-0x2", 2, (12 << 32) + 17),  # and one of the two is a pointer to a whole array
        ("R2.X8+UR4+0x4", 1, 93),
        ("UR4", 2, (5 << 32) + 9),
    ],
)
def test_addresses_are_sums(text, words, expected):
    run = thread(2)
    run.registers.update(R2=10, R3=7, UR4=9, UR5=5)
    assert run.address(text, words) == expected


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "warps", "limit"),
    [
        (32, 128, 0, 64, "warps"),
        (128, 128, 256, 16, "registers"),
        (32, 128, 100 << 10, 8, "shared memory"),
        (255, 256, 0, 8, "registers"),
    ],
)
def test_occupancy(registers, threads, shared, warps, limit):
    assert machine_model.occupancy(registers, threads, shared, machine_model.MACHINES[90]) == (warps, limit)


def row(share, k=4):
    names = {"kernel": "x_kernel", "loss": "ce", "annotated": "all", "K": k, "dtype": "float32", "layout": "contiguous"}
    return {**names, "share": share}


@pytest.mark.parametrize(("now", "code"), [(0.8, 0), (0.73, 0), (0.71, 1), (0.95, 0)])
def test_a_kernel_that_loses_more_than_a_tenth_fails(now, code, capsys):
    assert machine_code.compared([row(now)], [row(0.8)]) == code
    assert ("80% of copy before, 71% now" in capsys.readouterr().out) == bool(code)


def test_a_kernel_that_is_new_or_gone_asks_for_the_table_anew(capsys):
    assert machine_code.compared([row(0.8), row(0.8, 8)], [row(0.8)]) == 1
    assert "write the table anew" in capsys.readouterr().out


def test_a_row_is_compared_with_that_of_the_same_annotated_labels(capsys):
    half = {**row(0.4), "annotated": "half"}
    assert machine_code.compared([row(0.8), half], [row(0.8), half]) == 0
    assert machine_code.compared([row(0.4), half], [row(0.8), half]) == 1


def test_both_passes_of_dice_are_one_share():
    """A third of the bytes at 20 %, two thirds at 40 %: 5 + 5 times the time of a pass, where 3 would do."""
    dice = {**row(0.2), "loss": "marginal_dice", "kernel": "dice_sums_kernel"}
    backward = {**dice, "kernel": "dice_sums_backward_kernel", "share": 0.4}
    (share,) = machine_model.shares([dice, backward]).values()
    assert share == pytest.approx(0.3)
    half = {**dice, "annotated": "half", "share": 0.1}
    shown = "| marginal_dice | 2 to 128 | float32 | 85 % | 30 to 30 % | 10 to 10 % |"
    assert shown in machine_model.bars([dice, backward, half])


def test_without_the_disassembler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(machine_code.shutil, "which", lambda *_, **__: None)
    monkeypatch.setitem(machine_code.TOOLS, "cuobjdump", "no-such-package")
    with pytest.raises(SystemExit, match="cuobjdump is neither on the path nor in CUDA_HOME: pip install"):
        machine_code.tool("cuobjdump")


def test_the_committed_table_is_marked_as_an_estimate_and_has_every_case():
    for path in (ROOT / "benchmarks" / "results").glob("machine_code_sm_*.json"):
        rows = json.loads(path.read_text(encoding="utf-8"))
        page = path.with_suffix(".md").read_text(encoding="utf-8")
        assert "**estimated**" in page.splitlines()[0]
        assert page.split("## Kernels")[1].count("\n| ") == len(rows) + 1
        for annotated, classes in machine_code.ANNOTATED.items():
            assert {row["K"] for row in rows if row["annotated"] == annotated} == set(classes)
        assert {(row["loss"], row["dtype"], row["layout"]) for row in rows} == {
            (loss, dtype, layout)
            for loss in machine_code.LOSSES
            for dtype in ("float32", "bfloat16")
            for layout in ("contiguous", "channels_last")
        }
        assert ("## Bars" in page) == path.stem.endswith(f"_{machine_model.JUDGED}")
        assert not any(row["unknown"] for row in rows)


def test_the_command_says_what_it_is_for():
    done = subprocess.run([sys.executable, "-m", "benchmarks.machine_code", "--help"], cwd=ROOT, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0
    assert "an estimate" in done.stdout
