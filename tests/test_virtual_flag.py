"""A platform may keep the guest's interrupt flag in memory, wait in its name, and decide about ports.

What must hold on every form of the engine: while the word's bit 9 is clear no interrupt is taken, though EFLAGS.IF is
set; when it becomes set the waiting one comes; a halt by the platform waits for the next one, and ends the run if the
flag is clear. A platform's port check replaces IOPL and bit map where the table has one.

Ref: paravirt/machine/engine.py (virtual_flag, halt), exits.py (PORT_CHECK).
"""

from __future__ import annotations

from paravirt.machine.exits import Exit, ExitTable, Kind
from paravirt.machine.outcome import End
from paravirt.machine.vcpu import Vcpu
from paravirt.pc import PC_EXITS
from tests.snippet import IRQ, LOG, Line, each_engine, start

CALL, LATER, RECORD_BYTES = 0x40, 5_000_000, 32


def halt(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
    machine = vcpu.machine
    machine.timeline.call_at(machine.engine.now() + LATER, lambda: machine.interrupt_line(True))
    machine.engine.halt()


TABLE: ExitTable = {**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, CALL): halt}


@each_engine
def test_the_word_decides_and_the_platform_halts(engine: str) -> None:
    with start("virtualflag", engine, table=TABLE) as guest:
        line = Line(guest)
        guest.machine.engine.virtual_flag(guest.symbol("flag"))
        outcome = guest.run()
        assert outcome.end is End.HALT, outcome
        first, second, behind = guest.results(3)
        assert (first, second, behind) == (LOG, LOG + RECORD_BYTES, 1)
        assert guest.vectors() == [IRQ, IRQ]
        assert line.taken[1] - line.taken[0] >= LATER, "the machine waited"


@each_engine
def test_a_port_check_of_the_platform(engine: str) -> None:
    """With a check that allows everything no access of ring 3 faults on the portable engine, which asks Python; in C a
    platform's library is asked instead, and without one the CPU decides."""
    asked = []

    def check(vcpu: Vcpu, port: int, size: int) -> bool:
        asked.append((vcpu.cpl, port, size))
        return vcpu.port_allowed(port, size)

    with start("ports", engine, table={**PC_EXITS, Exit(Kind.PORT_CHECK): check}) as guest:
        guest.finish()
        if engine in ("portable", "no-state"):
            assert (3, 0x10, 1) in asked
