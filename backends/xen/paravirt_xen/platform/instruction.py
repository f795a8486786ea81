"""The instruction at EIP, taken apart: prefixes, opcode, the memory operand's address, immediates.

Only 32-bit code with 32-bit addresses: that is what a PV guest's kernel runs on flat segments.

Ref: Intel SDM vol. 2A, chapter 2 (instruction format, tables 2-2 and 2-3).
"""

from __future__ import annotations

import contextlib

from paravirt.api import layout
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError

SEGMENT_PREFIXES = {0x26: layout.ES, 0x2E: layout.CS, 0x36: layout.SS, 0x3E: layout.DS, 0x64: layout.FS,
                    0x65: layout.GS}
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
TWO_BYTES = 0x0F
LONGEST = 15
ESP, EBP = layout.ESP, layout.EBP


class Undecoded(Exception):
    """It is no instruction of the kind that is looked for, or cannot be read."""


class Instruction:
    """
    :ivar opcode: of two bytes, 0x0F00 is added.
    :ivar length: bytes so far: all, when the operands have been taken.
    """

    def __init__(self, domain: Domain) -> None:
        self.vcpu = domain.vcpu
        self.start = self.vcpu.eip
        self._code = _fetch(domain, self.start)
        self.length = 0
        self.segment: int | None = None
        self.wide, self.lock, self.repeat = 4, False, False
        while True:
            byte = self.byte()
            if byte in SEGMENT_PREFIXES:
                self.segment = SEGMENT_PREFIXES[byte]
            elif byte == OPERAND_SIZE:
                self.wide = 2
            elif byte == LOCK:
                self.lock = True
            elif byte in (REP, REPNE):
                self.repeat = True
            elif byte == ADDRESS_SIZE:
                raise Undecoded("16-bit addresses")
            else:
                break
        self.opcode = byte if byte != TWO_BYTES else TWO_BYTES << 8 | self.byte()
        self.modrm = 0

    def byte(self) -> int:
        """The next byte."""
        return self.immediate(1)

    def immediate(self, size: int, signed: bool = False) -> int:
        """The next `size` bytes as a number."""
        at = self.length
        if at + size > len(self._code):
            raise Undecoded("it goes on where there is no code")
        self.length = at + size
        return int.from_bytes(self._code[at : at + size], "little", signed=signed)

    @property
    def register(self) -> int:
        """The middle field of ModRM: a register, or more of the opcode."""
        return self.modrm >> 3 & 7

    def memory_operand(self) -> int:
        """Take ModRM, SIB and displacement; returns the linear address.

        :raises Undecoded: the operand is a register.
        """
        self.modrm = self.byte()
        mod, rm = self.modrm >> 6, self.modrm & 7
        if mod == 3:
            raise Undecoded("no memory operand")
        segment = layout.DS
        address = 0
        if rm == 4:
            sib = self.byte()
            base, index, scale = sib & 7, sib >> 3 & 7, sib >> 6
            if index != 4:
                address = self.vcpu.reg(index) << scale
            if base == 5 and mod == 0:
                address += self.immediate(4)
            else:
                address += self.vcpu.reg(base)
                segment = layout.SS if base in (ESP, EBP) else layout.DS
        elif rm == 5 and mod == 0:
            address = self.immediate(4)
        else:
            address = self.vcpu.reg(rm)
            segment = layout.SS if rm == EBP else layout.DS
        if mod:
            address += self.immediate(1 if mod == 1 else 4, signed=True)
        return self.linear(address, segment)

    def linear(self, offset: int, segment: int) -> int:
        """Linear address of an offset, in the segment of a prefix or else in `segment`."""
        chosen = segment if self.segment is None else self.segment
        return offset + self.vcpu.segment(chosen).base & 0xFFFFFFFF


def _fetch(domain: Domain, eip: int) -> bytes:
    """The bytes of an instruction, as many of them as are mapped."""
    try:
        start = eip + domain.vcpu.segment(layout.CS).base & 0xFFFFFFFF
        room = 4096 - (start & 4095)
        code = domain.read(start, min(LONGEST, room))
        if room < LONGEST:
            with contextlib.suppress(HypercallError):
                code += domain.read(start + room & 0xFFFFFFFF, LONGEST - room)
        return code
    except HypercallError:
        raise Undecoded("the code cannot be read") from None
