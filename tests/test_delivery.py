"""Exceptions and interrupts reach the guest through its own IDT, as the manual says, on every form of the engine.

What must hold: each exception that the machine can raise arrives once, with its vector, its error code and the EIP
of the manual (the instruction for faults, the next one for traps); from ring 3 it arrives on the TSS's stack. What
a gate does to EFLAGS, what a broken gate raises, and what becomes of a fault inside the delivery is the same
whether libunicorn delivers (C) or machine/idt.py does. A CPU that cannot go on ends the run with a sentence. An
external interrupt is taken as soon as the guest allows it and never before, also right behind STI.

Ref: Intel SDM vol. 3A, table 6-1, 6.8.1 (masking interrupts), 6.12, 6.13, 6.15 (Interrupt 8: double fault, table 6-5);
vol. 2B, STI.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from paravirt.errors import GuestFault
from paravirt.machine import idt, layout
from paravirt.machine.engine import EXCEPTION_NS
from paravirt.machine.exits import Exit, Kind
from paravirt.machine.outcome import End
from paravirt.machine.vcpu import Vcpu
from paravirt.pc import PC_EXITS
from tests.snippet import (
    BLOCK_CLOCK,
    C_DELIVERY,
    ENGINES,
    IRQ,
    KERNEL_CS,
    KERNEL_DS,
    STACK,
    TSS_STACK,
    USER_CS,
    USER_DS,
    USER_STACK,
    Guest,
    Line,
    each_engine,
    left_behind,
    start,
)

MS = 1_000_000
DE, DB, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF = 0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14
EFLAGS_TF, EFLAGS_IF, EFLAGS_NT, ALWAYS = 0x100, 0x200, 0x4000, 2

KERNEL_EXCEPTIONS = [
    (DE, 0, "de"), (DE, 0, "de_quotient"), (DB, 0, "trapped"), (BP, 0, "int3_next"), (OF, 0, "into_next"),
    (BR, 0, "bound"), (UD, 0, "invalid"), (NM, 0, "no_fpu"), (NP, 0x30, "not_present"), (SS, 0x30, "ss_absent"),
    (GP, 0x1230, "gp_selector"), (GP, 0, "gp_null"), (GP, 0x40, "read_only"), (NP, 0x38, "absent_code"),
    (GP, 0x10, "bad_far"), (0x40, 0, "soft_next"),
]
USER_EXCEPTIONS = [
    (GP, 0, "u_hlt"), (GP, 0, "u_cli"), (GP, 0, "u_lgdt"), (GP, 0, "u_cr0"), (GP, 0, "u_invlpg"), (GP, 0, "u_rdmsr"),
    (DE, 0, "u_de"), (GP, 0x40 * 8 + 2, "u_int"), (0x80, 0, "u_syscall_next"), (BP, 0, "u_int3_next"),
    (GP, 13 * 8 + 2, "u_gate"),
]
BROKEN_GATES = [
    (NP, 0x52 * 8 + 2, "absent"), (GP, 0x53 * 8 + 2, "odd_type"), (GP, 0, "null_code"), (GP, 0x10, "data_code"),
    (NP, 0x38, "absent_code"), (GP, 0x1230, "outside"), (GP, 0xFF * 8 + 2, "beyond"), (NP, 0 * 8 + 2, "soft_de"),
    (NP, 3 * 8 + 2, "feigned"),
    # An exception's delivery is an external event: EXT, bit 0, is set.
    (NP, 6 * 8 + 3, "benign"), (GP, 0x1231, "exception_outside"),
    # A contributory fault while one is delivered: a double fault, which leaves nothing behind.
    (DF, 0, "double"), (DF, 0, "double_gp"), (GP, 0x1230, "after_double"),
]


def found(guest: Guest) -> list[tuple[int, int, int]]:
    return [(record.vector, record.error, record.eip) for record in guest.log()]


def expected(guest: Guest, rows: list[tuple[int, int, str]]) -> list[tuple[int, int, int]]:
    return [(vector, error, guest.symbol(label)) for vector, error, label in rows]


@each_engine
def test_every_exception(engine: str) -> None:
    with start("exceptions", engine) as guest:
        guest.finish()
        assert found(guest) == expected(guest, KERNEL_EXCEPTIONS + USER_EXCEPTIONS)
        log = guest.log()
        kernel, user = log[: len(KERNEL_EXCEPTIONS)], log[len(KERNEL_EXCEPTIONS) :]
        assert {(record.cs, record.ss) for record in kernel} == {(KERNEL_CS, KERNEL_DS)}
        assert {(record.cs, record.ss, record.esp) for record in user} == {(USER_CS, USER_DS, USER_STACK)}
        assert kernel[2].eflags & EFLAGS_TF, "the stepped instruction's own TF is in the frame"
        assert not any(record.eflags & EFLAGS_TF for record in kernel[3:])
        # The last entry from ring 3 put its frame right below the TSS's ESP0: SS, ESP, EFLAGS, CS, EIP, error.
        assert list(guest.ram.words[TSS_STACK // 4 - 5 : TSS_STACK // 4]) == [
            guest.symbol("u_gate"), USER_CS, ALWAYS, USER_STACK, USER_DS]
        assert guest.vcpu.cpl == 0
        # An INT that its gate refuses counts under its own number too: 40h and 13 from ring 3.
        counts = guest.machine.engine.exceptions()
        assert counts == {DE: 3, DB: 1, BP: 2, OF: 1, BR: 1, UD: 1, NM: 1, NP: 2, SS: 1, GP: 13, 0x40: 2, 0x80: 1}


@each_engine
def test_gates(engine: str) -> None:
    with start("delivery", engine) as guest:
        guest.finish()
        inside_interrupt, frame_interrupt, inside_trap, frame_trap = guest.results(4)
        assert (inside_interrupt, inside_trap) == (ALWAYS, ALWAYS | EFLAGS_IF)
        assert (frame_interrupt, frame_trap) == (ALWAYS | EFLAGS_NT | EFLAGS_IF,) * 2
        assert found(guest) == expected(guest, BROKEN_GATES)
        before, after, inside, ip_and_cs = guest.results(8)[4:]
        assert before == after == STACK
        assert inside == STACK - 6, "a 16-bit gate pushes three 16-bit words"
        assert ip_and_cs == guest.symbol("narrow_next") & 0xFFFF | KERNEL_CS << 16


@pytest.mark.parametrize("name", ["exceptions", "delivery"])
def test_the_same_snippet_leaves_the_same_state_on_every_engine(name: str) -> None:
    states = {engine: left_behind(name, engine) for engine in ENGINES}
    assert set(states.values()) == {states["fast"]}, states


@each_engine
def test_triple_fault_with_an_empty_idt_is_a_reset(engine: str) -> None:
    with start("fatal", engine, arguments=[0]) as guest:
        outcome = guest.run()
        assert (outcome.end, outcome.eip) == (End.REBOOT, guest.symbol("at_reset"))
        assert outcome.exit_code == 0


@each_engine
@pytest.mark.parametrize(("case", "label"), [(1, "at_empty"), (2, "at_stack")])
def test_any_other_triple_fault_is_a_crash(engine: str, case: int, label: str) -> None:
    with start("fatal", engine, arguments=[case]) as guest:
        guest.machine.symbolize = guest.image.symbols.nearest
        outcome = guest.run()
        assert (outcome.end, outcome.exit_code) == (End.CRASH, 70), outcome
        assert "triple fault" in outcome.reason
        assert (outcome.eip, outcome.symbol) == (guest.symbol(label), label)


@each_engine
@pytest.mark.parametrize(("case", "what"), [(3, "task gate of vector 80"), (4, "virtual-8086 mode")])
def test_what_delivery_in_python_leaves_out_is_named(engine: str, case: int, what: str) -> None:
    if engine in C_DELIVERY:
        pytest.skip("libunicorn delivers it")
    with start("fatal", engine, arguments=[case]) as guest:
        outcome = guest.run()
        assert outcome.end is End.CRASH
        assert what in outcome.reason and "needs delivery in C" in outcome.reason


@each_engine
def test_faults_for_ever_do_not_hold_the_machine(engine: str) -> None:
    with start("fatal", engine, arguments=[6]) as guest:
        guest.machine.max_instructions = None
        guest.machine.timeline.call_at(2_000_000, lambda: guest.machine.end(End.STOPPED, "long enough"))
        assert guest.run().end is End.STOPPED
        # A counted slice goes on to its last instruction, whatever its exceptions cost.
        slack = 100_000 if guest.machine.engine.seams.block_clock else 5_000 * EXCEPTION_NS
        assert 2_000_000 <= guest.machine.engine.now() < 2_000_000 + slack
        assert guest.machine.engine.exceptions()[UD] > 1000


@each_engine
def test_a_platform_goes_before_the_idt(engine: str) -> None:
    """An entry of the exit table takes its own vector alone, and gets error code and kind. The gate's DPL is not
    looked at: whether ring 3 may do this is the platform's to say."""
    seen: list[tuple[int, int, bool]] = []

    def skip(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        seen.append((vector, error, software))
        if not software:
            vcpu.eip += 2

    table = {**PC_EXITS, Exit(Kind.EXCEPTION, UD): skip, Exit(Kind.SOFTWARE_INTERRUPT, 0x40): skip}
    with start("exceptions", engine, table=table) as guest:
        guest.finish()
        assert seen == [(UD, 0, False), (0x40, 0, True), (0x40, 0, True)]
        assert guest.machine.traps == 3
        taken = ("invalid", "soft_next", "u_int")
        rows = [row for row in KERNEL_EXCEPTIONS + USER_EXCEPTIONS if row[2] not in taken]
        assert found(guest) == expected(guest, rows)


@each_engine
def test_a_host_fault_is_the_guests_own(engine: str) -> None:
    """`inject` delivers what a host function ran into as if the instruction had raised it."""
    table = {**PC_EXITS, Exit(Kind.EXCEPTION, UD): lambda vcpu, *_: idt.inject(vcpu, GuestFault(PF, 2, 0xDEADB000))}
    with start("exceptions", engine, table=table) as guest:
        guest.finish()
        record = guest.log()[6]
        assert (record.vector, record.error, record.cr2) == (PF, 2, 0xDEADB000)
        assert record.eip == guest.symbol("invalid")
        assert guest.vcpu.cr(2) == 0xDEADB000
        assert guest.vcpu.reg(layout.ESP) < STACK


# ---------------------------------------------------------------------- interrupts


@each_engine
def test_when_an_interrupt_is_taken(engine: str) -> None:
    with start("window", engine) as guest:
        line = Line(guest)
        for when in (8 * MS, 9 * MS):
            guest.machine.timeline.call_at(when, lambda: guest.machine.interrupt_line(True))
        guest.finish()
        log = guest.log()
        assert [record.vector for record in log] == [IRQ] * 6 + [0x80]
        assert all(record.eflags & 0x200 for record in log[:6]), "only with IF set"
        sti, popf, iret, awake, slept, ring3 = log[:6]
        assert sti.eip >= guest.symbol("after_shadow"), "one instruction behind STI runs first"
        assert sti.eip < guest.symbol("never")
        assert not any(guest.symbol("never") <= record.eip < guest.symbol("never_end") for record in log)
        if engine in BLOCK_CLOCK:
            assert sti.eip == guest.symbol("after_shadow"), "and no other"
            assert (popf.eip, iret.eip) == (guest.symbol("by_popf"), guest.symbol("by_iret"))
        assert (awake.eip, slept.eip) == (guest.symbol("woken"), guest.symbol("woken_too"))
        assert {record.cs for record in log[:5]} == {KERNEL_CS}
        assert {record.esp for record in log[:5]} == {STACK}
        assert (ring3.cs, ring3.esp) == (USER_CS, USER_STACK)
        assert guest.symbol("user_loop") <= ring3.eip < guest.symbol("user_end")
        assert 8 * MS <= line.taken[4] < 8 * MS + 20_000
        assert 9 * MS <= line.taken[5] < 9 * MS + 20_000
        assert guest.machine.engine.interrupts() == 6
        assert guest.machine.engine.instructions() < 3 * MS, "the CPU slept"


@each_engine
def test_an_interrupt_that_went_away(engine: str) -> None:
    """The controller has nothing to say when it is asked: nothing is delivered."""
    with start("spin", engine, arguments=[8]) as guest:
        asked = []

        def nothing() -> int:
            asked.append(1)
            guest.machine.interrupt_line(False)
            return -1

        guest.machine.acknowledge = nothing
        guest.machine.timeline.call_at(100_000, lambda: guest.machine.interrupt_line(True))
        guest.machine.timeline.call_at(200_000, lambda: guest.machine.end(End.STOPPED, "enough"))
        assert guest.run().end is End.STOPPED
        assert len(asked) == 1
        assert (guest.log(), guest.machine.engine.interrupts()) == ([], 0)


@each_engine
def test_a_level_that_stays_is_taken_again(engine: str) -> None:
    with start("spin", engine, arguments=[8]) as guest:
        asked = []

        def again() -> int:
            asked.append(guest.machine.engine.now())
            guest.machine.interrupt_line(len(asked) < 5)
            return IRQ + len(asked)

        guest.machine.acknowledge = again
        guest.machine.timeline.call_at(100_000, lambda: guest.machine.interrupt_line(True))
        guest.machine.timeline.call_at(300_000, lambda: guest.machine.end(End.STOPPED, "enough"))
        guest.run()
        assert guest.vectors() == [IRQ + n for n in range(1, 6)]
        assert all(second - first >= EXCEPTION_NS for first, second in pairwise(asked))


@each_engine
def test_a_platform_may_deliver_interrupts_itself(engine: str) -> None:
    """A handler for INTERRUPT that is not the IDT's gets every vector, in every form of the engine."""
    seen: list[int] = []
    table = {**PC_EXITS, Exit(Kind.INTERRUPT): lambda vcpu, vector: seen.append(vector)}
    with start("spin", engine, table=table, arguments=[8]) as guest:
        Line(guest)
        guest.machine.timeline.call_at(100_000, lambda: guest.machine.interrupt_line(True))
        guest.machine.timeline.call_at(200_000, lambda: guest.machine.end(End.STOPPED, "enough"))
        guest.run()
        assert (seen, guest.log()) == ([IRQ], [])
