"""The state of a thread of NVIDIA machine code, and what operands are in it."""

import re
import struct
from collections.abc import Callable

from benchmarks.sass import Instruction, Kernel
from benchmarks.sass_numbers import MASK, as_float, neighbours, operand, parts, signed, signed_real


class Registers:
    """Registers, predicates, constants and shared memory.

    Args:
        kernel: whose code is run.
        constants: constant bank 0, with the arguments.
        read: (address, bytes) -> what lies there in global memory.
    """

    def __init__(self, kernel: Kernel, constants: bytes, read: Callable[[int, int], bytes]) -> None:
        self.kernel, self.constants, self.read = kernel, constants, read
        self.registers: dict[str, int] = {}
        self.predicates: dict[str, bool] = {}
        self.shared: dict[int, bytes] = {}
        self.stored: dict[int, bytes] = {}  # to global memory
        self.unknown: set[str] = set()
        self.place: int | None = None

    def predicate(self, text: str) -> bool:
        """P0, !P0, PT."""
        name = text.lstrip("!")
        value = True if name in ("PT", "UPT") else self.predicates.get(name, False)
        return value != text.startswith("!")

    def set_predicate(self, name: str, value: bool) -> None:
        """PT stays true."""
        if name not in ("PT", "UPT"):
            self.predicates[name] = value

    def set_register(self, name: str, value: int, words: int = 1) -> None:
        """Of 32 bits, and those behind it where a value has more; RZ stays 0."""
        if name in ("RZ", "URZ"):
            return
        if words == 1:
            self.registers[name] = value & MASK
            return
        for word, each in enumerate(neighbours(name)[:words]):
            self.registers[each] = value >> 32 * word & MASK

    def words(self, text: str, words: int = 1) -> int:
        """The bits of an operand: register, constant or number; without its sign."""
        kind, payload = operand(text)
        if kind == "register" and words == 1:
            return self.registers.get(payload, 0)
        if kind == "register":
            return sum(
                self.registers.get(each, 0) << 32 * word for word, each in enumerate(neighbours(payload)[:words])
            )
        if kind == "constant":
            return self.constant(payload[0], self.address(payload[1]), 4 * words)
        return payload & (1 << 32 * words) - 1

    def constant(self, bank: str, address: int, size: int) -> int:
        """Of a constant bank; what lies beyond its end is 0."""
        data = self.kernel.tables if bank == "2" else self.constants
        return int.from_bytes(data[address : address + size].ljust(size, b"\0"), "little")

    def address(self, text: str, words: int = 1) -> int:
        """The sum of what stands in brackets; the first register, and uniform ones, have `words` of 32 bits."""
        total = 0
        for number, (part, wide, scale) in enumerate(parts(text)):
            total += scale * self.words(part, 2 if wide else words if number == 0 or part[:2] == "UR" else 1)
        return total

    def integer(self, text: str, words: int = 1) -> int:
        """An operand's bits with its sign."""
        value, limit = self.words(text, words), (1 << 32 * words) - 1
        if "|" in text:
            value = abs(signed(value, 32 * words))
        return (~value if text.startswith("~") else -value if text.startswith("-") else value) & limit

    def real(self, text: str) -> float:
        """An operand of float32."""
        return signed_real(text, lambda name: as_float(self.words(name)))

    def double(self, text: str) -> float:
        """An operand of float64, a pair of registers."""
        return signed_real(text, lambda name: struct.unpack("<d", struct.pack("<Q", self.words(name, 2)))[0])

    def split(self, instruction: Instruction) -> tuple[str, list[str], list[str]]:
        """The register that is written, the predicates that are written beside it, and what is read."""
        target, *rest = instruction.operands
        if re.fullmatch(r"!?U?P(\d|T)", target):  # LOP3 names its predicate first
            return rest[0], [target], rest[1:]
        written = []
        while rest and re.fullmatch(r"U?P(\d|T)", rest[0]) and len(rest) > 3:
            written.append(rest.pop(0))
        return target, written, rest
