"""Ports: the kernel may use all of them, a user what IOPL and the I/O bit map of its TSS allow.

The CPU's TSS has no bit map and its IOPL is 0 in ring 1, so the CPU refuses; what counts is what the guest believes in:
the IOPL of SetIOPLMask and the TSS of SetTR. A user gets that IOPL on the way to ring 3 (interrupts.py), so PUSHF shows
it and CLI does not fault, without an effect on what interrupts the guest takes.

Ref: Intel SDM vol. 1, 19.5 (I/O privilege level and permission bit map); vol. 2, IN, INS, OUT, OUTS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import GuestFault, Vcpu, layout
from paravirt_vmi.platform.layout import GUEST_RING

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

IO_MAP_OFFSET, EFLAGS_DF, USER_RING = 0x66, 0x400, 3
TSS_LIMIT_WITHOUT_MAP = 0x67


def allowed(m: Monitor, vcpu: Vcpu, port: int, size: int) -> bool:
    """The platform's port check."""
    if not m.active:
        return vcpu.port_allowed(port, size)
    if vcpu.cpl <= max(GUEST_RING, m.iopl):
        return True
    _, base, limit = m.tr
    if limit < TSS_LIMIT_WITHOUT_MAP:
        return False
    try:
        offset = vcpu.read_u16(base + IO_MAP_OFFSET) + (port >> 3)
        if offset + 1 > limit:
            return False
        bits = vcpu.read_u16(base + offset) >> (port & 7)
    except GuestFault:
        return False
    return not bits & ((1 << size) - 1)


def set_iopl_mask(m: Monitor, mask: int) -> None:
    m.iopl = mask >> 12 & 3
    m.set_byte("iopl", m.iopl)
    m.changed()


def io_delay(m: Monitor) -> None:
    """No device is slow."""


def read(m: Monitor, port: int, size: int) -> int:
    """IN, in the guest's name."""
    return m.machine.dispatcher.port_in(port & 0xFFFF, size)


def write(m: Monitor, port: int, size: int, value: int) -> None:
    """OUT, in the guest's name."""
    m.machine.dispatcher.port_out(port & 0xFFFF, size, value & (1 << 8 * size) - 1)


def in_long(m: Monitor, port: int) -> int:
    return read(m, port, 4)


def in_word(m: Monitor, port: int) -> int:
    return read(m, port, 2)


def in_byte(m: Monitor, port: int) -> int:
    return read(m, port, 1)


def out_long(m: Monitor, value: int, port: int) -> None:
    write(m, port, 4, value)


def out_word(m: Monitor, value: int, port: int) -> None:
    write(m, port, 2, value)


def out_byte(m: Monitor, value: int, port: int) -> None:
    write(m, port, 1, value)


def string(m: Monitor, port: int, size: int, *, out: bool) -> None:
    """One element of INS or OUTS: memory at ES:EDI, or DS:ESI."""
    vcpu = m.vcpu
    register, segment = (layout.ESI, layout.DS) if out else (layout.EDI, layout.ES)
    address = (vcpu.segment(segment).base + vcpu.reg(register)) & 0xFFFFFFFF
    user = vcpu.cpl == USER_RING
    if out:
        write(m, port, size, int.from_bytes(vcpu.read(address, size, user=user), "little"))
    else:
        vcpu.translate(address, write=True, user=user)  # a fault comes before the device is asked
        vcpu.write(address, read(m, port, size).to_bytes(size, "little"), user=user)
    step = -size if vcpu.eflags & EFLAGS_DF else size
    vcpu.set_reg(register, vcpu.reg(register) + step)


def _repeat(m: Monitor, port: int, size: int, *, out: bool) -> None:
    vcpu = m.vcpu
    while vcpu.reg(layout.ECX):
        string(m, port, size, out=out)
        vcpu.set_reg(layout.ECX, vcpu.reg(layout.ECX) - 1)
        if m.machine.outcome is not None:
            return


def ins_long(m: Monitor, port: int) -> None:
    _repeat(m, port, 4, out=False)


def ins_word(m: Monitor, port: int) -> None:
    _repeat(m, port, 2, out=False)


def ins_byte(m: Monitor, port: int) -> None:
    _repeat(m, port, 1, out=False)


def outs_long(m: Monitor, port: int) -> None:
    _repeat(m, port, 4, out=True)


def outs_word(m: Monitor, port: int) -> None:
    _repeat(m, port, 2, out=True)


def outs_byte(m: Monitor, port: int) -> None:
    _repeat(m, port, 1, out=True)
