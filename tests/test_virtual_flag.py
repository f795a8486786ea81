"""A platform may keep the guest's interrupt flag in memory, wait in its name, and decide about ports.

What must hold on every form of the engine: while the word's bit 9 is clear no interrupt is taken, though EFLAGS.IF is
set; when it becomes set the waiting one comes; a halt by the platform waits for the next one, and ends the run if the
flag is clear. A platform's port check replaces IOPL and bit map where the table has one.

Ref: paravirt/machine/engine.py (virtual_flag, halt), exits.py (PORT_CHECK).
"""

from __future__ import annotations

import pytest

from paravirt.machine.exits import Exit, ExitTable, Handler, Kind
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
    """It is asked about every port that IOPL refuses, in place of the TSS, and what it says holds."""
    def ran(check: Handler | None = None) -> tuple[list[int], list[int]]:
        table = {**PC_EXITS, Exit(Kind.PORT_CHECK): check} if check is not None else PC_EXITS
        with start("ports", engine, table=table) as guest:
            guest.finish()
            return [record.eip for record in guest.log()], guest.results(12)

    asked: list[tuple[int, int, int]] = []

    def as_the_tss_says(vcpu: Vcpu, port: int, size: int) -> bool:
        asked.append((vcpu.cpl, port, size))
        return vcpu.port_allowed(port, size)

    assert ran(as_the_tss_says) == ran()
    assert (3, 0x10, 1) in asked and (3, 0x11, 1) in asked
    refused, _ = ran(lambda vcpu, port, size: False)
    assert refused != ran()[0], "port 10h, which the TSS allows, is refused"


@pytest.mark.parametrize("engine", ["fast", "portable"])
def test_a_port_check_that_raises_ends_the_run(engine: str) -> None:
    def broken(vcpu: Vcpu, port: int, size: int) -> bool:
        raise LookupError(f"port {port:#x}")

    with start("ports", engine, table={**PC_EXITS, Exit(Kind.PORT_CHECK): broken}) as guest, \
            pytest.raises(LookupError, match="port 0x10"):
        guest.machine.run()
