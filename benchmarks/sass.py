"""NVIDIA machine code: a listing of cuobjdump's becomes kernels, whose instructions sass_thread.py can run."""

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property

FUNCTION = re.compile(r"Function : (\S+)")
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*([^;]*?)\s*;")
RESOURCES = re.compile(r"REG:(\d+)")
SPLIT = re.compile(r",\s*(?![^\[]*\])")


@dataclass(frozen=True)
class Instruction:
    """One line of a listing."""

    address: int
    guard: str  # "P0", "!P0", or "" for always
    name: str  # with what it is modified by, such as IMAD.WIDE.U32
    operands: tuple[str, ...]

    @cached_property
    def stem(self) -> str:
        """The name alone, such as IMAD."""
        return self.name.partition(".")[0]

    @cached_property
    def marks(self) -> frozenset[str]:
        """What follows the name."""
        return frozenset(self.name.split(".")[1:])

    @cached_property
    def kind(self) -> str:
        """Memory, float, integer, special or other."""
        return kind_of(self.stem)

    @cached_property
    def width(self) -> int:
        """Bytes of an access to memory."""
        sizes = {"128": 16, "64": 8, "U8": 1, "S8": 1, "U16": 2, "S16": 2}
        return next((sizes[mark] for mark in self.marks if mark in sizes), 4)

    @cached_property
    def reads(self) -> frozenset[int]:
        """General registers that it reads, as far as a load's result is concerned."""
        sources = self.operands if self.stem in ("STG", "STS", "STL", "ST", "BRX", "RET") else self.operands[1:]
        wide = 2 if self.stem[0] == "D" or self.marks & {"WIDE", "64"} else 4 if "128" in self.marks else 1
        found = set()
        for operand in sources:
            for number in re.findall(r"(?<![U\w])R(\d+)", operand):
                spread = 2 if ".64" in operand else 1 if self.stem in ("LDG", "LDS") else wide
                found.update(range(int(number), int(number) + spread))
        return frozenset(found)

    @cached_property
    def loads(self) -> frozenset[int]:
        """General registers that a load fills."""
        first = re.fullmatch(r"R(\d+)", self.operands[0])
        return frozenset(range(int(first[1]), int(first[1]) + (self.width + 3) // 4)) if first else frozenset()


MEMORY = ("LDG", "STG", "LDS", "STS", "LDL", "STL", "LD", "ST", "ATOM", "ATOMG", "ATOMS", "RED", "LDGSTS", "LDSM")
INTEGER = (
    "IMAD", "IADD3", "ISETP", "LEA", "SHF", "LOP3", "PRMT", "SEL", "VIADD", "VIMNMX", "VIADDMNMX", "IMNMX", "IABS",
    "MOV", "POPC", "FLO", "BREV", "P2R", "R2P", "PLOP3", "SGXT", "BMSK",
)  # fmt: skip
UNIFORM = "U"  # the same once for all threads of a warp, by a unit of its own
CONVERSIONS = ("F2F", "F2I", "I2F", "I2I", "FRND")


def kind_of(stem: str) -> str:
    """What an instruction counts as; control, barriers, shuffles and constants are other."""
    if stem in MEMORY:
        return "memory"
    if stem == "MUFU" or stem in CONVERSIONS:
        return "special"
    if stem.removeprefix(UNIFORM) in INTEGER:
        return "integer"
    if stem[0] in "FHD" and stem != "DEPBAR":
        return "float"
    return "other"


@dataclass
class Kernel:
    """A compiled kernel.

    Attributes:
        name: mangled.
        code: address -> instruction.
        tables: what its indirect branches read, constant bank 2.
        registers: of a thread.
    """

    name: str
    code: dict[int, Instruction] = field(default_factory=dict)
    tables: bytes = b""
    registers: int = 0


def parse(listing: str) -> dict[str, Kernel]:
    """The kernels of a listing of `cuobjdump -sass -res-usage`, by their mangled names."""
    found: dict[str, Kernel] = {}
    kernel = None
    for line in listing.splitlines():
        if (match := FUNCTION.search(line)) or (match := re.match(r"\s*Function (\S+):", line)):
            kernel = found.setdefault(match[1], Kernel(match[1]))
        elif kernel and (match := RESOURCES.search(line)):
            kernel.registers = int(match[1])
        elif kernel and (match := INSTRUCTION.match(line)):
            operands = tuple(SPLIT.split(re.sub(r"\.reuse", "", match[4]))) if match[4] else ()
            instruction = Instruction(int(match[1], 16), match[2] or "", match[3], operands)
            kernel.code[instruction.address] = instruction
    return {name: kernel for name, kernel in found.items() if kernel.code}


def branch_tables(cubin: bytes) -> dict[str, bytes]:
    """Constant bank 2 of each kernel of an ELF file, by mangled names."""
    offset, size, count, names = (*struct.unpack_from("<Q", cubin, 0x28), *struct.unpack_from("<3H", cubin, 0x3A))
    headers = [struct.unpack_from("<IIQQQQ", cubin, offset + number * size) for number in range(count)]
    strings = headers[names][4]
    found = {}
    for name, _, _, _, begin, length in headers:
        text = cubin[strings + name : cubin.index(b"\0", strings + name)].decode()
        if text.startswith(".nv.constant2."):
            found[text.removeprefix(".nv.constant2.")] = cubin[begin : begin + length]
    return found
