"""A thread of a kernel, run: what the instructions of benchmarks/sass.py do to registers and predicates.

Counting what stands in a loop would count what is skipped as well: other types of the target, weights that are not
given, classes beyond the last. So the first thread of the first block is run, on the kernel's own arguments and memory.
It sees its own values alone: a shuffle gives back what it is given, a barrier is no wait, and shared memory that other
threads would have written is 0. What a thread executes depends on that as little as the time of a kernel does.
"""

import math
import re
import struct
from typing import NamedTuple

from benchmarks.sass import UNIFORM, Instruction
from benchmarks.sass_numbers import (
    COMPARE,
    JOIN,
    MASK,
    addend,
    as_bits,
    as_float,
    bfloat_bits,
    float16_bits,
    lookup,
    number_of,
    operand,
    product,
    signed,
    special,
)
from benchmarks.sass_registers import Registers

NOTHING = frozenset((
    "NOP", "BAR", "BSSY", "BSYNC", "BMOV", "WARPSYNC", "DEPBAR", "YIELD", "MEMBAR", "ERRBAR", "CCTL", "BREAK", "RED",
    "CGAERRBAR",
    "ATOMS",
))  # fmt: skip


class Step(NamedTuple):
    """An instruction, whether its guard let it do anything, and where in global memory it has read."""

    instruction: Instruction
    done: bool
    place: int | None


