"""The machine's loop: it ends when and only when it should, and says why in a sentence.

What must hold, on every form of the engine: HLT with interrupts off is a halt, without any deadline it is idle for
ever, with one it skips there; the limits of instructions and of idle time act; an end that a device, a callback or
another thread asks for acts soon, whatever the guest does, and the first one counts; afterwards registers and memory
can be read. `state_hash` is equal for equal runs and different for anything that differs.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Mapping
from itertools import pairwise

import pytest

from paravirt.machine import layout
from paravirt.machine.core import Machine
from paravirt.machine.exits import Exit, Kind
from paravirt.machine.library import x86
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.machine.vcpu import Vcpu
from paravirt.pc import PC_EXITS
from tests.snippet import BLOCK_CLOCK, KERNEL_CS, Guest, each_engine, start

MS = 1_000_000
FOREVER, SLEEPER, STRING, FAULTS, SYSTEM_CALLS, PORTS, COUNT, IN_TEXT, OPEN = range(9)
BUSY = {"jmp": FOREVER, "sleep": SLEEPER, "rep": STRING, "faults": FAULTS, "int": SYSTEM_CALLS, "ports": PORTS}


def tick_every(guest: Guest, period: int) -> list[int]:
    """Timer interrupts that go nowhere but to the log's start; returns when each was taken."""
    taken: list[int] = []
    machine = guest.machine

    def tick() -> None:
        machine.interrupt_line(True)
        machine.timeline.call_at(machine.engine.now() + period, tick)

    def acknowledge() -> int:
        taken.append(machine.engine.now())
        machine.interrupt_line(False)
        guest.ram.write_u32(guest.symbol("log_next"), 0x8000)
        return 0x30

    machine.acknowledge = acknowledge
    machine.timeline.call_at(period, tick)
    return taken


# ---------------------------------------------------------------------- how runs end


@each_engine
def test_halt(engine: str) -> None:
    with start("hostwrite", engine) as guest:
        guest.machine.symbolize = lambda eip: f"symbol of {eip:#x}"
        outcome = guest.run()
        assert (outcome.end, outcome.exit_code) == (End.HALT, 0)
        assert outcome.reason == "the guest halted with interrupts off"
        assert outcome.eip == guest.vcpu.eip == guest.symbol("patched")
        assert outcome.symbol == f"symbol of {outcome.eip:#x}"
        assert guest.vcpu.reg(layout.EBX) == 50
        assert guest.vcpu.segment(layout.CS).selector == KERNEL_CS


@each_engine
def test_idle_for_ever(engine: str) -> None:
    with start("spin", engine, arguments=[SLEEPER]) as guest:
        outcome = guest.run()
        assert (outcome.end, outcome.exit_code) == (End.IDLE, 70)
        assert outcome.reason == "the guest waits for an interrupt that no device will raise"
        assert outcome.eip == guest.symbol("asleep")


@each_engine
def test_input_may_still_come(engine: str) -> None:
    """Without a deadline the machine asks whether input may come; what comes wakes it."""
    with start("spin", engine, arguments=[SLEEPER]) as guest:
        answers = [True, True, False]

        def wait() -> bool:
            if len(answers) == 2:
                guest.machine.interrupt_line(True)
            return answers.pop(0)

        def acknowledge() -> int:
            guest.machine.interrupt_line(False)
            return 0x33

        guest.machine.wait_for_input, guest.machine.acknowledge = wait, acknowledge
        assert guest.run().end is End.IDLE
        assert (guest.vectors(), answers) == ([0x33], [])


@each_engine
def test_a_platform_blocks_the_cpu(engine: str) -> None:
    """`block` is HLT without an interrupt: no instruction runs until the platform says so, and time passes."""
    woken: list[int] = []
    instructions: list[int] = []
    events: list[str] = []

    def system_call(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        machine = vcpu.machine
        instructions.append(machine.engine.instructions())
        if woken:
            assert machine.engine.now() >= woken[-1], "it ran before it was woken"
        if len(woken) == 3:
            machine.end(End.STOPPED, "enough")
            return
        when = machine.engine.now() + 7 * MS
        machine.timeline.call_at(when - 5 * MS, lambda: None)  # a deadline that wakes nobody
        machine.timeline.call_at(when, lambda: woken.append(when))
        machine.block(lambda: bool(woken) and woken[-1] == when, "an event")
        events.append("blocked")

    with start("spin", engine, table={**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, 0x80): system_call},
               arguments=[SYSTEM_CALLS]) as guest:
        slept: list[int] = []
        guest.machine.sleep = slept.append
        guest.machine.entering = lambda: events.append("enters")
        assert guest.run().end is End.STOPPED
        assert len(woken) == 3 and guest.vectors() == []
        assert sum(slept) > 6 * MS * 3
        if engine in BLOCK_CLOCK:
            assert all(0 < b - a < 10 for a, b in pairwise(instructions)), "a jump and the next call"
        waiting = [index for index, event in enumerate(events) if event == "blocked"]
        assert all(events[index + 1] == "enters" for index in waiting), "once, when it was woken"


