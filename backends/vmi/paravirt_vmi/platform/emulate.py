"""Privileged instructions of ring 1: what a guest does by itself where it could call the ROM.

GetRelocationInfo may answer NONE for almost every call, and Linux never calls for some things (RDMSR, raw HLT, ports).
The instruction then is #GP, and what the call would do is done here. What is not in the table is a fault of the guest.

Ref: Intel SDM vol. 2A, 2.1 (instruction format), appendix A.3 (opcode maps), and each instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.api import GuestFault, layout
from paravirt_vmi.platform import control, descriptors, interrupts, mmu, ports
from paravirt_vmi.platform.layout import GUEST_RING

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

MAX_BYTES = 15
SEGMENT_PREFIXES = {
    0x26: layout.ES, 0x2E: layout.CS, 0x36: layout.SS, 0x3E: layout.DS, 0x64: layout.FS, 0x65: layout.GS}
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = 0x66, 0x67, 0xF0, 0xF2, 0xF3
REGISTER_FORM = 3
GP = 13


class Decoder:
    """Reads one instruction at EIP."""

    def __init__(self, m: Monitor) -> None:
        self._m, self._vcpu = m, m.vcpu
        self._code = m.vcpu.segment(layout.CS).base
        self.start = self.at = m.vcpu.eip
        self.segment: int | None = None
        self.wide, self.repeated, self.plain = True, False, True
        while (byte := self.byte()) in SEGMENT_PREFIXES or byte in (OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP):
            self.segment = SEGMENT_PREFIXES.get(byte, self.segment)
            self.wide &= byte != OPERAND_SIZE
            self.repeated |= byte in (REP, REPNE)
            self.plain &= byte not in (LOCK, ADDRESS_SIZE)  # forms that no kernel uses here
        self.opcode = byte

    def byte(self) -> int:
        if self.at - self.start >= MAX_BYTES:
            raise GuestFault(GP, 0)
        value = self._vcpu.read((self._code + self.at) & 0xFFFFFFFF, 1)[0]
        self.at += 1
        return value

    def modrm(self) -> tuple[int, int, int]:
        """mod, reg, rm."""
        value = self.byte()
        return value >> 6, value >> 3 & 7, value & 7

    def _displacement(self, length: int) -> int:
        data = bytes(self.byte() for _ in range(length))
        return int.from_bytes(data, "little", signed=True)

    def address(self, mod: int, rm: int) -> int:
        """Linear address of a memory operand in 32-bit form."""
        vcpu = self._vcpu
        default = layout.DS
        if rm == 4:
            sib = self.byte()
            scale, index, base = sib >> 6, sib >> 3 & 7, sib & 7
            value = 0 if index == 4 else vcpu.reg(index) << scale
            if base == 5 and mod == 0:
                value += self._displacement(4)
            else:
                value += vcpu.reg(base)
                default = layout.SS if base in (layout.ESP, layout.EBP) else default
        elif rm == 5 and mod == 0:
            value = self._displacement(4)
        else:
            value = vcpu.reg(rm)
            default = layout.SS if rm == layout.EBP else default
        if mod in (1, 2):
            value += self._displacement(1 if mod == 1 else 4)
        segment = default if self.segment is None else self.segment
        return (vcpu.segment(segment).base + value) & 0xFFFFFFFF

    def word(self, mod: int, rm: int) -> int:
        """A 16-bit operand in a register or in memory."""
        return self._vcpu.reg(rm) & 0xFFFF if mod == REGISTER_FORM else self._vcpu.read_u16(self.address(mod, rm))


def instruction(m: Monitor) -> bool:
    """Emulate the instruction at EIP that raised #GP, if the guest may do what it says.

    :raises GuestFault: it may not, and this is what it gets.
    """
    decoder = Decoder(m)
    ring = m.vcpu.cpl
    if not decoder.plain:
        return False
    port = _PORTS.get(decoder.opcode)
    if port is not None:
        return _port(m, decoder, *port)
    if ring != GUEST_RING:
        return False
    action = _two_bytes(m, decoder) if decoder.opcode == 0x0F else _ONE_BYTE.get(decoder.opcode)
    if action is None:
        return False
    name, act = action
    m.count(f"emulated.{name}")
    m.vcpu.eip = decoder.at
    try:
        act(m)
    except GuestFault:
        m.vcpu.eip = decoder.start
        raise
    return True


Act = Callable[["Monitor"], object]


def _hlt(m: Monitor) -> None:
    """Waits for an interrupt if they are on; else the machine has come to its end."""
    m.make_up()
    if m.interrupt_waits and m.flag:
        interrupts.attention(m)
    else:
        m.machine.engine.halt()


_ONE_BYTE: dict[int, tuple[str, Act]] = {
    0xF4: ("hlt", _hlt),
    0xFA: ("cli", interrupts.disable),
    0xFB: ("sti", interrupts.enable),
}


def _two_bytes(m: Monitor, d: Decoder) -> tuple[str, Act] | None:
    vcpu = m.vcpu
    opcode = d.byte()
    if opcode == 0x06:
        return "clts", control.clts
    if opcode in (0x08, 0x09):
        return ("invd", "wbinvd")[opcode - 8], control.wbinvd
    if opcode == 0x30:
        low, high = vcpu.reg(layout.EAX), vcpu.reg(layout.EDX)
        return "wrmsr", lambda m: control.write_msr(m, vcpu.reg(layout.ECX), low, high)
    if opcode == 0x32:
        return "rdmsr", _rdmsr
    if opcode == 0x33:
        return "rdpmc", lambda m: control.read_pmc(m, vcpu.reg(layout.ECX))
    if opcode == 0x35:
        return "sysexit", _sysexit
    if opcode in (0x20, 0x21, 0x22, 0x23):
        _, number, register = d.modrm()
        return _move(m, opcode, number, register)
    if opcode == 0x00:
        mod, kind, rm = d.modrm()
        if kind in (2, 3):
            selector = d.word(mod, rm)
            load = descriptors.set_ldt if kind == 2 else descriptors.set_tr
            return ("lldt", "ltr")[kind - 2], lambda m: load(m, selector)
    if opcode == 0x01:
        return _group7(m, d)
    return None


def _group7(m: Monitor, d: Decoder) -> tuple[str, Act] | None:
    mod, kind, rm = d.modrm()
    if kind == 6:
        value = d.word(mod, rm)
        return "lmsw", lambda m: control.set_cr0(m, m.vcpu.cr(0) & ~0xE | value & 0xF)
    if mod == REGISTER_FORM or kind not in (2, 3, 7):
        return None
    address = d.address(mod, rm)
    if kind == 7:
        return "invlpg", lambda m: mmu.invalidate_page(m, address)
    load = descriptors.set_gdt if kind == 2 else descriptors.set_idt
    return ("lgdt", "lidt")[kind - 2], lambda m: load(m, address)


def _move(m: Monitor, opcode: int, number: int, register: int) -> tuple[str, Act] | None:
    """MOV between a general register and a control or debug register."""
    vcpu = m.vcpu
    value = vcpu.reg(register)
    if opcode == 0x20 and number in (0, 2, 3, 4):
        return f"mov_from_cr{number}", lambda m: vcpu.set_reg(register, m.word(f"cr{number}"))
    if opcode == 0x22 and number in _SET_CR:
        return f"mov_to_cr{number}", lambda m: _SET_CR[number](m, value)
    if opcode == 0x21:
        return "mov_from_dr", lambda m: vcpu.set_reg(register, control.get_dr(m, number))
    if opcode == 0x23:
        return "mov_to_dr", lambda m: control.set_dr(m, number, value)
    return None


def _set_cr3(m: Monitor, value: int) -> None:
    m.make_up()
    control.set_cr3(m, value)


_SET_CR: dict[int, Callable[[Monitor, int], object]] = {
    0: control.set_cr0, 2: control.set_cr2, 3: _set_cr3, 4: control.set_cr4}


def _rdmsr(m: Monitor) -> None:
    value = control.read_msr(m, m.vcpu.reg(layout.ECX))
    m.vcpu.set_reg(layout.EAX, value)
    m.vcpu.set_reg(layout.EDX, value >> 32)


def _sysexit(m: Monitor) -> None:
    """The ROM's code takes the same registers."""
    m.vcpu.eip = m.base + m.rom.symbols["SYSEXIT"]


