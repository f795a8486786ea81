"""Every VMI call, number by number: what it takes, where it is answered, by which function.

`home` says where a call ends up that the guest makes:

* ROM: code of rom.S answers in the guest;
* TRAP: the ROM's slot leaves the guest for the handler;
* DEFERRED: a TRAP that waits in the queue in CPU-lazy mode, because nothing of the guest can see the difference;
* NOTHING: no call is needed, GetRelocationInfo answers NOP;
* ABSENT: not documented anywhere; GetRelocationInfo answers NONE.

With ``-o trap=all`` every call leaves the guest, so each has a handler. Arguments are name:place, a place being a
register or the number of a word on the stack above the return address.

Ref: VMI 3.0 call numbers, as Linux 2.6.32 arch/x86/include/asm/vmi.h has them; 49 to 60 and the names of 42, 43 and
72 are those of VMware's own headers of that version.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from paravirt.api import layout
from paravirt_vmi.platform import alarms, apic, control, descriptors, interrupts, lazy, mmu, ports
from paravirt_vmi.platform.layout import CALL_REL, JUMP_REL, NONE, NOP

Handler = Callable[..., int | None]


class Home(enum.Enum):
    """Where a call is answered."""

    ROM = "ROM code"
    TRAP = "monitor"
    DEFERRED = "monitor, deferred in CPU mode"
    NOTHING = "no call"
    ABSENT = "no answer"


ROM, TRAP, DEFERRED, NOTHING, ABSENT = Home


class Call(NamedTuple):
    """A row. `result` is where the answer goes: "", "eax", "al", "ax" or "edx:eax"."""

    number: int
    name: str
    arguments: str
    result: str
    home: Home
    handler: Handler
    meaning: str

    @property
    def answer(self) -> int:
        """The relocation type."""
        if self.home is ABSENT:
            return NONE
        if self.home is NOTHING:
            return NOP
        return JUMP_REL if self.name == "SYSEXIT" else CALL_REL

    @property
    def needed(self) -> bool:
        """A guest that does without it cannot run: the instructions for it do not trap in ring 1."""
        return self.name in ("UpdateKernelStack", "GetInterruptMask", "SetInterruptMask", "IRET", "SetIOPLMask")


CALLS: tuple[Call, ...] = (
    Call(0, "CPUID", "leaf:eax subleaf:ecx", "", ROM, control.cpuid, "identify the CPU"),
    Call(1, "WRMSR", "register:ecx low:eax high:edx", "", TRAP, control.write_msr, "write a model-specific register"),
    Call(2, "RDMSR", "register:ecx", "edx:eax", TRAP, control.read_msr, "read a model-specific register"),
    Call(3, "SetGDT", "pointer:eax", "", TRAP, descriptors.set_gdt, "load GDTR and all segment registers"),
    Call(4, "SetLDT", "selector:eax", "", DEFERRED, descriptors.set_ldt, "load LDTR"),
    Call(5, "SetIDT", "pointer:eax", "", TRAP, descriptors.set_idt, "load IDTR"),
    Call(6, "SetTR", "selector:eax", "", TRAP, descriptors.set_tr, "load the task register"),
    Call(7, "GetGDT", "pointer:eax", "", ROM, descriptors.get_gdt, "store GDTR"),
    Call(8, "GetLDT", "", "eax", ROM, descriptors.get_ldt, "read LDTR"),
    Call(9, "GetIDT", "pointer:eax", "", ROM, descriptors.get_idt, "store IDTR"),
    Call(10, "GetTR", "", "eax", ROM, descriptors.get_tr, "read the task register"),
    Call(11, "WriteGDTEntry", "table:eax index:edx low:ecx high:1", "", ROM, descriptors.write_segment,
         "store a descriptor"),
    Call(12, "WriteLDTEntry", "table:eax index:edx low:ecx high:1", "", ROM, descriptors.write_segment,
         "store a descriptor"),
    Call(13, "WriteIDTEntry", "table:eax index:edx low:ecx high:1", "", ROM, descriptors.write_gate, "store a gate"),
    Call(14, "UpdateKernelStack", "selector:eax esp:edx", "", ROM, descriptors.update_kernel_stack,
         "stack for the way from ring 3"),
    Call(15, "SetCR0", "value:eax", "", TRAP, control.set_cr0, "load CR0"),
    Call(16, "SetCR2", "value:eax", "", ROM, control.set_cr2, "load CR2"),
    Call(17, "SetCR3", "value:eax", "", DEFERRED, control.set_cr3, "load CR3, flush the TLB"),
    Call(18, "SetCR4", "value:eax", "", TRAP, control.set_cr4, "load CR4"),
    Call(19, "GetCR0", "", "eax", ROM, control.get_cr0, "read CR0"),
    Call(20, "GetCR2", "", "eax", ROM, control.get_cr2, "read CR2"),
    Call(21, "GetCR3", "", "eax", ROM, control.get_cr3, "read CR3"),
    Call(22, "GetCR4", "", "eax", ROM, control.get_cr4, "read CR4"),
    Call(23, "WBINVD", "", "", ROM, control.wbinvd, "write caches back"),
    Call(24, "SetDR", "number:eax value:edx", "", DEFERRED, control.set_dr, "load a debug register"),
    Call(25, "GetDR", "number:eax", "eax", TRAP, control.get_dr, "read a debug register"),
    Call(26, "RDPMC", "counter:ecx", "edx:eax", TRAP, control.read_pmc, "read a performance counter"),
    Call(27, "RDTSC", "", "edx:eax", ROM, control.read_tsc, "read the time-stamp counter"),
    Call(28, "CLTS", "", "", DEFERRED, control.clts, "clear CR0.TS"),
    Call(29, "EnableInterrupts", "", "", ROM, interrupts.enable, "set the interrupt flag"),
    Call(30, "DisableInterrupts", "", "", ROM, interrupts.disable, "clear the interrupt flag"),
    Call(31, "GetInterruptMask", "", "eax", ROM, interrupts.get_mask, "read the interrupt flag"),
    Call(32, "SetInterruptMask", "mask:eax", "", ROM, interrupts.set_mask, "set the interrupt flag as before"),
    Call(33, "IRET", "", "", ROM, interrupts.leave, "return from an interrupt"),
    Call(34, "SYSEXIT", "", "", ROM, interrupts.leave, "return from a system call, interrupts on"),
    Call(35, "Halt", "", "", TRAP, interrupts.halt, "interrupts on, and wait for one"),
    Call(36, "Reboot", "how:eax", "", TRAP, interrupts.reboot, "reset the machine"),
    Call(37, "Shutdown", "", "", TRAP, interrupts.shutdown, "stop this CPU for ever"),
    Call(38, "SetPxE", "entry:eax pointer:edx flags:ecx", "", ROM, mmu.set_pxe, "store a page-table entry"),
    Call(39, "SetPxELong", "low:eax high:edx pointer:ecx flags:1", "", ROM, mmu.set_pxe_long,
         "store a PAE page-table entry"),
    Call(40, "UpdatePxE", "pointer:eax flags:edx", "", ROM, mmu.update_pxe, "an entry was changed in place"),
    Call(41, "UpdatePxELong", "pointer:eax flags:edx", "", ROM, mmu.update_pxe, "a PAE entry was changed in place"),
    Call(42, "MachineToPhysical", "", "", ABSENT, mmu.undocumented, "not documented"),
    Call(43, "PhysicalToMachine", "", "", ABSENT, mmu.undocumented, "not documented"),
    Call(44, "AllocatePage", "pfn:eax flags:edx clone:ecx start:1 count:2", "", TRAP, mmu.allocate_page,
         "a page becomes a page table"),
    Call(45, "ReleasePage", "pfn:eax flags:edx", "", TRAP, mmu.release_page, "a page is no page table any more"),
    Call(46, "InvalPage", "va:eax", "", TRAP, mmu.invalidate_page, "forget one translation"),
    Call(47, "FlushTLB", "how:eax", "", TRAP, mmu.flush_tlb, "forget all translations"),
    Call(48, "SetLinearMapping", "slot:eax va:edx pages:ecx pfn:1", "", TRAP, mmu.set_linear_mapping,
         "where page tables can be seen"),
    Call(49, "INL", "port:edx", "eax", ROM, ports.in_long, "read a port"),
    Call(50, "INB", "port:edx", "al", ROM, ports.in_byte, "read a port"),
    Call(51, "INW", "port:edx", "ax", ROM, ports.in_word, "read a port"),
    Call(52, "INSL", "port:edx", "", ROM, ports.ins_long, "read a port again and again"),
    Call(53, "INSB", "port:edx", "", ROM, ports.ins_byte, "read a port again and again"),
    Call(54, "INSW", "port:edx", "", ROM, ports.ins_word, "read a port again and again"),
    Call(55, "OUTL", "value:eax port:edx", "", ROM, ports.out_long, "write a port"),
    Call(56, "OUTB", "value:eax port:edx", "", ROM, ports.out_byte, "write a port"),
    Call(57, "OUTW", "value:eax port:edx", "", ROM, ports.out_word, "write a port"),
    Call(58, "OUTSL", "port:edx", "", ROM, ports.outs_long, "write a port again and again"),
    Call(59, "OUTSB", "port:edx", "", ROM, ports.outs_byte, "write a port again and again"),
    Call(60, "OUTSW", "port:edx", "", ROM, ports.outs_word, "write a port again and again"),
    Call(61, "SetIOPLMask", "mask:eax", "", DEFERRED, ports.set_iopl_mask, "the IOPL of ring 3"),
    Call(62, "SetInitialAPState", "pointer:eax cpu:edx", "", TRAP, interrupts.set_initial_ap_state,
         "where another CPU begins"),
    Call(63, "APICWrite", "register:eax value:edx", "", TRAP, apic.write, "write a register of the local APIC"),
    Call(64, "APICRead", "register:eax", "eax", TRAP, apic.read, "read a register of the local APIC"),
    Call(65, "IODelay", "", "", NOTHING, ports.io_delay, "wait for a slow device"),
    Call(66, "GetCycleFrequency", "", "edx:eax", ROM, alarms.frequency, "cycles in a second"),
    Call(67, "GetCycleCounter", "counter:eax", "edx:eax", ROM, alarms.counter, "real, available or stolen cycles"),
    Call(68, "SetAlarm", "flags:eax low:edx high:ecx period_low:1 period_high:2", "", TRAP, alarms.set_alarm,
         "interrupt at a cycle"),
    Call(69, "CancelAlarm", "flags:eax", "eax", TRAP, alarms.cancel_alarm, "take an alarm back"),
    Call(70, "GetWallclockTime", "", "edx:eax", TRAP, alarms.wallclock, "nanoseconds since 1970"),
    Call(71, "WallclockUpdated", "", "eax", TRAP, alarms.wallclock_updated, "whether that was set since asked last"),
    Call(72, "SetCallbacks", "", "", ABSENT, mmu.undocumented, "not documented"),
    Call(73, "SetLazyMode", "mode:eax", "", ROM, lazy.set_mode, "allow deferral, or make up for it"),
)

PLACES = {"eax": layout.EAX, "edx": layout.EDX, "ecx": layout.ECX}
