"""A small VMI guest made by hand: flat segments, identity mapping (paging off), a ROM, and VMI_Init already called.

`Vmi.call` reaches a call as a guest does: code in ring 1 loads registers, pushes words and calls the ROM's code.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from paravirt.console import Console
from paravirt.guest import Guest, KernelInfo
from paravirt.machine import layout
from paravirt.machine.core import Machine
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.machine.vcpu import Segment, parse_descriptor
from paravirt.pc import attach_pc
from paravirt_vmi.options import VmiOptions
from paravirt_vmi.platform import apic
from paravirt_vmi.platform.monitor import Monitor
from paravirt_vmi.platform.start import rom_for, start_monitor
from tests.snippet import ENGINES

MEMORY = 4 << 20
GDT, IDT, TSS, STACK, CODE, HANDLERS, FREE = 0x5000, 0x6000, 0x7000, 0x60000, 0x20000, 0x30000, 0x200000
KERNEL_CS, KERNEL_DS, USER_CS, USER_DS, TSS_SELECTOR = 0x60, 0x68, 0x73, 0x7B, 0x80
CODE_HIGH, DATA_HIGH = 0x00CF9B00, 0x00CF9300
UD, STEPS = 6, 20_000
VECTORS = 32
FAULT_LOG = 0x8000  # a word for each vector: how often its handler ran
DONE = b"\xfa\xf4"  # cli, hlt: with interrupts off the run is over
FOR_EVER = b"\xeb\xfe"

_rom = functools.cache(rom_for)  # the same image in every test, and building takes longer than most of them


class Vmi:
    """:ivar monitor: of the machine; the guest is in ring 1."""

    def __init__(self, engine: str = "fast", **options: object) -> None:
        self.machine = machine = Machine(MEMORY, ENGINES[engine])
        machine.max_instructions = STEPS
        self.vcpu, self.ram = machine.vcpu, machine.ram
        model = VmiOptions.model_validate(options)
        self.guest = guest = Guest(machine, cast(KernelInfo, None), model, Console())
        self.monitor: Monitor = start_monitor(guest, _rom(model), model.base)
        self.monitor.board = attach_pc(guest, self.monitor.interrupt_line)
        if model.apic:
            apic.attach(self.monitor)
        self.ram.write(self.monitor.rom_at, self.monitor.rom.image)
        self._descriptors()
        self._enter_ring_0()

    def _descriptors(self) -> None:
        table = [0] * 32
        for selector, high in ((KERNEL_CS, CODE_HIGH), (KERNEL_DS, DATA_HIGH), (USER_CS, CODE_HIGH | 3 << 13),
                               (USER_DS, DATA_HIGH | 3 << 13)):
            table[selector >> 3] = high << 32 | 0xFFFF
        table[TSS_SELECTOR >> 3] = 0x8900 << 32 | TSS << 16 | 0x67
        self.ram.write(GDT, struct.pack("<32Q", *table))
        gates = b""
        for vector in range(VECTORS):
            handler = HANDLERS + 16 * vector
            # count the fault, then end the run
            self.ram.write(handler, b"\xff\x05" + struct.pack("<I", FAULT_LOG + 4 * vector) + DONE)
            gates += struct.pack("<HHHH", handler & 0xFFFF, KERNEL_CS, 0x8E00, handler >> 16)
        self.ram.write(IDT, gates)

    def _enter_ring_0(self) -> None:
        vcpu = self.vcpu
        vcpu.state.load()
        vcpu.set_table(layout.GDTR, Segment(0, GDT, 255, 0))
        vcpu.set_table(layout.IDTR, Segment(0, IDT, 8 * VECTORS - 1, 0))
        for register in range(6):
            selector = KERNEL_CS if register == layout.CS else KERNEL_DS
            low, high = struct.unpack("<II", self.ram.read(GDT + selector, 8))
            vcpu.set_segment(register, parse_descriptor(selector, low, high), cpl=0 if register == layout.CS else None)
        vcpu.eflags = 2
        vcpu.state.store()
        vcpu.set_cr(0, 0x11)

    def run_code(self, code: bytes, **registers: int) -> Outcome:
        """Run `code` (its own end behind it) from where the CPU is: ring 0 before `initialise`, ring 1 behind it."""
        self.ram.write(CODE, code + DONE)
        return self.run_at(CODE, **registers)

    def run_at(self, eip: int, **registers: int) -> Outcome:
        vcpu = self.vcpu
        vcpu.state.load()
        for name, value in registers.items():
            vcpu.set_reg(getattr(layout, name.upper()), value)
        vcpu.esp, vcpu.eip = registers.get("esp", STACK), eip
        vcpu.state.store()
        self.machine.outcome = None
        assert self.machine.max_instructions is not None
        self.machine.max_instructions = self.machine.engine.instructions() + STEPS
        try:
            self.machine.run()
        except GuestExit as end:
            vcpu.state.load()
            outcome: Outcome = end.outcome
            return outcome
        raise AssertionError("run() came back")

    def initialise(self) -> int:
        """VMI_Init; gives what it returned."""
        code = b"\xb8" + struct.pack("<I", self.monitor.rom_at + 0x80) + b"\xff\xd0"
        outcome = self.run_code(code)
        assert outcome.end is End.HALT, outcome
        return self.vcpu.reg(layout.EAX)

    def call(self, name: str, eax: int = 0, edx: int = 0, ecx: int = 0, stack: Sequence[int] = (),
             **registers: int) -> Outcome:
        """Call the ROM's code of a call from ring 1, to the end of the run."""
        return self.run_code(self.calling(name, eax, edx, ecx, stack), **registers)

    def run_calls(self, *calls: tuple[Any, ...]) -> Outcome:
        """Make calls one after the other, then run in circles to the limit: the end of the run leaves no trace."""
        code = b""
        for call in calls:
            code += self.calling(*call, at=CODE + len(code))
        return self.run_code(code + FOR_EVER)

    def calling(self, name: str, eax: int = 0, edx: int = 0, ecx: int = 0, stack: Sequence[int] = (), *,
                at: int = CODE) -> bytes:
        """Code that makes a call."""
        code = b"".join(b"\x68" + struct.pack("<I", word) for word in reversed(stack))
        for opcode, value in ((0xB8, eax), (0xBA, edx), (0xB9, ecx)):
            code += bytes([opcode]) + struct.pack("<I", value & 0xFFFFFFFF)
        target = self.monitor.base + self.monitor.rom.entries[name]
        code += b"\xe8" + struct.pack("<i", target - (at + len(code) + 5))
        return code + b"\x83\xc4" + bytes([4 * len(stack)])

    def result(self) -> tuple[int, int]:
        """EAX and EDX."""
        return self.vcpu.reg(layout.EAX), self.vcpu.reg(layout.EDX)

    def faults(self) -> dict[int, int]:
        """Exceptions that reached the guest's handlers, by vector."""
        words = struct.unpack(f"<{VECTORS}I", self.ram.read(FAULT_LOG, 4 * VECTORS))
        return {vector: count for vector, count in enumerate(words) if count}


@contextmanager
def vmi(engine: str = "fast", *, active: bool = True, **options: object) -> Iterator[Vmi]:
    """A guest, in ring 1 unless `active` says no; closed at the end of the block."""
    guest = Vmi(engine, **options)
    try:
        if active:
            assert guest.initialise() == 0
            assert guest.monitor.active and guest.vcpu.cpl == 1
        yield guest
    finally:
        guest.machine.close()
