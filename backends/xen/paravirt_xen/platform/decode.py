"""Privileged instructions, as far as a guest may execute them without privilege: decoded from its memory.

Far calls and jumps as well, for those that go through a call gate.

Ref: Intel SDM vol. 2A, 2.1 (instruction format), appendix A (opcode map).
"""

from __future__ import annotations

from typing import NamedTuple

from paravirt.api import layout
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError

LONGEST = 15
SEGMENT_PREFIXES = {0x26: layout.ES, 0x2E: layout.CS, 0x36: layout.SS, 0x3E: layout.DS, 0x64: layout.FS,
                    0x65: layout.GS}
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
CALL_FAR, JMP_FAR, INDIRECT = 0x9A, 0xEA, 0xFF
IMMEDIATE = frozenset({0xE4, 0xE5, 0xE6, 0xE7})
WITH_MODRM = frozenset({0x01, 0x20, 0x21, 0x22, 0x23})  # behind 0F


class Instruction(NamedTuple):
    """:ivar opcode: of two bytes, 0x0F00 and the second one. :ivar operand: bytes of an operand, 2 or 4.

    :ivar address: bytes of an address. :ivar segment: of an override, else None. :ivar modrm: or the immediate.
    """

    opcode: int
    length: int
    operand: int
    address: int
    segment: int | None
    rep: bool
    modrm: int
    offset: int  # effective address of a memory operand, of INVLPG


def fetch(domain: Domain) -> bytes:
    """The bytes at EIP, as far as they are mapped."""
    vcpu = domain.vcpu
    at = vcpu.segment(layout.CS).base + vcpu.eip & 0xFFFFFFFF
    for size in (LONGEST, min(LONGEST, 4096 - (at & 4095))):
        try:
            return domain.read(at, size)
        except HypercallError:
            continue
    return b""


class Prefixes(NamedTuple):
    """What stands before the opcode; fields as those of `Instruction`. :ivar end: where the opcode is."""

    operand: int
    address: int
    segment: int | None
    rep: bool
    end: int


def _prefixes(domain: Domain, code: bytes) -> Prefixes:
    """:raises IndexError: there is nothing but prefixes."""
    wide = bool(domain.vcpu.state.words[layout.HFLAGS] & layout.HF_CS32)
    operand = address = 4 if wide else 2
    segment, rep, at = None, False, 0
    while True:
        byte = code[at]
        if byte in SEGMENT_PREFIXES:
            segment = SEGMENT_PREFIXES[byte]
        elif byte == OPERAND_SIZE:
            operand = 2 if wide else 4
        elif byte == ADDRESS_SIZE:
            address = 2 if wide else 4
        elif byte in (REP, REPNE):
            rep = True
        else:
            return Prefixes(operand, address, segment, rep, at)
        at += 1


def decode(domain: Domain, code: bytes) -> Instruction | None:
    """None: no instruction that could be emulated, or not all of it is mapped."""
    try:
        operand, address, segment, rep, at = _prefixes(domain, code)
        opcode, at = code[at], at + 1
        modrm = offset = 0
        if opcode == 0x0F:
            opcode, at = 0x0F00 | code[at], at + 1
            if opcode & 0xFF in WITH_MODRM:
                modrm, at = code[at], at + 1
                if modrm < 0xC0 and opcode == 0x0F01:
                    offset, at = _effective_address(domain, code, at, modrm, address)
        elif opcode in IMMEDIATE:
            modrm, at = code[at], at + 1
    except IndexError:
        return None
    return Instruction(opcode, at, operand, address, segment, rep, modrm, offset)


class Far(NamedTuple):
    """A far call or jump. :ivar selector: where to; :ivar length: of the instruction."""

    call: bool
    selector: int
    length: int


def decode_far(domain: Domain) -> Far | None:
    """The far call or jump at EIP; None: another instruction.

    :raises GuestFault: of reading an indirect one's operand.
    """
    code, vcpu = fetch(domain), domain.vcpu
    try:
        operand, address, segment, _, at = _prefixes(domain, code)
        opcode, at = code[at], at + 1
        if opcode in (CALL_FAR, JMP_FAR):
            selector = int.from_bytes(_take(code, at + operand, 2), "little")
            return Far(opcode == CALL_FAR, selector, at + operand + 2)
        if opcode != INDIRECT or code[at] >= 0xC0 or code[at] >> 3 & 7 not in (3, 5):
            return None
        call = code[at] >> 3 & 7 == 3
        offset, end = _effective_address(domain, code, at + 1, code[at], address)
    except IndexError:
        return None
    va = vcpu.segment(layout.DS if segment is None else segment).base + offset + operand & 0xFFFFFFFF
    return Far(call, int.from_bytes(vcpu.read(va, 2, user=vcpu.cpl == 3), "little"), end)


def _effective_address(domain: Domain, code: bytes, at: int, modrm: int, size: int) -> tuple[int, int]:
    """Of a memory operand: the offset in its segment, and where the instruction goes on."""
    mode, rm = modrm >> 6, modrm & 7
    reg = domain.vcpu.reg
    if size == 2:
        bases = ((layout.EBX, layout.ESI), (layout.EBX, layout.EDI), (layout.EBP, layout.ESI),
                 (layout.EBP, layout.EDI), (layout.ESI,), (layout.EDI,), (layout.EBP,), (layout.EBX,))[rm]
        value = 0 if mode == 0 and rm == 6 else sum(reg(base) for base in bases)
        width = 2 if mode == 2 or (mode == 0 and rm == 6) else mode
        displacement = int.from_bytes(_take(code, at, width), "little", signed=True)
        return value + displacement & 0xFFFF, at + width
    base: int | None = rm
    value = 0
    if rm == 4:
        sib, at = code[at], at + 1
        base = sib & 7
        if sib >> 3 & 7 != 4:
            value = reg(sib >> 3 & 7) << (sib >> 6)
    width = (0, 1, 4)[mode]
    if base == 5 and mode == 0:
        base, width = None, 4
    if base is not None:
        value += reg(base)
    return value + int.from_bytes(_take(code, at, width), "little", signed=True) & 0xFFFFFFFF, at + width


def _take(code: bytes, at: int, size: int) -> bytes:
    if at + size > len(code):
        raise IndexError
    return code[at : at + size]
