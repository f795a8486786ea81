"""Exceptions and interrupts through the guest's IDT, in Python: the portable form of delivery.

Ref: Intel SDM vol. 3A, 6.12 (exception and interrupt handling), 6.13 (error code), 6.15 (#DF, #TS,
#NP, #SS, #GP, #PF), 7.2.1 (TSS); vol. 2A, INT n (pseudo code and the order of its checks).
Left to the other form (accel/delivery.c), and refused here by name: task gates and virtual-8086 mode.
"""

from __future__ import annotations

from paravirt.errors import GuestFault
from paravirt.machine import layout
from paravirt.machine.engine import CpuStopped, TripleFault
from paravirt.machine.vcpu import DESCRIPTOR_DB, DESCRIPTOR_PRESENT, GP, Segment, Vcpu

DF, TS, NP, SS_FAULT, PF = 8, 10, 11, 12, 14
WITH_ERROR_CODE = frozenset({DF, TS, NP, SS_FAULT, GP, PF, 17})
CONTRIBUTORY = frozenset({0, TS, NP, SS_FAULT, GP})
IDT_BIT, EXT_BIT = 2, 1
TASK_GATE, INTERRUPT_GATE, TRAP_GATE, INTERRUPT_GATE_16, TRAP_GATE_16 = 5, 14, 15, 6, 7
EFLAGS_TF, EFLAGS_IF, EFLAGS_NT, EFLAGS_RF, EFLAGS_VM = 0x100, 0x200, 0x4000, 0x10000, 0x20000


