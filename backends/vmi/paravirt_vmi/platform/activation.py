"""VMI_Init: from ring 0 of a PC into ring 1 under a monitor.

The ROM's entry is an invalid instruction, since HLT would halt in ring 0. What the CPU knows becomes what the guest
is told: descriptor tables, control registers, interrupt flag. On return CS and SS have RPL 1, IOPL is 0, the CPU's IF
is set for good, and the guest's flag stands in the shared page.

Ref: Linux 2.6.32 arch/x86/kernel/vmi_32.c (activate_vmi); Intel SDM vol. 3A, 5.5 (privilege levels).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import GuestFault, Segment, layout
from paravirt_vmi.platform import control, descriptors
from paravirt_vmi.platform.layout import (
    EFLAGS_IF,
    EFLAGS_IOPL,
    GUEST_RING,
    INIT_ENTRY,
    PAGE_BYTES,
    ROM_BYTES,
    TSS,
    TSS_LIMIT,
    WORDS,
)

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

FAILED = 1
IO_MAP_OFFSET = 0x66
DB = 1 << 22
DPL = 3 << 13


def wanted(m: Monitor) -> bool:
    """Whether EIP is at the entry of the ROM, run in ring 0."""
    vcpu = m.vcpu
    if vcpu.cpl != 0 or (vcpu.eip - INIT_ENTRY) & 0xFFF:
        return False
    try:
        return vcpu.translate(vcpu.eip) == m.rom_at + INIT_ENTRY
    except GuestFault:
        return False


def initialise(m: Monitor) -> bool:
    """Take the guest over and return to it; EAX says whether that worked. Always True: the call is answered."""
    vcpu = m.vcpu
    base = vcpu.eip - INIT_ENTRY
    problem = _problem(m, base)
    m.count("init" if not problem else "init_refused")
    try:
        back = vcpu.read_u32(vcpu.esp)
        if not problem:
            _take_over(m, base)
    except GuestFault as fault:
        raise m.refuse("Init", f"the guest's stack or GDT cannot be read (vector {fault.vector})") from None
    vcpu.eip, vcpu.esp = back, vcpu.esp + 4
    vcpu.set_reg(layout.EAX, FAILED if problem else 0)
    return True


def refuse_again(m: Monitor) -> None:
    """A second VMI_Init."""
    vcpu = m.vcpu
    m.count("init_refused")
    vcpu.eip += 2  # behind UD2 stands RET
    vcpu.set_reg(layout.EAX, FAILED)


def _problem(m: Monitor, base: int) -> str:
    """Why the guest cannot be taken over; empty if it can."""
    vcpu = m.vcpu
    for offset in range(0, ROM_BYTES + PAGE_BYTES, 0x1000):
        try:
            if vcpu.translate((base + offset) & 0xFFFFFFFF, write=offset >= ROM_BYTES) != m.rom_at + offset:
                return "the ROM is not mapped as a whole"
        except GuestFault:
            return "the ROM is not mapped as a whole"
    for register in (layout.CS, layout.SS):
        segment = vcpu.segment(register)
        if segment.base or segment.limit != 0xFFFFFFFF or not segment.high & DB or not segment.selector & 0xFFFC:
            return "its code and stack segments are not flat"
    return ""


def _take_over(m: Monitor, base: int) -> None:
    vcpu = m.vcpu
    gdtr = vcpu.table(layout.GDTR)
    descriptors.raise_table(m, gdtr.base, gdtr.limit)
    m.base = base
    m.ram.write(m.rom_at, m.rom.at(base))
    m.ram.write(m.page_at, bytes(PAGE_BYTES))

    tr = vcpu.table(layout.TR)
    m.tr = (tr.selector & 0xFFFF, tr.base, tr.limit if tr.selector & 0xFFFC else 0)
    m.ram.write(m.page_at + TSS + IO_MAP_OFFSET, (TSS_LIMIT + 1).to_bytes(2, "little"))
    descriptors.load_own_tss(m)
    descriptors.update_kernel_stack(m, vcpu.segment(layout.SS).selector, vcpu.esp)
    for number in (0, 2, 3, 4):
        m.set_word(f"cr{number}", vcpu.cr(number))
    control.set_sysexit_segments(m, vcpu.msr(control.SYSENTER_CS))

    flags = vcpu.eflags
    m.flag = bool(flags & EFLAGS_IF)
    m.set_byte("pending", m.interrupt_waits)
    vcpu.eflags = flags & ~EFLAGS_IOPL | EFLAGS_IF
    _lower(m)
    m.active = True
    m.machine.engine.virtual_flag(m.page_at + WORDS["flag"])
    m.changed()


def _lower(m: Monitor) -> None:
    """Ring 0 becomes ring 1: the registers that hold kernel segments, and the CPU's privilege level."""
    vcpu = m.vcpu
    for register in (layout.CS, layout.SS):
        segment = vcpu.segment(register)
        lowered = Segment((segment.selector & 0xFFFC) | GUEST_RING, segment.base, segment.limit,
                          segment.high & ~DPL | GUEST_RING << 13)
        vcpu.set_segment(register, lowered, cpl=GUEST_RING if register == layout.CS else None)
    for register in descriptors.DATA_REGISTERS:
        segment = vcpu.segment(register)
        if segment.selector & 0xFFFC and not segment.high & DPL:
            vcpu.set_segment(register, segment._replace(high=segment.high | GUEST_RING << 13))
