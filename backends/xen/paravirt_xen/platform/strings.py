"""INS and OUTS, with REP: ports of a domU, memory of the guest.

Ref: Xen arch/x86/pv/emul-priv-op.c (rep_ins, rep_outs); Intel SDM vol. 2, INS, OUTS.
"""

from __future__ import annotations

from paravirt.api import GuestFault, Segment, layout
from paravirt_xen.platform import ports
from paravirt_xen.platform.decode import Instruction
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.traps import GENERAL_PROTECTION, RING3

AT_ONCE = 64  # repetitions before the guest gets to run
STACK_FAULT = 12
EFLAGS_DF = 0x400
CODE, READABLE_OR_WRITABLE, SYSTEM = 1 << 11, 1 << 9, 1 << 12


def string_io(domain: Domain, ins: Instruction) -> int | None:
    """INS or OUTS; 0 if repetitions are left.

    :raises GuestFault: at the first repetition that faults; those before are done.
    """
    vcpu = domain.vcpu
    size = ins.operand if ins.opcode & 1 else 1
    port = vcpu.reg(layout.EDX) & 0xFFFF
    if not ports.allowed(domain, port, size):
        return None
    outs = bool(ins.opcode & 2)
    mask = (1 << 8 * ins.address) - 1
    index = layout.ESI if outs else layout.EDI
    which = layout.ES if not outs else layout.DS if ins.segment is None else ins.segment
    segment = vcpu.segment(which)
    _check_kind(segment, writes=not outs)
    step = -size if vcpu.eflags & EFLAGS_DF else size
    left = vcpu.reg(layout.ECX) & mask if ins.rep else 1
    for _ in range(min(left, AT_ONCE)):
        offset = vcpu.reg(index) & mask
        if offset + size - 1 > segment.limit:
            raise GuestFault(STACK_FAULT if which == layout.SS else GENERAL_PROTECTION)
        va, user = segment.base + offset & 0xFFFFFFFF, vcpu.cpl == RING3
        if outs:
            ports.write(domain, port, size, int.from_bytes(vcpu.read(va, size, user=user), "little"))
        else:
            vcpu.write(va, ports.read(domain, port, size).to_bytes(size, "little"), user=user)
        vcpu.set_reg(index, vcpu.reg(index) & ~mask | offset + step & mask)
        if ins.rep:
            left -= 1
            vcpu.set_reg(layout.ECX, vcpu.reg(layout.ECX) & ~mask | left)
    return 0 if ins.rep and left else ins.length


def _check_kind(segment: Segment, *, writes: bool) -> None:
    """A segment that was loaded is present; whether it may be written, or read, is for each access to find."""
    high = segment.high
    readable = not high & CODE or bool(high & READABLE_OR_WRITABLE)
    writable = not high & CODE and bool(high & READABLE_OR_WRITABLE)
    if not high & SYSTEM or not (writable if writes else readable):
        raise GuestFault(GENERAL_PROTECTION)