@each_engine
def test_a_blocked_cpu_that_nothing_can_wake(engine: str) -> None:
    def system_call(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        vcpu.machine.block(lambda: False, "an event")

    with start("spin", engine, table={**PC_EXITS, Exit(Kind.SOFTWARE_INTERRUPT, 0x80): system_call},
               arguments=[SYSTEM_CALLS]) as guest:
        asked: list[bool] = [True, False]
        guest.machine.wait_for_input = lambda: asked.pop(0)
        outcome = guest.run()
        assert (outcome.end, outcome.reason) == (End.IDLE, "the guest waits for an event that no device will raise")
        assert outcome.eip == guest.symbol("system_calls") + 2 and asked == []


@each_engine
def test_sleep_skips_to_the_deadline(engine: str) -> None:
    with start("spin", engine, arguments=[SLEEPER]) as guest:
        slept: list[int] = []
        guest.machine.sleep = slept.append
        taken = tick_every(guest, 5 * MS)
        guest.machine.timeline.call_at(52 * MS, lambda: guest.machine.end(End.STOPPED, "enough"))
        assert guest.run().end is End.STOPPED
        assert len(taken) == 10
        assert all(5 * MS * n <= when < 5 * MS * n + MS for n, when in enumerate(taken, 1))
        assert all(0 < ns <= 5 * MS for ns in slept), "the host may sleep as long as the guest"
        assert sum(slept) > 45 * MS
        assert guest.machine.engine.instructions() < 5 * MS


@each_engine
def test_idle_limit(engine: str) -> None:
    with start("spin", engine, arguments=[SLEEPER]) as guest:
        guest.machine.idle_limit_ns = 2_000 * MS
        tick_every(guest, 100 * MS)
        guest.machine.timeline.call_at(1_000 * MS, guest.machine.active)
        outcome = guest.run()
        assert (outcome.end, outcome.reason) == (End.IDLE, "nothing but timer interrupts for 2 virtual seconds")
        assert 2_900 * MS <= guest.machine.engine.now() <= 3_100 * MS, "counted from the last activity"


def test_no_idle_limit_while_input_is_open() -> None:
    with start("spin", arguments=[SLEEPER]) as guest:
        guest.machine.idle_limit_ns, guest.machine.input_at_end = 100 * MS, lambda: False
        tick_every(guest, 10 * MS)
        guest.machine.timeline.call_at(1_000 * MS, lambda: guest.machine.end(End.STOPPED, "enough"))
        assert guest.run().end is End.STOPPED


@each_engine
def test_instruction_limit(engine: str) -> None:
    with start("spin", engine, arguments=[FOREVER]) as guest:
        guest.machine.max_instructions = 123_456
        outcome = guest.run()
        assert (outcome.end, outcome.exit_code) == (End.LIMIT, 124)
        assert outcome.reason == "123456 instructions have run"
        assert 123_456 <= guest.machine.engine.instructions() <= 123_456 + 100


@each_engine
def test_the_first_end_counts(engine: str) -> None:
    def both(vcpu: object, port: int, size: int, value: int) -> None:
        guest.machine.end(End.DEBUG_EXIT, "first", status=33)
        guest.machine.end(End.POWEROFF, "second")

    with start("hostwrite", engine, table={**PC_EXITS, Exit(Kind.PORT_OUT): both}) as guest:
        outcome = guest.run()
        assert (outcome.end, outcome.reason, outcome.exit_code) == (End.DEBUG_EXIT, "first", 33)
        assert guest.vcpu.reg(layout.EBX) < 2, "the CPU stops at the next block"


@each_engine
@pytest.mark.parametrize("busy", BUSY)
def test_another_thread_ends_the_run_soon(engine: str, busy: str) -> None:
    with start("spin", engine, arguments=[BUSY[busy]]) as guest:
        guest.machine.max_instructions = None
        if busy == "int":
            for vector in range(256):  # bare IRET for handlers: the log would grow for ever
                guest.ram.write(guest.symbol("stubs") + 16 * vector, b"\xcf")
        if busy == "sleep":
            tick_every(guest, MS)
            guest.machine.sleep = lambda ns: time.sleep(ns / 1e9)
        asked = []

        def interrupt() -> None:
            asked.append(time.monotonic())
            guest.machine.interrupt(Outcome(End.TIMEOUT, "time is up"))

        timer = threading.Timer(0.03, interrupt)
        timer.start()
        outcome = guest.run()
        late = time.monotonic() - asked[0]
        timer.join()
        assert (outcome.end, outcome.reason) == (End.TIMEOUT, "time is up")
        assert late < 0.5, f"{late:.3f} s"


def test_a_late_interrupt_is_harmless() -> None:
    with Machine(4 << 20) as machine:
        pass
    machine.interrupt(Outcome(End.INTERRUPTED, "late"))
    machine.interrupt(Outcome(End.TIMEOUT, "later"))
    assert machine.outcome is not None and machine.outcome.reason == "late"


def test_each_slice_is_told_and_may_end_the_run() -> None:
    with start("spin", arguments=[FOREVER]) as guest:
        guest.machine.max_instructions = None
        seen: list[int] = []

        def each_slice() -> None:
            seen.append(guest.machine.engine.now())
            if len(seen) == 5:
                guest.machine.end(End.MATCHED, "seen")

        guest.machine.each_slice = each_slice
        assert guest.run().end is End.MATCHED
        assert seen == sorted(seen) and seen[-1] >= 4 * 10 * MS, "a slice without deadlines is 10 ms of virtual time"


@each_engine
def test_events_come_in_time(engine: str) -> None:
    """A deadline is met at the next block, with counted instructions at the next instruction."""
    with start("spin", engine, arguments=[FOREVER]) as guest:
        timeline, late = guest.machine.timeline, []
        for when in (1_000, 1_500, 77_777, 1_000_000):
            timeline.call_at(when, lambda when=when: late.append(timeline.now() - when))  # type: ignore[misc]
        timeline.call_at(1_100_000, lambda: guest.machine.end(End.STOPPED, "enough"))
        guest.run()
        assert len(late) == 4 and all(0 <= ns < 1_100 for ns in late), late
        if engine in BLOCK_CLOCK:
            assert all(ns < 100 for ns in late[1:]), late


def test_a_machine_without_platform() -> None:
    with Machine(4 << 20) as machine, pytest.raises(RuntimeError, match="no platform"):
        _ = machine.dispatcher
    assert (machine.traps, machine.port_io) == (0, 0)


@each_engine
def test_a_closed_machine_gives_its_engine_back_at_once(engine: str) -> None:
    gc.disable()
    try:
        with start("hostwrite", engine) as guest:
            guest.finish()
            there = weakref.ref(guest.machine.engine._uc)
            assert there() is not None
        assert there() is None, "the memory that it maps is gone by now"
    finally:
        gc.enable()


# ---------------------------------------------------------------------- state_hash


def hashed(engine: str = "fast", **changes: object) -> str:
    with start("exceptions", engine) as guest:
        guest.finish()
        for name, value in changes.items():
            if name == "ram":
                guest.ram.write(0x3FFFFF, b"\x01")
            elif name == "time":
                guest.machine.engine.skip_to(10**9)
            elif name == "device":
                guest.machine.device_state = lambda value=value: {"device": value}  # type: ignore[misc]
            elif name == "flags":
                guest.vcpu.eflags |= 1
            elif name == "msr":
                guest.machine.engine.registers.write_msr(0x175, 0x1234)
            elif name == "other":
                assert isinstance(value, int)
                guest.machine.engine.registers.write(value, 1)
            else:
                guest.vcpu.set_reg(layout.EDI, 0x1234)
        return guest.machine.state_hash()


@each_engine
def test_state_hash_is_repeatable(engine: str) -> None:
    first = hashed(engine)
    assert len(first) == 64 and int(first, 16)
    assert first == hashed(engine)


def test_state_hash_sees_everything() -> None:
    hashes = [hashed(), hashed(ram=1), hashed(time=1), hashed(register=1), hashed(flags=1), hashed(device=1),
              hashed(msr=1), *(hashed(other=register) for register in (
                  x86.UC_X86_REG_FPCW, x86.UC_X86_REG_ST3, x86.UC_X86_REG_XMM7, x86.UC_X86_REG_MXCSR)),
              hashed(device=2), hashed(device=b"\x01"), hashed(device=(1, [b"\x02", {"deep": True}]))]
    assert len(set(hashes)) == len(hashes)


def test_device_state_may_hold_what_devices_have() -> None:
    class Table(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            return b"\xff" if key == "a" else (1, 2)

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter("ab")

        def __len__(self) -> int:
            return 2

    assert hashed(device=Table()) == hashed(device={"b": [1, 2], "a": "ff"})
    with pytest.raises(TypeError, match="device state holds a object"):
        hashed(device=object())


def test_an_outcome_is_no_exception_of_ours() -> None:
    """``except Exception`` in an op must not swallow the end of the run."""
    assert not issubclass(GuestExit, Exception)
    assert {end.word: end.status for end in End} == {
        "poweroff": 0, "reboot": 0, "halt": 0, "debug-exit": None, "matched": 0, "stopped": 0, "crash": 70, "idle": 70,
        "timeout": 124, "limit": 124, "interrupted": None, "error": 2}
