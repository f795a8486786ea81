"""Exceptions of a guest in ring 1: the ROM's exits, instructions to emulate, and what its own IDT gets.

Ref: the order of the checks is that of accel's C side, vmi.c, which answers the hot ones by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from paravirt.api import PC_EXITS, Exit, ExitTable, GuestFault, Kind, Vcpu, idt, layout
from paravirt_vmi.platform import activation, apic, emulate, interrupts, ports
from paravirt_vmi.platform.calls import CALLS, PLACES, Call
from paravirt_vmi.platform.layout import GUEST_RING, HLT_BYTES, INIT_ENTRY
from paravirt_vmi.rom import ATTENTION

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

UD, TS, GP, PF = 6, 10, 13, 14
CALL_REL_BYTES, CALL_INDIRECT_BYTES = 5, 6
OPCODE_CALL_REL, OPCODE_CALL_INDIRECT, OPCODE_CALL_REGISTER = 0xE8, b"\xff\x15", 0xD0


class Traps:
    """Answers what the CPU does not do alone. `exception`, `ask` and the exit table lead here."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._takers = [_taker(call) for call in CALLS]

    def exit_table(self) -> ExitTable:
        """Everything that is not here is the PC's."""
        m = self.monitor
        return {
            **PC_EXITS,
            Exit(Kind.EXCEPTION): self.exception,
            Exit(Kind.SOFTWARE_INTERRUPT): self.exception,
            Exit(Kind.INTERRUPT): lambda vcpu, vector: interrupts.external(m, vcpu, vector),
            Exit(Kind.CPUID): lambda vcpu, leaf, subleaf: apic.cpuid_leaf(m, leaf, subleaf),
            Exit(Kind.SYSENTER): lambda vcpu: interrupts.sysenter(m, vcpu),
            Exit(Kind.PORT_CHECK): lambda vcpu, port, size: ports.allowed(m, vcpu, port, size),
        }

    def exception(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        """An exception, or INT n."""
        if not self.ask(vector, software):
            if self.monitor.active:
                interrupts.deliver(self.monitor, vector, error, software)
            else:
                idt.exception(vcpu, vector, error, software)

    def ask(self, vector: int, software: bool) -> bool:
        """Whether the monitor takes an exception; else the guest's IDT gets it, at the EIP that stands then."""
        m, vcpu = self.monitor, self.monitor.vcpu
        if not m.active:
            return vector == UD and not software and activation.wanted(m) and activation.initialise(m)
        if software:
            return False
        if vector == PF:
            m.set_word("cr2", vcpu.cr(2))
            m.make_up()
        if vcpu.cpl == GUEST_RING and m.in_rom(vcpu.eip):
            return self._in_rom(vector)
        return vector == GP and self._emulated()

    # ------------------------------------------------------------------ inside the ROM

    def _in_rom(self, vector: int) -> bool:
        m, vcpu = self.monitor, self.monitor.vcpu
        offset = vcpu.eip - m.base
        trap = m.rom.traps.get(offset) if vector == GP else None
        if trap == ATTENTION:
            return self._attention(offset)
        if trap is not None:
            self.call(CALLS[trap])
            return True
        if offset == INIT_ENTRY and vector == UD:
            activation.refuse_again(m)
            return True
        if offset == m.rom.iret:
            return self._iret_fault()
        if vector == GP and self._emulated():  # a port, of the calls for ports
            return True
        self._at_call_site(None)
        return False

    def _attention(self, offset: int) -> bool:
        m, vcpu = self.monitor, self.monitor.vcpu
        m.count("attention")
        ways_back = {m.rom.symbols[f"attention_{name}"]: name for name in ("iret", "sysexit")}
        if offset in ways_back:
            try:
                interrupts.leaving(m, system_call=ways_back[offset] == "sysexit")
            except GuestFault as fault:
                self._inject(fault)
                return True
        else:
            interrupts.attention(m)
        vcpu.eip += HLT_BYTES
        return True

    def call(self, call: Call) -> None:
        """Make a call whose slot the guest has reached."""
        m, vcpu = self.monitor, self.monitor.vcpu
        m.count(f"trap.{call.name}")
        start = vcpu.eip
        try:
            arguments = self._takers[call.number](vcpu)
            vcpu.eip = start + HLT_BYTES
            result = call.handler(m, *arguments)
        except GuestFault as fault:
            vcpu.eip = start
            self._at_call_site(call)
            self._inject(fault)
            return
        if result is not None:
            _answer(vcpu, call.result, result)

    def _inject(self, fault: GuestFault) -> None:
        """A call cannot do what it is asked: as if its instruction, at the place of the call, had faulted."""
        m, vcpu = self.monitor, self.monitor.vcpu
        if fault.cr2 is not None:
            vcpu.set_cr2(fault.cr2)
            m.set_word("cr2", fault.cr2)
        interrupts.deliver(m, fault.vector, fault.error, software=False)

    def _iret_fault(self) -> bool:
        """The frame is bad. A kernel selector without its ring is made good; else the fault belongs to the call."""
        m, vcpu = self.monitor, self.monitor.vcpu
        try:
            selector = vcpu.read_u32(vcpu.esp + 4)
            if selector & 0xFFFC and not selector & 3 and vcpu.descriptor(selector).high >> 13 & 3 == GUEST_RING:
                vcpu.write_u32(vcpu.esp + 4, selector | GUEST_RING)
                return True
        except GuestFault:
            pass  # then that is what the guest is told
        m.set_word("flag", m.word("flag_before"))
        with contextlib.suppress(GuestFault):  # its stack is gone, and the delivery will say so
            vcpu.eip = vcpu.read_u32(vcpu.esp - 4) - CALL_REL_BYTES
        return False

    def _at_call_site(self, call: Call | None) -> None:
        """Let the guest see a fault at its own CALL, which can be done again, where that can be told for sure: the
        code of a call faults before it has changed a register."""
        m, vcpu = self.monitor, self.monitor.vcpu
        offset = vcpu.eip - m.base
        targets = {m.base + entry for entry in m.rom.entries.values() if entry <= offset}
        if not targets:
            return
        target = m.base + m.rom.entries[call.name] if call is not None else max(targets)
        try:
            back = vcpu.read_u32(vcpu.esp)
            length = _call_length(vcpu, back, target)
        except GuestFault:
            return
        if length:
            vcpu.eip, vcpu.esp = back - length, vcpu.esp + 4

    # ------------------------------------------------------------------ everywhere else

    def _emulated(self) -> bool:
        m, vcpu = self.monitor, self.monitor.vcpu
        try:
            return emulate.instruction(m)
        except GuestFault as fault:
            if m.in_rom(vcpu.eip):
                self._at_call_site(None)
            self._inject(fault)
            return True


def _call_length(vcpu: Vcpu, back: int, target: int) -> int:
    """Bytes of the CALL of `target` that ends at `back`; 0 if none does."""
    before = vcpu.read(back - CALL_INDIRECT_BYTES, CALL_INDIRECT_BYTES)
    if before[1] == OPCODE_CALL_REL and (back + int.from_bytes(before[2:], "little")) & 0xFFFFFFFF == target:
        return CALL_REL_BYTES
    if before[:2] == OPCODE_CALL_INDIRECT and vcpu.read_u32(int.from_bytes(before[2:], "little")) == target:
        return CALL_INDIRECT_BYTES
    if before[4] == 0xFF and before[5] & 0xF8 == OPCODE_CALL_REGISTER and vcpu.reg(before[5] & 7) == target:
        return 2
    return 0


def _taker(call: Call) -> Callable[[Vcpu], tuple[int, ...]]:
    """Reads a call's arguments: registers, or words above the return address."""
    places = [word.partition(":")[2] for word in call.arguments.split()]
    readers: list[tuple[bool, int]] = [
        (True, PLACES[place]) if place in PLACES else (False, 4 * int(place)) for place in places]

    def take(vcpu: Vcpu) -> tuple[int, ...]:
        return tuple(vcpu.reg(at) if register else vcpu.read_u32(vcpu.esp + at) for register, at in readers)

    return take


def _answer(vcpu: Vcpu, where: str, result: int) -> None:
    if where == "edx:eax":
        vcpu.set_reg(layout.EAX, result)
        vcpu.set_reg(layout.EDX, result >> 32)
    elif where == "eax":
        vcpu.set_reg(layout.EAX, result)
    elif where:
        mask = 0xFF if where == "al" else 0xFFFF
        vcpu.set_reg(layout.EAX, vcpu.reg(layout.EAX) & ~mask | result & mask)