def exception(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
    """Deliver an exception, or ``int n`` (`software`: EIP is past the instruction).

    A fault in the delivery is delivered instead, as a double fault where the manual says so.

    :raises TripleFault: a double fault could not be delivered.
    """
    if software:
        # A fault of the delivery is a fault at the instruction; it stands where the gate is read.
        after = vcpu.eip
        start = (after - (1 if vector in (3, 4) else 2)) & 0xFFFFFFFF
        try:
            _enter(vcpu, vector, 0, software=True, external=False)
        except GuestFault as fault:
            vcpu.eip = start
            _nested(vcpu, None, fault)
        return
    try:
        _enter(vcpu, vector, error, software=False, external=False)
    except GuestFault as fault:
        _nested(vcpu, vector, fault)


def interrupt(vcpu: Vcpu, vector: int) -> None:
    """Deliver an external interrupt. EIP is the next instruction to run."""
    try:
        _enter(vcpu, vector, 0, software=False, external=True)
    except GuestFault as fault:
        _nested(vcpu, None, fault)


def inject(vcpu: Vcpu, fault: GuestFault) -> None:
    """Deliver a fault that the host found, as if the instruction at EIP had raised it."""
    if fault.cr2 is not None:
        vcpu.set_cr2(fault.cr2)
    exception(vcpu, fault.vector, fault.error, software=False)


def _nested(vcpu: Vcpu, first: int | None, fault: GuestFault) -> None:
    if fault.cr2 is not None:
        vcpu.set_cr2(fault.cr2)
    second = fault.vector
    if first == DF:
        raise TripleFault
    double = (first in CONTRIBUTORY and second in CONTRIBUTORY) or (
        first == PF and (second in CONTRIBUTORY or second == PF)
    )
    vcpu.engine.count_exception(DF if double else second)
    if double:
        exception(vcpu, DF, 0, software=False)
    else:
        exception(vcpu, second, fault.error, software=False)


def _enter(vcpu: Vcpu, vector: int, error: int, *, software: bool, external: bool) -> None:
    """The microcode of interrupt entry. Changes nothing unless all its checks pass."""
    ext = 0 if software else EXT_BIT
    if vcpu.state.words[layout.EFLAGS] & EFLAGS_VM:
        raise CpuStopped("virtual-8086 mode needs delivery in C")
    idt = vcpu.table(layout.IDTR)
    if vector * 8 + 7 > idt.limit:
        raise GuestFault(GP, vector * 8 + IDT_BIT + ext)
    low, high = vcpu.read_u32(idt.base + vector * 8), vcpu.read_u32(idt.base + vector * 8 + 4)
    kind = high >> 8 & 0x1F
    if kind == TASK_GATE:
        raise CpuStopped(f"the task gate of vector {vector} needs delivery in C")
    if kind not in (INTERRUPT_GATE, TRAP_GATE, INTERRUPT_GATE_16, TRAP_GATE_16):
        raise GuestFault(GP, vector * 8 + IDT_BIT + ext)
    cpl = vcpu.cpl
    if software and high >> 13 & 3 < cpl:
        raise GuestFault(GP, vector * 8 + IDT_BIT)
    if not high & DESCRIPTOR_PRESENT:
        raise GuestFault(NP, vector * 8 + IDT_BIT + ext)

    selector = low >> 16
    code = _code_segment(vcpu, selector, cpl, ext)
    conforming = bool(code.high & 0x400)
    ring = cpl if conforming else code.high >> 13 & 3
    wide = bool(kind & 8)
    offset = low & 0xFFFF | (high & 0xFFFF0000 if wide else 0)
    if offset > code.limit:
        raise GuestFault(GP, ext)

    flags = vcpu.eflags
    frame = [vcpu.eip, vcpu.segment(layout.CS).selector, flags]
    if vector in WITH_ERROR_CODE and not software and not external:
        frame.insert(0, error)
    stack: Segment | None = None
    if ring < cpl:
        stack, esp = _inner_stack(vcpu, ring, ext)
        frame += [vcpu.esp, vcpu.segment(layout.SS).selector]
        base, big = stack.base, bool(stack.high & DESCRIPTOR_DB)
    else:
        current = vcpu.segment(layout.SS)
        esp, base, big = vcpu.esp, current.base, bool(current.high & DESCRIPTOR_DB)
    width = 4 if wide else 2
    new_esp = esp - width * len(frame)
    mask = 0xFFFFFFFF if big else 0xFFFF
    linear = (base + (new_esp & mask)) & 0xFFFFFFFF
    vcpu.write(linear, b"".join((word & (1 << 8 * width) - 1).to_bytes(width, "little") for word in frame))

    if stack is not None:
        vcpu.set_segment(layout.SS, stack._replace(selector=stack.selector & ~3 | ring))
    vcpu.set_segment(layout.CS, code._replace(selector=selector & ~3 | ring), cpl=ring)
    vcpu.esp = esp & ~mask | new_esp & mask
    vcpu.eip = offset
    cleared = EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM | (0 if kind & 1 else EFLAGS_IF)
    words = vcpu.state.words
    words[layout.EFLAGS] &= ~cleared
    words[layout.HFLAGS] &= ~(layout.HF_TF | layout.HF_SHADOW)


def _code_segment(vcpu: Vcpu, selector: int, cpl: int, ext: int) -> Segment:
    if not selector & 0xFFFC:
        raise GuestFault(GP, ext)
    try:
        code = vcpu.descriptor(selector)
    except GuestFault as fault:
        raise _with_ext(fault, ext) from None
    error = selector & 0xFFFC | ext
    if code.high & 0x1800 != 0x1800 or code.high >> 13 & 3 > cpl:
        raise GuestFault(GP, error)
    if not code.high & DESCRIPTOR_PRESENT:
        raise GuestFault(NP, error)
    return code


def _inner_stack(vcpu: Vcpu, ring: int, ext: int) -> tuple[Segment, int]:
    """SS and ESP of `ring` from the 32-bit TSS."""
    tss = vcpu.table(layout.TR)
    if ring * 8 + 4 + 5 > tss.limit:
        raise GuestFault(TS, tss.selector & 0xFFFC | ext)
    esp, selector = vcpu.read_u32(tss.base + 4 + 8 * ring), vcpu.read_u16(tss.base + 8 + 8 * ring)
    error = selector & 0xFFFC | ext
    if not selector & 0xFFFC:
        raise GuestFault(TS, ext)
    try:
        stack = vcpu.descriptor(selector)
    except GuestFault as fault:
        if fault.vector != GP:
            raise
        raise GuestFault(TS, error) from None
    writable_data = stack.high & 0x1A00 == 0x1200
    if selector & 3 != ring or stack.high >> 13 & 3 != ring or not writable_data:
        raise GuestFault(TS, error)
    if not stack.high & DESCRIPTOR_PRESENT:
        raise GuestFault(SS_FAULT, error)
    return stack, esp


def _with_ext(fault: GuestFault, ext: int) -> GuestFault:
    return fault if fault.vector == PF else GuestFault(fault.vector, fault.error | ext, fault.cr2)
