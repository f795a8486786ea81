"""Traps into the guest's kernel: the virtual IDT, bounce frames, upcalls.

An exception of the guest is bounced: a frame like the CPU's goes onto the kernel's stack (the one of stack_switch
when it comes from ring 3), and the handler that set_trap_table named goes on. The frame, from ESP up: [error code,]
EIP, CS, EFLAGS [, ESP, SS]. EFLAGS shows IF as the guest sees it, the event mask turned round; the mask itself is in
bits 16-23 of the CS slot. A failsafe frame has DS, ES, FS and GS below EIP.

What cannot be bounced is the end of the domain, as on a real Xen: there is nobody else to tell.

Ref: Xen arch/x86/pv/traps.c, callback.c; arch/x86/x86_64/compat/entry.S (compat_create_bounce_frame).
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from paravirt.api import GuestFault, Segment, layout
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.layout import RING1_DS, RING3_DS
from paravirt_xen.platform.ldt import LDT_WINDOW

DEBUG, NMI, BREAKPOINT, OVERFLOW, GENERAL_PROTECTION, PAGE_FAULT = 1, 2, 3, 4, 13, 14
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17})
EFLAGS_TF, EFLAGS_IF, EFLAGS_IOPL, EFLAGS_NT, EFLAGS_RF, EFLAGS_VM = 0x100, 0x200, 0x3000, 0x4000, 0x10000, 0x20000
CLEARED = EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM
RING1, RING3 = 1, 3
PF_USER = 4
IDT_ERROR = 2
PRESENT, CODE_OR_DATA, CODE, CONFORMING, READABLE = 1 << 15, 1 << 12, 1 << 11, 1 << 10, 1 << 9
DATA_SEGMENTS = (layout.DS, layout.ES, layout.FS, layout.GS)
FLAT = (RING1_DS, RING3_DS)  # the hypervisor's own, which never change
INT_BYTES = 2
GUEST_CR4 = 0x660  # PAE, MCE, OSFXSR, OSXMMEXCPT, as a real Xen shows


@dataclass(frozen=True)
class Gate:
    """A handler of the guest's kernel: an entry of its virtual IDT, or a callback.

    :ivar dpl: the least privileged ring that may reach it by ``int n``. :ivar masks: entering masks events.
    """

    cs: int = 0
    eip: int = 0
    dpl: int = 0
    masks: bool = False


class Traps:
    """The trap state of one vCPU.

    :ivar iopl: the virtual IOPL, in the bits of EFLAGS. :ivar io_bitmap: its address and number of ports.
    :ivar cr4: what the guest reads. :ivar gdt_frames: frames that hold its GDT.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.gates = [Gate()] * 256
        self.kernel_stack = array("I", (0, 0))  # SS and ESP for entries from ring 3
        self.event, self.failsafe = Gate(masks=True), Gate()
        self.iopl = 0
        self.changed: Callable[[], None] = lambda: None  # told when any of these is another, but for the stack
        self.io_bitmap = (0, 0)
        self.pci_address = 0
        self.nmi_pending = self.nmi_masked = False
        self.cr4 = GUEST_CR4
        self.gdt_frames: list[int] = []
        self.on_upcall: Callable[[str], None] = lambda what: None  # told of each entry that no exception made

    # ------------------------------------------------------------------ into the guest

    def bounce(self, vector: int, error: int = 0) -> None:
        """Deliver an exception at EIP. For a page fault, CR2 is the CPU's."""
        domain = self.domain
        what = f"exception {vector} (error code {error:#x})"
        if vector == PAGE_FAULT:
            what = f"a page fault at {domain.vcpu.cr(2):#x} (error code {error:#x})"
            domain.ram.write_u32(domain.vcpu_info + abi.ARCH_CR2, domain.vcpu.cr(2))
        self._enter(self.gates[vector], what, (error,) if vector in WITH_ERROR_CODE else ())

    def inject(self, fault: GuestFault) -> None:
        """Deliver a fault that the host found, as if the instruction at EIP had raised it."""
        vcpu = self.domain.vcpu
        vcpu.engine.count_exception(fault.vector)
        if fault.cr2 is not None:
            vcpu.set_cr2(fault.cr2)
        error = fault.error
        if fault.vector == PAGE_FAULT and vcpu.cpl == RING3:
            error |= PF_USER
        self.bounce(fault.vector, error)

    def software_interrupt(self, vector: int) -> None:
        """``int n``, EIP past it. Without a handler that the caller may use it is #GP, at the instruction."""
        vcpu = self.domain.vcpu
        if vector in (BREAKPOINT, OVERFLOW):
            self.bounce(vector)
        elif self.gates[vector].dpl >= (RING1 if vcpu.cpl == RING1 else RING3):
            self._enter(self.gates[vector], f"int {vector:#x}")
        else:
            vcpu.eip -= INT_BYTES
            self.bounce(GENERAL_PROTECTION, vector * 8 + IDT_ERROR)

    def deliver_upcall(self) -> None:
        """Tell the guest of pending events, if there are any and it wants to know; of an NMI first."""
        if self.nmi_pending and not self.nmi_masked:
            self.nmi_pending = False
            if self.gates[NMI].cs & 0xFFFC:
                self.nmi_masked = True  # until the iret hypercall
                self.on_upcall("NMI")
                self._enter(self.gates[NMI], "an NMI")
        if self.domain.events.pending_unmasked():
            self.on_upcall("event")
            self._enter(self.event, "the event upcall")

    def deliver_failsafe(self, selectors: Iterable[int]) -> None:
        """Tell the guest that its data segments could not be loaded.

        :param selectors: DS, ES, FS, GS as they were.
        """
        self.on_upcall("failsafe")
        self._enter(self.failsafe, "the failsafe callback", tuple(selectors))

    def reload_segments(self) -> None:
        """The vcpu gets the CPU back, and its data segments are loaded from the tables as they are now.

        One that cannot be loaded becomes null, and the kernel is told by its failsafe callback. What Xen loads, it
        loads in ring 0.
        """
        vcpu = self.domain.vcpu
        selectors = [vcpu.segment(index).selector & 0xFFFF for index in DATA_SEGMENTS]
        failed = False
        for index, selector in zip(DATA_SEGMENTS, selectors, strict=True):
            if selector in FLAT or not selector & 0xFFFC:
                continue
            segment: Segment | None = None
            with contextlib.suppress(GuestFault):
                segment = self.descriptor(selector)
            if segment is None or not _data_or_readable(segment.high, selector & 3):
                vcpu.set_segment(index, Segment(0, 0, 0, 0))
                failed = True
            else:
                vcpu.set_segment(index, segment)
        if failed:
            self.deliver_failsafe(selectors)

    def _enter(self, gate: Gate, what: str, below: tuple[int, ...] = ()) -> None:
        """The frame, with words `below` EIP. Nothing is changed unless all of it fits."""
        domain, vcpu = self.domain, self.domain.vcpu
        if vcpu.state.words[layout.EFLAGS] & EFLAGS_VM:  # the CPU lets ring 1 do that; a real one does not
            domain.crash(f"{what} in virtual-8086 mode, which an IRET of the guest has entered and no domain has")
        mask_at = domain.vcpu_info + abi.UPCALL_MASK
        mask = domain.ram.bytes[mask_at]
        eflags = vcpu.eflags & ~(EFLAGS_IF | EFLAGS_IOPL)
        if not mask:
            eflags |= EFLAGS_IF
        if domain.assist(abi.VMASST_ARCHITECTURAL_IOPL):
            eflags |= self.iopl
        frame = [*below, vcpu.eip, vcpu.segment(layout.CS).selector | mask << 16, eflags]
        from_user = vcpu.cpl != RING1
        stack = vcpu.segment(layout.SS)
        if from_user:
            frame += [vcpu.esp, stack.selector]
            stack = self.kernel_segment(what)
        esp = (self.kernel_stack[1] if from_user else vcpu.esp) - 4 * len(frame) & 0xFFFFFFFF
        try:
            domain.write(stack.base + esp & 0xFFFFFFFF, b"".join(word.to_bytes(4, "little") for word in frame))
        except HypercallError:
            domain.crash(f"{what} could not be delivered: its frame at {esp:#x} is not mapped for writing")
        self.go(gate, esp, what, stack if from_user else None)
        if gate.masks:
            domain.ram.write(mask_at, b"\1")

    def go(self, gate: Gate, esp: int, what: str, stack: Segment | None) -> None:
        """Enter a handler with the frame at `esp`; `stack` is the new SS, if it changes."""
        if not gate.cs & 0xFFFC:
            self.domain.crash(f"{what}, and the guest has no handler for it")
        vcpu = self.domain.vcpu
        code = self._load(gate.cs, f"{what} could not be delivered: the handler's code segment")
        if stack is not None:
            vcpu.set_segment(layout.SS, stack)
        vcpu.set_segment(layout.CS, code, cpl=gate.cs & 3)
        vcpu.esp, vcpu.eip = esp, gate.eip
        words = vcpu.state.words
        words[layout.EFLAGS] &= ~CLEARED
        words[layout.HFLAGS] &= ~(layout.HF_TF | layout.HF_SHADOW | layout.HF_VM)

    def kernel_segment(self, what: str) -> Segment:
        """SS for entries from ring 3."""
        return self._load(self.kernel_stack[0], f"{what} could not be delivered: the kernel's stack segment")

    def descriptor(self, selector: int) -> Segment:
        """As `Vcpu.descriptor`, with the pages of the LDT's window that the CPU has not looked for yet.

        :raises GuestFault: as the CPU would; a page fault names the address in the guest's own table.
        """
        try:
            return self.domain.vcpu.descriptor(selector)
        except GuestFault as fault:
            ldt = self.domain.ldt
            if fault.cr2 is None:
                raise
            if ldt.fault(fault.cr2):
                return self.domain.vcpu.descriptor(selector)
            raise GuestFault(fault.vector, fault.error, ldt.base + fault.cr2 - LDT_WINDOW & 0xFFFFFFFF) from None

    def _load(self, selector: int, what: str) -> Segment:
        """A segment for the guest's kernel. The CPU's checks: this is what its exit to the guest would find."""
        try:
            segment = self.descriptor(selector)
        except GuestFault:
            self.domain.crash(f"{what} {selector:#x} is in no table")
        if not segment.high & PRESENT or segment.high >> 13 & 3 != selector & 3:
            self.domain.crash(f"{what} {selector:#x} cannot be used there")
        return segment


def _data_or_readable(high: int, rpl: int) -> bool:
    """Whether ring 0 may load a descriptor, by its second word, into a data segment register."""
    code, conforming = bool(high & CODE), bool(high & CONFORMING)
    if not high & PRESENT or not high & CODE_OR_DATA or (code and not high & READABLE):
        return False
    return (code and conforming) or high >> 13 & 3 >= rpl