class Thread(Registers):
    """Thread 0 of block 0."""

    def run(self, most: int = 4_000_000) -> list[Step]:
        """What is executed, in its order; what is passed over because its guard is false costs its place as well.

        Raises:
            RuntimeError: more than `most` instructions, or a branch to where there is no code.
        """
        trace, address = [], min(self.kernel.code)
        while len(trace) < most:
            instruction = self.kernel.code.get(address)
            if instruction is None:
                raise RuntimeError(f"{self.kernel.name}: a branch to {address:#x}, where there is no instruction")
            address += 16
            self.place = None
            if instruction.guard and not self.predicate(instruction.guard):
                trace.append(Step(instruction, False, None))
                continue
            if instruction.stem == "EXIT":
                return trace
            target = self.execute(instruction, address)
            trace.append(Step(instruction, True, self.place))
            address = address if target is None else target
        raise RuntimeError(f"{self.kernel.name}: still running after {most} instructions")

    # --------------------------------------------------------------------------------------------------- instructions

    def execute(self, instruction: Instruction, following: int) -> int | None:
        """Do it; where to go on, if not behind it."""
        stem = instruction.stem
        if stem in NOTHING:
            return None
        method = getattr(self, f"_{stem.removeprefix(UNIFORM).lower()}", None)  # U: the same once for the warp
        if method is None:
            self.unknown.add(stem)
            if instruction.operands and re.fullmatch(r"U?R\d+", instruction.operands[0]):
                self.set_register(instruction.operands[0], 0)
            return None
        return method(instruction, following)

    def _bra(self, i: Instruction, _: int) -> int | None:
        *conditions, target = i.operands
        if not all(self.predicate(each) for each in conditions if re.fullmatch(r"!?U?P\w", each)):
            return None
        return int(target, 0) if not i.marks & {"DIV", "CONV"} else None

    def _call(self, i: Instruction, _: int) -> int:
        return int(i.operands[-1], 0)

    def _ret(self, i: Instruction, _: int) -> int:
        return self.words(i.operands[0].split()[0])

    def _brx(self, i: Instruction, following: int) -> int:
        register, offset = i.operands[0].split()[:2]
        return following + signed(self.words(register)) + int(offset, 0)

    def _mov(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], self.integer(i.operands[1]))

    def _imad(self, i: Instruction, _: int) -> None:
        target, carries, sources = self.split(i)
        a, b, c = sources[:3]
        narrow = self.integer if "U32" in i.marks else lambda text: signed(self.integer(text))
        if i.marks & {"WIDE", "HI"}:
            value = narrow(a) * narrow(b) + self.integer(c, 2)
            wide = "WIDE" in i.marks
            return self.set_register(target, value if wide else value >> 32, 2 if wide else 1)
        carry = self.predicate(sources[3]) if "X" in i.marks else 0
        value = self.integer(a) * self.integer(b) + self.integer(c) + carry
        for name in carries[:1]:
            self.set_predicate(name, value > MASK)
        return self.set_register(target, value)

    def _iadd3(self, i: Instruction, _: int) -> None:
        target, carries, sources = self.split(i)
        value = sum(addend(self.words(each), each) for each in sources[:3])
        if "X" in i.marks:
            value = sum(self.integer(each) for each in sources[:3])
            value += sum(self.predicate(each) for each in sources[3:5])
        for number, name in enumerate(carries):
            self.set_predicate(name, value >> 32 > number)
        self.set_register(target, value)

    def _viadd(self, i: Instruction, _: int) -> None:
        target, a, b = i.operands
        self.set_register(target, self.integer(a) + self.integer(b))

    def _lea(self, i: Instruction, _: int) -> None:
        target, carries, sources = self.split(i)
        a, b = self.integer(sources[0]), self.integer(sources[1])
        rest = sources[2:]
        carry = self.predicate(rest.pop()) if "X" in i.marks else 0
        shift = self.integer(rest.pop())
        if "HI" in i.marks:
            whole = signed(a) if "SX32" in i.marks else a | (self.integer(rest[0]) << 32 if rest else 0)
            a = (whole << shift) >> 32 & MASK
        else:
            a = a << shift & MASK
        value = a + b + carry
        for name in carries:
            self.set_predicate(name, value > MASK)
        self.set_register(target, value)

    def _shf(self, i: Instruction, _: int) -> None:
        target, low, amount, high = i.operands
        shift, bits = self.integer(amount), 64 if i.marks & {"S64", "U64"} else 32
        shift = shift % bits if "W" in i.marks else min(shift, bits)
        whole = self.integer(high) << 32 | self.integer(low)
        if "L" in i.marks:
            value = whole << shift
            return self.set_register(target, value >> 32 if "HI" in i.marks else value)
        if "HI" in i.marks and bits == 32:  # of the high word alone
            value = self.integer(high)
            return self.set_register(target, (signed(value) if "S32" in i.marks else value) >> shift)
        value = (signed(whole, 64) if "S64" in i.marks else whole) >> shift
        return self.set_register(target, value >> 32 if "HI" in i.marks else value)

    def _lop3(self, i: Instruction, _: int) -> None:
        target, written, sources = self.split(i)
        a, b, c = (self.integer(each) for each in sources[:3])
        value = lookup(self.integer(sources[3]), a, b, c)
        for name in written:
            self.set_predicate(name, value != 0)
        self.set_register(target, value)

    def _prmt(self, i: Instruction, _: int) -> None:
        target, a, selector, b = i.operands
        data = (self.words(a) | self.words(b) << 32).to_bytes(8, "little")
        value = 0
        for number in range(4):
            choice = self.words(selector) >> 4 * number & 15
            byte = data[choice & 7]
            value |= (0xFF if byte & 0x80 else 0) << 8 * number if choice & 8 else byte << 8 * number
        self.set_register(target, value)

    def _sel(self, i: Instruction, _: int) -> None:
        target, a, b, choice = i.operands
        self.set_register(target, self.integer(a if self.predicate(choice) else b))

    def _fsel(self, i: Instruction, _: int) -> None:
        target, a, b, choice = i.operands
        self.set_register(target, as_bits(self.real(a if self.predicate(choice) else b)))

    def _setp(self, i: Instruction, value: bool, joined: str) -> None:
        join = next((JOIN[mark] for mark in ("AND", "OR", "XOR") if mark in i.marks), JOIN["AND"])
        other = self.predicate(joined)
        self.set_predicate(i.operands[0], join(value, other))
        self.set_predicate(i.operands[1], join(not value, other))

    def _isetp(self, i: Instruction, _: int) -> None:
        _, _, left, right, joined, *lower = i.operands
        a, b = self.integer(left), self.integer(right)
        if "U32" not in i.marks:
            a, b = signed(a), signed(b)
        name = next(mark for mark in i.name.split(".") if mark in COMPARE)
        value = COMPARE[name](a, b)
        if "EX" in i.marks and a == b:  # the upper halves are equal: the lower ones decide
            value = self.predicate(lower[0])
        self._setp(i, value, joined)

    def _fsetp(self, i: Instruction, _: int) -> None:
        _, _, a, b, joined = i.operands
        name = next(mark for mark in i.name.split(".") if mark in COMPARE)
        self._setp(i, COMPARE[name](self.real(a), self.real(b)), joined)

    def _dsetp(self, i: Instruction, _: int) -> None:
        _, _, a, b, joined = i.operands
        name = next((mark for mark in i.name.split(".") if mark in COMPARE), "GE")
        self._setp(i, COMPARE[name](self.double(a), self.double(b)), joined)

    def _plop3(self, i: Instruction, _: int) -> None:
        first, second, a, b, c, one, other = i.operands
        index = self.predicate(a) << 2 | self.predicate(b) << 1 | self.predicate(c)
        self.set_predicate(first, bool(int(one, 0) >> index & 1))
        self.set_predicate(second, bool(int(other, 0) >> index & 1))

    def _vote(self, i: Instruction, _: int) -> None:
        said = self.predicate(i.operands[-1])  # of a warp whose lanes all do what this one does
        for target in i.operands[:-1]:
            if re.fullmatch(r"U?R\d+", target):
                self.set_register(target, MASK if said else 0)
            elif target not in ("PT", "UPT", "RZ", "URZ"):
                self.set_predicate(target, said)

    _voteu = _vote

    def _p2r(self, i: Instruction, _: int) -> None:
        target, _, value, mask = i.operands
        bits = sum(self.predicates.get(f"P{number}", False) << number for number in range(7))
        chosen = self.words(mask)
        shift = 8 * int(target[-1]) if ".B" in target else 0
        target = target.partition(".")[0]
        self.set_register(target, self.words(value) & ~(chosen << shift) | (bits & chosen) << shift)

    def _r2p(self, i: Instruction, _: int) -> None:
        _, value, mask = i.operands
        bits = self.words(value) >> (8 * int(value[-1]) if ".B" in value else 0)
        for number in range(7):
            if self.words(mask) >> number & 1:
                self.set_predicate(f"P{number}", bool(bits >> number & 1))

    def _vimnmx(self, i: Instruction, _: int) -> None:
        target, *sources, least = i.operands
        values = [self.integer(each) for each in sources]
        if len(values) == 3:  # VIADDMNMX
            values = [values[0] + values[1] & MASK, values[2]]
        if "U32" not in i.marks:
            values = [signed(value) for value in values]
        self.set_register(target, (min if self.predicate(least) else max)(values))

    _imnmx = _viaddmnmx = _vimnmx

    def _popc(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], self.integer(i.operands[1]).bit_count())

    def _flo(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], self.integer(i.operands[1]).bit_length() - 1)  # -1: there is no 1

    def _iabs(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], abs(signed(self.integer(i.operands[1]))))

    def _i2f(self, i: Instruction, _: int) -> None:
        value = self.integer(i.operands[1])
        value = value & 0xFFFF if "U16" in i.marks else value if "U32" in i.marks else signed(value)
        bits = as_bits(float(value))
        if "RP" in i.marks and as_float(bits) < value:
            bits += 1
        self.set_register(i.operands[0], bits)

    _i2fp = _i2f

    def _f2i(self, i: Instruction, _: int) -> None:
        value = self.real(i.operands[1])
        self.set_register(i.operands[0], int(value) & MASK if math.isfinite(value) else 0)

    def _f2f(self, i: Instruction, _: int) -> None:
        if i.name.startswith("F2F.F64"):
            return self._set_double(i.operands[0], self.real(i.operands[1]))
        return self.set_register(i.operands[0], as_bits(self.double(i.operands[1])))

    def _f2fp(self, i: Instruction, _: int) -> None:
        target, high, low = i.operands[0], i.operands[-2], i.operands[-1]
        half = bfloat_bits if "BF16" in i.marks else float16_bits
        self.set_register(target, half(self.real(high)) << 16 | half(self.real(low)))

    def _hadd2(self, i: Instruction, _: int) -> None:
        source = i.operands[-1]
        bits = self.words(source) >> (16 if "H1" in source else 0) & 0xFFFF
        self.set_register(i.operands[0], as_bits(struct.unpack("<e", struct.pack("<H", bits))[0]))

    def _hfma2(self, i: Instruction, _: int) -> None:
        high, low = (float16_bits(number_of(each)) for each in i.operands[3:5])
        self.set_register(i.operands[0], high << 16 | low)

    def _fadd(self, i: Instruction, _: int) -> None:
        self._set_real(i, self.real(i.operands[1]) + self.real(i.operands[2]))

    def _fmul(self, i: Instruction, _: int) -> None:
        self._set_real(i, product(self.real(i.operands[1]), self.real(i.operands[2])))

    def _ffma(self, i: Instruction, _: int) -> None:
        a, b, c = (self.real(each) for each in i.operands[1:4])
        self._set_real(i, product(a, b) + c)

    def _fmnmx(self, i: Instruction, _: int) -> None:
        target, a, b, least = i.operands
        values = [value for value in (self.real(a), self.real(b)) if value == value] or [math.nan]
        self.set_register(target, as_bits((min if self.predicate(least) else max)(values)))

    def _fchk(self, i: Instruction, _: int) -> None:
        self.set_predicate(i.operands[0], False)  # the quick way of a division does

    def _mufu(self, i: Instruction, _: int) -> None:
        target, source = i.operands
        if "RCP64H" in i.marks:
            upper = struct.unpack("<d", struct.pack("<Q", self.words(source) << 32))[0]
            value = struct.unpack("<Q", struct.pack("<d", 1 / upper if upper else math.inf))[0]
            return self.set_register(target, value >> 32)
        return self.set_register(target, as_bits(special(next(iter(i.marks)), self.real(source))))

    def _dadd(self, i: Instruction, _: int) -> None:
        self._set_double(i.operands[0], self.double(i.operands[1]) + self.double(i.operands[2]))

    def _dmul(self, i: Instruction, _: int) -> None:
        self._set_double(i.operands[0], product(self.double(i.operands[1]), self.double(i.operands[2])))

    def _dfma(self, i: Instruction, _: int) -> None:
        a, b, c = (self.double(each) for each in i.operands[1:4])
        self._set_double(i.operands[0], product(a, b) + c)

    def _cs2r(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], 0, 1 if "32" in i.marks else 2)

    def _s2r(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], 0)  # the first of everything

    _s2ur = _s2r

    def _r2ur(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[0], self.words(i.operands[-1]))

    def _ldc(self, i: Instruction, _: int) -> None:
        bank, inner = operand(i.operands[1])[1]
        value = self.constant(bank, self.address(inner), i.width)
        self.set_register(i.operands[0], value, (i.width + 3) // 4)

    def _ldg(self, i: Instruction, _: int) -> None:
        inner = i.operands[1].rpartition("[")[2].rstrip("]")
        self.place = self.address(inner, 2)
        self._loaded(i, self.read(self.place, i.width))

    def _lds(self, i: Instruction, _: int) -> None:
        start = self.address(i.operands[1].strip("[]"))
        data = b"".join(self.shared.get(start + offset, b"\0") for offset in range(i.width))
        self._loaded(i, data)

    def _sts(self, i: Instruction, _: int) -> None:
        start = self.address(i.operands[0].strip("[]"))
        data = self.words(i.operands[1], (i.width + 3) // 4).to_bytes(max(i.width, 4), "little")
        self.shared.update({start + offset: data[offset : offset + 1] for offset in range(i.width)})

    def _stg(self, i: Instruction, _: int) -> None:
        start = self.address(i.operands[0].rpartition("[")[2].rstrip("]"), 2)
        self.stored[start] = self.words(i.operands[1], (i.width + 3) // 4).to_bytes(16, "little")[: i.width]

    _ldl, _stl = _lds, _sts

    def _atomg(self, i: Instruction, _: int) -> None:
        self.set_register(i.operands[1], 0)  # what was there: nobody has come before

    def _shfl(self, i: Instruction, _: int) -> None:
        valid, target, source = i.operands[:3]
        self.set_predicate(valid, True)
        self.set_register(target, self.words(source))

    def _loaded(self, i: Instruction, data: bytes) -> None:
        value = int.from_bytes(data, "little", signed=bool(i.marks & {"S8", "S16"}))
        self.set_register(i.operands[0], value, (i.width + 3) // 4)

    def _set_real(self, i: Instruction, value: float) -> None:
        self.set_register(i.operands[0], as_bits(min(max(value, 0.0), 1.0) if "SAT" in i.marks else value))

    def _set_double(self, target: str, value: float) -> None:
        self.set_register(target, struct.unpack("<Q", struct.pack("<d", value))[0], 2)
