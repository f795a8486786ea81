"""Traps into the guest's kernel: the virtual IDT, bounce frames, upcalls.

An exception of the guest is bounced: a frame like the CPU's goes onto the kernel's stack (the one of stack_switch
when it comes from ring 3), and the handler that set_trap_table named goes on. The frame, from ESP up: [error code,]
EIP, CS, EFLAGS [, ESP, SS]. EFLAGS shows IF as the guest sees it, the event mask turned round; the mask itself is in
bits 16-23 of the CS slot. A failsafe frame has DS, ES, FS and GS below EIP.

What cannot be bounced is the end of the domain, as on a real Xen: there is nobody else to tell.

Ref: Xen arch/x86/pv/traps.c, callback.c; arch/x86/x86_64/compat/entry.S (compat_create_bounce_frame).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from paravirt.api import GuestFault, Segment, layout
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.layout import RING1_CS
from paravirt_xen.platform.ptwrite import settle_page_fault

BREAKPOINT, OVERFLOW, INVALID_OPCODE, GENERAL_PROTECTION, PAGE_FAULT = 3, 4, 6, 13, 14
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})
EFLAGS_TF, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_NT, EFLAGS_RF, EFLAGS_VM = 0x100, 0x200, 0x3000, 0x4000, 0x10000, 0x20000
CLEARED = EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM
IDT_ERROR = 2
INT_BYTES = 2


@dataclass
class Gate:
    """A handler of the guest's kernel: an entry of its virtual IDT, or a callback."""

    cs: int = 0
    eip: int = 0
    dpl: int = 0
    masks: bool = False


@dataclass
class Traps:
    """The trap state of one vCPU.

    :ivar iopl: the virtual IOPL, in the bits of EFLAGS.
    """

    domain: Domain
    gates: list[Gate] = field(default_factory=lambda: [Gate() for _ in range(256)])
    kernel_ss: int = 0
    kernel_sp: int = 0
    event: Gate = field(default_factory=lambda: Gate(masks=True))
    failsafe: Gate = field(default_factory=Gate)
    iopl: int = 0

    # ------------------------------------------------------------------ what comes from the CPU

    def exception(self, vector: int, error: int) -> None:
        """An exception of the guest's; EIP is at the instruction."""
        if vector == PAGE_FAULT and settle_page_fault(self.domain, error):
            return
        self.bounce(vector, error)

    def software_interrupt(self, vector: int) -> None:
        """``int n``, EIP past it. Without a handler that the caller may use it is #GP, at the instruction."""
        vcpu = self.domain.vcpu
        if vector in (BREAKPOINT, OVERFLOW):
            self.bounce(vector)
        elif self.gates[vector].dpl >= (1 if vcpu.cpl == 1 else 3):
            self._enter(self.gates[vector], f"int {vector:#x}")
        else:
            vcpu.eip -= INT_BYTES
            self.bounce(GENERAL_PROTECTION, vector * 8 + IDT_ERROR)

    # ------------------------------------------------------------------ into the guest

    def bounce(self, vector: int, error: int = 0) -> None:
        """Deliver an exception."""
        if vector == PAGE_FAULT:
            self.domain.ram.write_u32(self.domain.vcpu_info + abi.ARCH_CR2, self.domain.vcpu.cr(2))
        self._enter(self.gates[vector], f"exception {vector} (error code {error:#x})",
                    error if vector in WITH_ERROR_CODE else None)

    def deliver_upcall(self) -> None:
        """Tell the guest of pending events, if there are any and it wants to know."""
        if self.domain.events.pending_unmasked():
            self._enter(self.event, "the event upcall")

    def _enter(self, gate: Gate, what: str, error: int | None = None) -> None:
        """The bounce frame. Nothing is changed unless all of it fits."""
        domain, vcpu = self.domain, self.domain.vcpu
        mask = domain.ram.bytes[domain.vcpu_info + abi.UPCALL_MASK]
        eflags = vcpu.eflags & ~(EFLAGS_IF | EFLAGS_IOPL)
        if not mask:
            eflags |= EFLAGS_IF
        if domain.assist(abi.VMASST_ARCHITECTURAL_IOPL):
            eflags |= self.iopl
        frame = [vcpu.eip, vcpu.segment(layout.CS).selector | mask << 16, eflags]
        if error is not None:
            frame.insert(0, error)
        from_user = vcpu.cpl > 1
        esp = vcpu.esp
        try:
            if from_user:
                frame += [esp, vcpu.segment(layout.SS).selector]
                esp, stack = self.kernel_sp, vcpu.descriptor(self.kernel_ss)
            else:
                stack = vcpu.segment(layout.SS)
            esp = esp - 4 * len(frame) & 0xFFFFFFFF
            domain.write(stack.base + esp & 0xFFFFFFFF, b"".join(word.to_bytes(4, "little") for word in frame))
        except (GuestFault, HypercallError):
            domain.crash(f"{what} could not be delivered: no frame fits on the kernel's stack at {esp:#x}")
        if not gate.cs & 0xFFFC:
            domain.crash(f"{what}, and the guest has no handler for it")
        try:
            code = vcpu.descriptor(gate.cs)
        except GuestFault:
            domain.crash(f"{what} could not be delivered: selector {gate.cs:#x} of its handler is not in the GDT")
        if from_user:
            vcpu.set_segment(layout.SS, stack)
        vcpu.set_segment(layout.CS, code, cpl=gate.cs & 3)
        vcpu.esp, vcpu.eip = esp, gate.eip
        words = vcpu.state.words
        words[layout.EFLAGS] &= ~CLEARED
        words[layout.HFLAGS] &= ~(layout.HF_TF | layout.HF_SHADOW)
        if gate.masks:
            domain.events.upcall_mask = True


def flat(selector: int, high: int) -> Segment:
    return Segment(selector, 0, 0xFFFFFFFF, high)


__all__ = ["RING1_CS", "Gate", "Traps", "flat"]
