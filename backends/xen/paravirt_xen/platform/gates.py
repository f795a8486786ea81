"""Call gates of the guest's tables: far calls and jumps through them, emulated at the #GP that they raise.

A gate stands in the table with DPL 0 (descriptors.py), so the CPU refuses it with its selector for the error code.
Who may use it says the RPL of its target. A call from ring 3 to ring 1 goes to the stack of stack_switch, with the
gate's parameters copied; nothing of it touches the event mask.

Ref: Xen arch/x86/pv/emul-gate-op.c; Intel SDM vol. 3A, 5.8.3 to 5.8.5 (call gates).
"""

from __future__ import annotations

from struct import pack, unpack
from typing import NamedTuple

from paravirt.api import GuestFault, Segment, layout
from paravirt_xen.platform.decode import Far, decode_far
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.traps import CODE, CODE_OR_DATA, CONFORMING, GENERAL_PROTECTION, PRESENT, RING1, RING3

NOT_PRESENT, STACK_FAULT, PAGE_FAULT = 11, 12, 14
PF_WRITE = 2
KIND, CALL_GATE = 0x1F00, 0x0C00
PARAMETERS = 0x1F


class Gate(NamedTuple):
    """:ivar dpl: who may use it. :ivar parameters: words to copy to an inner stack."""

    selector: int
    offset: int
    dpl: int
    parameters: int
    present: bool


def far_transfer(domain: Domain, error: int) -> bool:
    """#GP at EIP with a selector: whether it was a use of a call gate, which has been made.

    :raises GuestFault: the fault of the transfer. Nothing has changed.
    """
    gate = _gate(domain, error)
    ring = domain.vcpu.cpl
    if gate is None or gate.dpl < ring:
        return False
    if not gate.present:
        raise GuestFault(NOT_PRESENT, error)
    far = decode_far(domain)
    if far is None or far.selector & 0xFFFC != error:
        return False
    code = _target(domain, gate, far, ring)
    vcpu = domain.vcpu
    if far.call:
        behind = [vcpu.eip + far.length & 0xFFFFFFFF, vcpu.segment(layout.CS).selector]
        if not code.high & CONFORMING and code.selector & 3 < ring:
            _to_inner_stack(domain, behind, gate.parameters)
        else:
            esp = vcpu.esp - 8 & 0xFFFFFFFF
            base = vcpu.segment(layout.SS).base
            vcpu.write(base + esp & 0xFFFFFFFF, pack("<2I", *behind), user=ring == RING3)
            vcpu.esp = esp
    vcpu.set_segment(layout.CS, code, cpl=code.selector & 3)
    vcpu.eip = gate.offset
    return True


def _gate(domain: Domain, selector: int) -> Gate | None:
    try:
        high = domain.traps.descriptor(selector).high
    except GuestFault:
        return None
    if high & KIND != CALL_GATE:
        return None
    table = domain.vcpu.table(layout.LDTR if selector & 4 else layout.GDTR)
    low = domain.vcpu.read_u32(table.base + (selector & 0xFFF8))
    target = low >> 16
    return Gate(target & 0xFFFC, low & 0xFFFF | high & 0xFFFF0000, target & 3, high & PARAMETERS, bool(high & PRESENT))


def _target(domain: Domain, gate: Gate, far: Far, ring: int) -> Segment:
    """The code segment of the gate, its RPL the ring to go on in."""
    try:
        code = domain.traps.descriptor(gate.selector)
    except GuestFault:
        raise GuestFault(GENERAL_PROTECTION, gate.selector) from None
    dpl, conforming = code.high >> 13 & 3, bool(code.high & CONFORMING)
    fits = dpl <= ring if far.call or conforming else dpl == ring
    if code.high & (CODE | CODE_OR_DATA) != CODE | CODE_OR_DATA or not fits:
        raise GuestFault(GENERAL_PROTECTION, gate.selector)
    if not code.high & PRESENT:
        raise GuestFault(NOT_PRESENT, gate.selector)
    if gate.offset > code.limit:
        raise GuestFault(GENERAL_PROTECTION)
    return code._replace(selector=gate.selector | (dpl if far.call and not conforming else ring))


def _to_inner_stack(domain: Domain, behind: list[int], parameters: int) -> None:
    """Push SS, ESP, the parameters, CS and EIP onto the kernel's stack, and switch to it. Only ring 1 has one."""
    vcpu = domain.vcpu
    outer = vcpu.segment(layout.SS)
    words = unpack(f"<{parameters}I", vcpu.read(outer.base + vcpu.esp & 0xFFFFFFFF, 4 * parameters, user=True))
    stack = domain.traps.kernel_segment("a call gate")
    if stack.selector & 3 != RING1:
        raise GuestFault(GENERAL_PROTECTION)
    frame = [*behind, *words, vcpu.esp, outer.selector]
    esp = domain.traps.kernel_stack[1] - 4 * len(frame) & 0xFFFFFFFF
    at = stack.base + esp & 0xFFFFFFFF
    try:
        domain.write(at, pack(f"<{len(frame)}I", *frame))
    except HypercallError:
        raise GuestFault(PAGE_FAULT, PF_WRITE, at) from None
    vcpu.set_segment(layout.SS, stack)
    vcpu.esp = esp