# opcode: bytes (0: 2 or 4, by prefix), port in an immediate byte, OUT, string
_PORTS = {
    0xE4: (1, True, False, False), 0xE5: (0, True, False, False), 0xE6: (1, True, True, False),
    0xE7: (0, True, True, False), 0xEC: (1, False, False, False), 0xED: (0, False, False, False),
    0xEE: (1, False, True, False), 0xEF: (0, False, True, False), 0x6C: (1, False, False, True),
    0x6D: (0, False, False, True), 0x6E: (1, False, True, True), 0x6F: (0, False, True, True),
}


def _port(m: Monitor, d: Decoder, size: int, immediate: bool, out: bool, string: bool) -> bool:
    """IN and OUT, which the CPU refused by an IOPL and a TSS that are not the guest's."""
    vcpu = m.vcpu
    size = size or (4 if d.wide else 2)
    port = d.byte() if immediate else vcpu.reg(layout.EDX) & 0xFFFF
    if not ports.allowed(m, vcpu, port, size):
        return False
    m.count("emulated.ports")
    count = vcpu.reg(layout.ECX)
    if string and not (d.repeated and not count):
        ports.string(m, port, size, out=out)
        if d.repeated:
            vcpu.set_reg(layout.ECX, count - 1)
            if count > 1:
                return True  # the instruction goes on with the next element
    elif not string and out:
        ports.write(m, port, size, vcpu.reg(layout.EAX))
    elif not string:
        mask = (1 << 8 * size) - 1
        vcpu.set_reg(layout.EAX, vcpu.reg(layout.EAX) & ~mask | ports.read(m, port, size) & mask)
    vcpu.eip = d.at
    return True
