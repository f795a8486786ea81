"""Argument types of the ops, and where gcc's regparm(3) puts them.

A spec writes ``def set_pte(ptep: GuestAddr, pte: U64) -> None``; to Python every value is an ``int``, and the
annotation's `ArgType` says how many 32-bit words the guest passes and whether the value is signed. `carry` turns
a parameter list into registers and stack offsets, so the gate, the trace and the conformance suite read the
same layout.

Ref: System V ABI, Intel386 supplement, chapter 3 (words, stack); GCC manual, "x86 Function Attributes",
regparm. Register numbers: Intel SDM vol. 2, table 2-2 (ModRM reg field).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

EAX, ECX, EDX = 0, 1, 2  # ModRM order, not the order in which arguments take them
ARGUMENT_REGISTERS = (EAX, EDX, ECX)
WORD_BYTES = 4


@dataclass(frozen=True)
class ArgType:
    """How one value crosses the boundary: its name, its 32-bit words (1 or 2), and its sign."""

    name: str
    words: int
    signed: bool


# i386 passes nothing narrower than a word: u8 and u16 are zero-extended by the caller.
U8 = Annotated[int, ArgType("u8", words=1, signed=False)]
U16 = Annotated[int, ArgType("u16", words=1, signed=False)]
U32 = Annotated[int, ArgType("u32", words=1, signed=False)]
S32 = Annotated[int, ArgType("s32", words=1, signed=True)]
U64 = Annotated[int, ArgType("u64", words=2, signed=False)]
# A virtual address in the guest's current address space; 0 is the guest's NULL.
GuestAddr = Annotated[int, ArgType("addr", words=1, signed=False)]
# The address of a string that ends with a zero byte.
GuestStr = Annotated[int, ArgType("str", words=1, signed=False)]


class Location(NamedTuple):
    """One word of an argument: in a register (ModRM number), or `stack` bytes into the argument area.

    Offset 0 is the first stack argument, just above the return address. `stack` is 0 for a register.
    """

    register: int | None
    stack: int


class Typed(Protocol):
    """Anything with an `ArgType`, such as a parameter of an op."""

    @property
    def type(self) -> ArgType: ...


def carry(params: Sequence[Typed]) -> tuple[tuple[Location, ...], ...]:
    """Where regparm(3) puts each of `params`: one tuple a parameter, its words low first.

    EAX, EDX and ECX are taken in that order. A two-word argument is never split: when it does not fit the
    registers that are left, it goes to the stack and so does everything after it, even what would fit.
    """
    free = list(ARGUMENT_REGISTERS)
    stack = 0
    placed: list[tuple[Location, ...]] = []
    for param in params:
        words = param.type.words
        if words <= len(free):
            placed.append(tuple(Location(register, 0) for register in free[:words]))
            del free[:words]
        else:
            free.clear()
            placed.append(tuple(Location(None, stack + WORD_BYTES * word) for word in range(words)))
            stack += WORD_BYTES * words
    return tuple(placed)
