"""The iret hypercall: back to what a trap interrupted, with the event mask of its EFLAGS.

The frame, from ESP up: EAX, EIP, CS, EFLAGS [, ESP, SS]. IF of EFLAGS becomes the event mask, turned round, and what
is pending is delivered at once. A frame that cannot be read is the end of the domain; a target that the CPU refuses
is an exception at that target. (A guest's own IRET in ring 1 touches no mask.)

Ref: Xen arch/x86/pv/iret.c (compat_iret); Intel SDM vol. 2A, IRET (checks of a return to an outer level).
"""

from __future__ import annotations

from struct import Struct, pack

from paravirt.api import GuestFault, Segment, layout
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.traps import CLEARED, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_NT, EFLAGS_VM, GENERAL_PROTECTION, RING1

NOT_PRESENT, STACK_FAULT = 11, 12
SYSTEM, CODE, CONFORMING, WRITABLE_DATA = 1 << 12, 1 << 11, 1 << 10, 1 << 9
PRESENT = 1 << 15
WORDS, OUTER = Struct("<4I"), Struct("<2I")
VM86_WORDS = 9  # EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
HARDWARE_EFLAGS = 0x3FFFFF & ~(EFLAGS_IOPL | EFLAGS_NT | EFLAGS_VM)


def iret(domain: Domain) -> int:
    """Load the frame at ESP; returns what EAX becomes."""
    vcpu, traps = domain.vcpu, domain.traps
    esp = vcpu.esp
    try:
        eax, eip, cs, eflags = WORDS.unpack(domain.read(esp, WORDS.size))
        if eflags & EFLAGS_VM:
            return _refuse_vm86(domain, esp, eflags)
        ring = cs & 3
        outer = OUTER.unpack(domain.read(esp + WORDS.size & 0xFFFFFFFF, OUTER.size)) if ring > RING1 else None
    except HypercallError:
        domain.crash(f"the iret hypercall's frame at {esp:#x} cannot be read")
    if ring < RING1:
        domain.crash(f"the iret hypercall wants to return to ring 0 (CS {cs & 0xFFFF:#x})")
    if domain.assist(abi.VMASST_ARCHITECTURAL_IOPL):
        traps.iopl = eflags & EFLAGS_IOPL
        traps.changed()
    vcpu.eip, vcpu.eflags = eip, eflags & HARDWARE_EFLAGS | EFLAGS_IF
    vcpu.esp = esp + 16 & 0xFFFFFFFF if outer is None else outer[0]
    domain.events.upcall_mask = not eflags & EFLAGS_IF
    traps.nmi_masked = False
    fault = _load(domain, cs & 0xFFFF, None if outer is None else outer[1] & 0xFFFF)
    if fault is not None:
        vcpu.set_reg(layout.EAX, eax)
        traps.inject(fault)
    return int(eax)


def _load(domain: Domain, cs: int, ss: int | None) -> GuestFault | None:
    """CS, and SS of an outer ring. With a fault the selectors are there all the same, to be seen in its frame."""
    vcpu, ring = domain.vcpu, cs & 3
    code, fault = _checked(domain, cs, ring, code=True)
    vcpu.set_segment(layout.CS, code, cpl=ring)
    if ss is None:
        return fault
    stack, stack_fault = _checked(domain, ss, ring, code=False)
    vcpu.set_segment(layout.SS, stack)
    for index in (layout.ES, layout.DS, layout.FS, layout.GS):  # what an outer ring may not use is taken from it
        high = vcpu.segment(index).high
        if high >> 13 & 3 < ring and high & (CODE | CONFORMING) != CODE | CONFORMING:
            vcpu.set_segment(index, Segment(0, 0, 0, 0))
    return fault or stack_fault


def _checked(domain: Domain, selector: int, ring: int, *, code: bool) -> tuple[Segment, GuestFault | None]:
    """The CPU's checks of IRET."""
    bare = Segment(selector, 0, 0, 0)
    if not selector & 0xFFFC:
        return bare, GuestFault(GENERAL_PROTECTION)
    try:
        segment = domain.traps.descriptor(selector)
    except GuestFault as fault:
        return bare, fault
    error, high = selector & 0xFFFC, segment.high
    dpl = high >> 13 & 3
    if code:
        fits = high & (SYSTEM | CODE) == SYSTEM | CODE and (dpl <= ring if high & CONFORMING else dpl == ring)
    else:
        fits = high & (SYSTEM | CODE | WRITABLE_DATA) == SYSTEM | WRITABLE_DATA and dpl == ring == selector & 3
    if not fits:
        return bare, GuestFault(GENERAL_PROTECTION, error)
    if not high & PRESENT:
        return bare, GuestFault(NOT_PRESENT if code else STACK_FAULT, error)
    return segment, None


def _refuse_vm86(domain: Domain, esp: int, eflags: int) -> int:
    """There is no virtual-8086 mode: #GP at its first instruction, the frame moved to the kernel's stack."""
    vcpu, traps = domain.vcpu, domain.traps
    gate, what = traps.gates[GENERAL_PROTECTION], "the #GP for virtual-8086 mode"
    frame = domain.read(esp + 4 & 0xFFFFFFFF, 4 * VM86_WORDS)
    target = traps.kernel_stack[1] - 4 * (VM86_WORDS + 1) & 0xFFFFFFFF
    domain.write(target, pack("<I", 0) + frame)
    if domain.assist(abi.VMASST_ARCHITECTURAL_IOPL):
        traps.iopl = eflags & EFLAGS_IOPL
        traps.changed()
    domain.events.upcall_mask = gate.masks or not eflags & EFLAGS_IF
    vcpu.eflags = eflags & HARDWARE_EFLAGS & ~CLEARED | EFLAGS_IF
    traps.go(gate, target, what, traps.kernel_segment(what))
    return vcpu.reg(layout.EAX)
