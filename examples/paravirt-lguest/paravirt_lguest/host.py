"""The host: what the kernel cannot do in ring 1, by number, and how exceptions and interrupts reach it.

The PC's devices are the guest's own: interrupt controller, timer and clock are reached by ports, which ring 1 may use.
Its console is a hypercall. Page tables are the guest's and walked by the CPU; so is the IDT.

Ref: Linux 2.6.23 drivers/lguest (core.c, hypercalls.c, interrupts_and_traps.c, segments.c): the design.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from paravirt.api import (
    PC_EXITS,
    End,
    Exit,
    ExitTable,
    Guest,
    GuestFault,
    Kind,
    Segment,
    Vcpu,
    cpuid,
    crash,
    idt,
    layout,
)

RING, USER = 1, 3
HYPERCALL, SYSTEM_CALL, PF, GP, INT_BYTES = 0x1F, 0x80, 14, 13, 2
EFLAGS_IF, EFLAGS_IOPL = 0x200, 0x3000
FLAG, PENDING, CR2, CR3, IOPL, TSS, DATA_BYTES = 0, 4, 8, 12, 16, 32, 160  # lguest_data (ops.S)
TSS_SELECTOR, LDT_SELECTOR, TSS_LIMIT, TSS_AVAILABLE, LDT_PRESENT = 0x80, 0x88, 0x67, 0x8900, 0x8200
CODE_OR_DATA, DPL, RING_DPL, ACCESSED = 0x1000, 0x6000, RING << 13, 0x100
CPUID_SEP, CR0_TS = 1 << 11, 8
EFER, EFAULT = 0xC0000080, -14 & 0xFFFFFFFF
MAX_WRITE = 4096


class Host:
    """What is known of one guest. `data` is the physical address of lguest_data, 0 before the first call."""

    def __init__(self, guest: Guest) -> None:
        self.guest, self.machine, self.vcpu = guest, guest.machine, guest.machine.vcpu
        self.data = 0
        self.waiting = False
        self.input = bytearray()
        guest.console.connect(self.input.extend)

    def word(self, offset: int) -> int:
        return self.machine.ram.words[(self.data + offset) >> 2]

    def set_word(self, offset: int, value: int) -> None:
        self.machine.ram.write_u32(self.data + offset, value)

    # ------------------------------------------------------------------ exits

    def line(self, level: bool) -> None:
        """The interrupt controller's output. Guest code that enables interrupts looks at the word."""
        self.waiting = level
        if self.data:
            self.set_word(PENDING, level)
        self.machine.interrupt_line(level)

    def exception(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        if not self.data:
            idt.exception(vcpu, vector, error, software)
            return
        if vector == PF and not software:
            self.set_word(CR2, vcpu.cr(2))
        self._show_flag()
        idt.exception(vcpu, vector, error, software)
        self._hide_flag()

    def interrupt(self, vcpu: Vcpu, vector: int) -> None:
        if self.data:
            self._show_flag()
        idt.interrupt(vcpu, vector)
        if self.data:
            self._hide_flag()

    def _show_flag(self) -> None:
        """The frame is to show the guest's flag, not the CPU's."""
        words = self.vcpu.state.words
        words[layout.EFLAGS] = words[layout.EFLAGS] & ~EFLAGS_IF | self.word(FLAG) & EFLAGS_IF

    def _hide_flag(self) -> None:
        """What the gate made of it is the guest's flag."""
        words = self.vcpu.state.words
        self.set_word(FLAG, words[layout.EFLAGS] & EFLAGS_IF)
        words[layout.EFLAGS] |= EFLAGS_IF

    def port_allowed(self, vcpu: Vcpu, port: int, size: int) -> bool:
        return vcpu.cpl < USER or bool(self.data and self.word(IOPL) & EFLAGS_IOPL == EFLAGS_IOPL)

    def hypercall(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        if vcpu.cpl == USER:
            self.exception(vcpu, vector, error, software)
            return
        number = vcpu.reg(layout.EBX)
        row = CALLS.get(number)
        if row is None:
            raise crash(f"hypercall {number}: there is none of that number")
        name, call = row
        self.guest.counts[f"lguest.{name}"] += 1
        a, d, c = vcpu.reg(layout.EAX), vcpu.reg(layout.EDX), vcpu.reg(layout.ECX)
        try:
            vcpu.set_reg(layout.EAX, call(self, a, d, c))
        except GuestFault as fault:  # a bad pointer: as if the INT had touched it
            vcpu.eip -= INT_BYTES
            if fault.cr2 is not None:
                vcpu.set_cr2(fault.cr2)
            self.machine.raise_exception(fault.vector, fault.error)

    # ------------------------------------------------------------------ calls: (EAX, EDX, ECX) -> EAX

    def init(self, data: int, d: int, c: int) -> int:
        """The kernel goes to ring 1; interrupts stay off for it."""
        vcpu = self.vcpu
        if self.data or data & 0xFF:
            raise crash("hypercall init: a second time, or with data that crosses a page")
        self.data = vcpu.translate(data, write=True)
        self.set_word(CR3, vcpu.cr(3))
        gdt = vcpu.table(layout.GDTR)
        self._to_ring_one(gdt.base, gdt.limit)
        for index in (layout.CS, layout.SS):
            segment = vcpu.segment(index)
            vcpu.set_segment(index, Segment(segment.selector | RING, segment.base, segment.limit,
                                            segment.high & ~DPL | RING_DPL), cpl=RING if index == layout.CS else None)
        vcpu.set_table(layout.TR, Segment(TSS_SELECTOR, data + TSS, TSS_LIMIT, TSS_AVAILABLE))
        vcpu.eflags = vcpu.eflags & ~EFLAGS_IOPL | EFLAGS_IF
        self.machine.engine.virtual_flag(self.data + FLAG)
        self.set_word(PENDING, self.waiting)
        return 0

    def _to_ring_one(self, base: int, limit: int) -> None:
        """Code and data of ring 0 in a descriptor table become ring 1's."""
        for at in range(base, base + limit - 6, 8):
            high = self.vcpu.read_u32(at + 4)
            if high & CODE_OR_DATA and not high & DPL:
                self.vcpu.write_u32(at + 4, high | RING_DPL | ACCESSED)

    def attention(self, a: int, d: int, c: int) -> int:
        if self.waiting:
            self.machine.interrupt_line(True)
        return a

    def safe_halt(self, a: int, d: int, c: int) -> int:
        self.set_word(FLAG, EFLAGS_IF)
        self.attention(a, d, c)
        self.machine.engine.halt()
        return 0

    def halt(self, a: int, d: int, c: int) -> int:
        self.machine.engine.halt()
        return 0

    def new_pgtable(self, cr3: int, d: int, c: int) -> int:
        self.set_word(CR3, cr3)
        self.vcpu.set_cr(3, cr3)
        return 0

    def write_cr(self, index: int, value: int) -> int:
        self.vcpu.set_cr(index, value)
        return 0

    def read_msr(self, index: int, error: int, c: int) -> int:
        value = self.vcpu.msr(index) if index == EFER else 0
        self.vcpu.write_u32(error, 0 if index == EFER else EFAULT)
        self.vcpu.set_reg(layout.EDX, value >> 32)
        return value

    def write_msr(self, index: int, low: int, high: int) -> int:
        if index != EFER:
            return EFAULT
        self.vcpu.set_msr(index, low | high << 32)
        return 0

    def debugreg(self, register: int) -> int:
        if not 0 <= register < 8:
            raise crash(f"hypercall: there is no debug register {register}")
        return layout.DR + register

    def set_debugreg(self, register: int, value: int, c: int) -> int:
        self.vcpu.state.quads[self.debugreg(register)] = value
        return 0

    def flush(self, a: int, d: int, c: int) -> int:
        self.vcpu.flush_tlb()
        return a

    def flush_page(self, va: int, d: int, c: int) -> int:
        self.vcpu.flush_page(va)
        return 0

    def load_table(self, descriptor: int, register: int) -> int:
        limit, base = struct.unpack("<HI", self.vcpu.read(descriptor, 6))
        if register == layout.GDTR:
            self._to_ring_one(base, limit)
        self.vcpu.set_table(register, Segment(0, base, limit, 0))
        return 0

    def set_ldt(self, base: int, entries: int, c: int) -> int:
        self.vcpu.set_table(layout.LDTR, Segment(LDT_SELECTOR, base, 8 * (entries & 0x1FFF) - 1, LDT_PRESENT)
                            if entries else Segment(0, 0, 0, 0))
        return 0

    def console_write(self, text: int, length: int, c: int) -> int:
        while length > 0:
            part = min(length, MAX_WRITE)
            self.guest.console.write(self.vcpu.read(text, part))
            text, length = text + part, length - part
        return 0

    def console_read(self, buffer: int, length: int, c: int) -> int:
        data = bytes(self.input[:length])
        self.vcpu.write(buffer, data)
        del self.input[: len(data)]
        return len(data)

    def end(self, end: End, reason: str) -> int:
        self.machine.end(end, reason)
        return 0


Call = Callable[[Host, int, int, int], int]

CALLS: Mapping[int, tuple[str, Call]] = MappingProxyType({
    0: ("init", Host.init),
    1: ("attention", Host.attention),
    2: ("safe_halt", Host.safe_halt),
    3: ("halt", Host.halt),
    4: ("new_pgtable", Host.new_pgtable),
    5: ("read_cr0", lambda host, a, d, c: host.vcpu.cr(0)),
    6: ("write_cr0", lambda host, a, d, c: host.write_cr(0, a)),
    7: ("clts", lambda host, a, d, c: host.write_cr(0, host.vcpu.cr(0) & ~CR0_TS)),
    8: ("read_cr4", lambda host, a, d, c: host.vcpu.cr(4)),
    9: ("write_cr4", lambda host, a, d, c: host.write_cr(4, a)),
    10: ("read_msr", Host.read_msr),
    11: ("write_msr", Host.write_msr),
    12: ("get_debugreg", lambda host, a, d, c: host.vcpu.state.quads[host.debugreg(a)]),
    13: ("set_debugreg", Host.set_debugreg),
    14: ("flush_tlb", Host.flush),
    15: ("flush_tlb_single", Host.flush_page),
    16: ("load_gdt", lambda host, a, d, c: host.load_table(a, layout.GDTR)),
    17: ("load_idt", lambda host, a, d, c: host.load_table(a, layout.IDTR)),
    18: ("set_ldt", Host.set_ldt),
    19: ("console_write", Host.console_write),
    20: ("console_read", Host.console_read),
    21: ("restart", lambda host, a, d, c: host.end(End.REBOOT, "the guest asked for a restart")),
    22: ("power_off", lambda host, a, d, c: host.end(End.POWEROFF, "the guest powered the machine off")),
    23: ("stop", lambda host, a, d, c: host.end(End.HALT, "the guest halted for good")),
})


def cpuid_leaf(vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """The CPU without SYSENTER, which would lead to ring 0."""
    a, b, c, d = cpuid.cpuid(leaf, subleaf)
    return (a, b, c, d & ~CPUID_SEP) if leaf == 1 else (a, b, c, d)


def exits(host: Host) -> ExitTable:
    """Who answers what the CPU cannot do alone."""
    return {
        **PC_EXITS,
        Exit(Kind.EXCEPTION): host.exception,
        Exit(Kind.SOFTWARE_INTERRUPT): host.exception,
        Exit(Kind.SOFTWARE_INTERRUPT, HYPERCALL): host.hypercall,
        # A direct trap: its gate leaves the flag alone, and it comes from user mode, where the flag is set.
        Exit(Kind.EXCEPTION, SYSTEM_CALL): idt.exception,
        Exit(Kind.SOFTWARE_INTERRUPT, SYSTEM_CALL): idt.exception,
        Exit(Kind.INTERRUPT): host.interrupt,
        Exit(Kind.CPUID): cpuid_leaf,
        Exit(Kind.PORT_CHECK): host.port_allowed,
        Exit(Kind.SYSENTER): lambda vcpu: vcpu.machine.raise_exception(GP, 0),
    }
