"""Operands and numbers of NVIDIA machine code: texts of a listing, bits, arithmetic at its limits."""

import math
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

MASK = 0xFFFFFFFF
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "GE": lambda a, b: a >= b, "GT": lambda a, b: a > b, "LE": lambda a, b: a <= b, "LT": lambda a, b: a < b,
    "EQ": lambda a, b: a == b, "NE": lambda a, b: a != b and a == a and b == b,
    "GEU": lambda a, b: not a < b, "GTU": lambda a, b: not a <= b, "LEU": lambda a, b: not a > b,
    "LTU": lambda a, b: not a >= b, "EQU": lambda a, b: a == b or a != a or b != b, "NEU": lambda a, b: a != b,
    "NUM": lambda a, b: a == a and b == b, "NAN": lambda a, b: a != a or b != b,
}  # fmt: skip
JOIN: dict[str, Callable[[bool, bool], bool]] = {
    "AND": lambda a, b: a and b,
    "OR": lambda a, b: a or b,
    "XOR": lambda a, b: a != b,
}


@cache
def operand(text: str) -> tuple[str, Any]:
    """What an operand without its sign is: a register's name, (bank, address) of a constant, or a number."""
    text = re.sub(r"\.(H\d_H\d|B\d|U?64|U32|X\d+)$", "", text.strip("-~|"))
    if match := re.match(r"c\[0x(\w+)\]\s*\[(.*)\]", text):
        return "constant", match.groups()
    if re.fullmatch(r"U?R(\d+|Z)", text):
        return ("number", 0) if text.endswith("Z") else ("register", text)
    return "number", 0 if text == "SRZ" else int(text, 0)


@cache
def neighbours(name: str) -> tuple[str, ...]:
    """A register and the three behind it."""
    kind, number = name.rstrip("0123456789"), int(name.lstrip("UR"))
    return tuple(f"{kind}{number + word}" for word in range(4))


@cache
def parts(text: str) -> list[tuple[str, bool, int]]:
    """Of an address: each summand, whether it has 64 bits, and what it is multiplied by."""
    found = []
    for part in text.replace("+-", "+~").split("+"):
        scale = re.search(r"\.X(\d+)$", part)
        found.append((part.lstrip("~"), ".64" in part, (-1 if part[0] == "~" else 1) * (int(scale[1]) if scale else 1)))
    return found


def signed(value: int, bits: int = 32) -> int:
    """Two's complement."""
    return value - (1 << bits) if value >> bits - 1 & 1 else value


def lookup(table: int, a: int, b: int, c: int) -> int:
    """Each bit from a table of eight, at the place that the bits of a, b and c name."""
    value = 0
    for index in range(8):
        if table >> index & 1:
            value |= (a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c)
    return value & MASK


def as_float(bits: int) -> float:
    """The number that 32 bits are."""
    value: float = struct.unpack("<f", struct.pack("<I", bits & MASK))[0]
    return value


def _nearest(value: float, number: str, integer: str) -> int:
    """The bits of the nearest number of a type; infinity's beyond the largest."""
    try:
        packed = struct.pack(number, value)
    except OverflowError:
        packed = struct.pack(number, math.copysign(math.inf, value))
    bits: int = struct.unpack(integer, packed)[0]
    return bits


def as_bits(value: float) -> int:
    """The nearest float32."""
    return _nearest(value, "<f", "<I")


def addend(value: int, text: str) -> int:
    """A negative register counts as what it is in two's complement, which decides about the carry."""
    return (~value & MASK) + 1 if text.startswith("-") else ~value & MASK if text.startswith("~") else value


def number_of(text: str) -> float:
    """A number as float operands give it."""
    name = text.strip().lstrip("+").lower().replace("qnan", "nan").replace("snan", "nan")
    return float(int(name, 0)) if "0x" in name else float(name)


def signed_real(text: str, register: Callable[[str], float]) -> float:
    text = text.strip()
    bare = text.strip("-|")
    if re.match(r"U?R(\d+|Z)|c\[", bare):
        value = register(bare)
        value = abs(value) if "|" in text else value
        return -value if text.startswith("-") else value
    return number_of(text)


def product(a: float, b: float) -> float:
    try:
        return a * b
    except OverflowError:
        return math.inf


def special(name: str, x: float) -> float:
    """The special functions, where they are defined; limits elsewhere."""
    try:
        return {
            "EX2": lambda: 2.0**x,
            "RCP": lambda: 1 / x,
            "LG2": lambda: math.log2(x),
            "RSQ": lambda: 1 / math.sqrt(x),
            "SQRT": lambda: math.sqrt(x),
            "TANH": lambda: math.tanh(x),
            "SIN": lambda: math.sin(x),
            "COS": lambda: math.cos(x),
        }[name]()
    except (OverflowError, ZeroDivisionError):
        return math.inf
    except ValueError:
        return -math.inf if x == 0 else math.nan


def bfloat_bits(value: float) -> int:
    bits = as_bits(value)
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16 & 0xFFFF


def float16_bits(value: float) -> int:
    return _nearest(value, "<e", "<H")
