"""Ports that C answers in a device's place must be answered as the device would: every byte that the guest reads, the
output, what the devices remember, the counts and virtual time. Kernels read the line status and the timer ten
thousand times in a boot, so an answer that is off once in a while would show as a clock that drifts or a hung console.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paravirt.console import Console
from paravirt.devices.board import PcBoard
from paravirt.devices.uart import IER_THRE, LCR_DLAB, MCR_LOOP, POLLS
from paravirt.machine.engine import Handlers
from paravirt.machine.exits import Dispatcher, Exit, Kind
from paravirt.machine.shortcuts import LINE_BYTES
from paravirt.pc import PC_EXITS, attach_pc
from tests.snippet import Guest, start

SCRIPT, ANSWERS = 0x80000, 0xC0000
WRITE, READ, WAIT = 1, 2, 3
COM1, IER, FCR, LCR, MCR, LSR = 0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD
PIT, CONTROL, PORT61, POST = 0x40, 0x43, 0x61, 0x80
Row = tuple[int, int, int, int]  # what, port, value, how often


class Seen(NamedTuple):
    """All that a guest, a user and a record can see."""

    answers: bytes
    output: bytes
    devices: dict[str, dict[str, object]]
    traps: int
    port_io: int
    now: int
    active: int


def play(script: Iterable[Row], engine: str = "fast", *, typed: bytes = b"",
         prepare: Callable[[Guest], None] = lambda guest: None) -> tuple[Seen, int]:
    """Run a script on a PC; also how many accesses C answered."""
    rows = b"".join(struct.pack("<4I", *row) for row in script) + bytes(16)
    with start("portscript", engine) as guest:
        printed = bytearray()
        console = Console(printed.extend)
        machine = guest.machine
        console.on_output = machine.active
        stand_in: Any = SimpleNamespace(machine=machine, console=console, epoch=0, memory=4 << 20)
        board: PcBoard = attach_pc(stand_in)
        console.feed(typed)
        machine.connect(PC_EXITS)
        prepare(guest)
        guest.ram.write(SCRIPT, rows)
        guest.finish()
        answers = guest.ram.read(ANSWERS, guest.result(0) - ANSWERS)
        seen = Seen(answers, bytes(printed), board.state(), machine.traps, machine.port_io, machine.engine.now(),
                    machine.last_activity)
        return seen, int(machine.engine.record.ports_answered)


def the_same(script: Iterable[Row], typed: bytes = b"") -> int:
    script = list(script)
    fast, answered = play(script, typed=typed)
    asked, none = play(script, "no-ports", typed=typed)
    assert none == 0
    assert fast == asked
    return answered


def test_a_kernel_that_prints() -> None:
    """More than C keeps for the device at a time."""
    text = b"Linux version 2.6.32 " * 100
    script = [row for byte in text for row in ((READ, LSR, 0, 1), (WRITE, COM1, byte, 1))]
    assert the_same(script) == 2 * len(text) - len(text) // LINE_BYTES
    assert play(script)[0].output == text


def test_a_kernel_that_measures_its_clock() -> None:
    script = [(WRITE, PORT61, 1, 1), (WRITE, CONTROL, 0xB0, 1), (WRITE, PIT + 2, 0xFF, 2), (READ, PIT + 2, 0, 2000)]
    assert the_same(script) == 2000
    answers = play(script)[0].answers
    counts = struct.unpack(f"<{len(answers) // 2}H", answers)
    assert counts[0] > counts[-1] > counts[0] - 2500, "2 ms are 2386 ticks"


def test_a_kernel_that_waits() -> None:
    assert the_same([(WRITE, POST, 0x55, 1000), (READ, POST, 0, 1)]) == 1001
    assert play([(WRITE, POST, 0x55, 1), (READ, POST, 0, 1)])[0].answers == b"\x55"


@pytest.mark.parametrize(("before", "what", "read"), [
    ((WRITE, LCR, LCR_DLAB, 1), "the divisor takes what is written", None),
    ((WRITE, MCR, MCR_LOOP, 1), "the line is closed on itself", None),
    ((WRITE, IER, IER_THRE, 1), "an interrupt follows each byte", None),
    ((WRITE, CONTROL, 0x80, 1), "a latched count does not move", PIT + 2),
    ((WRITE, CONTROL, 0xE8, 1), "a latched status comes first", PIT + 2),
    ((WRITE, CONTROL, 0xB1, 1), "a BCD counter", PIT + 2),
    ((WRITE, PORT61, 0, 1), "a counter whose gate is low", PIT + 2),
])
def test_what_the_device_must_be_asked(before: Row, what: str, read: int | None) -> None:
    script = [(WRITE, PORT61, 1, 1), (WRITE, CONTROL, 0xB0, 1), (WRITE, PIT + 2, 0x77, 2), before]
    script.append((WRITE, COM1, 0x41, 1) if read is None else (READ, read, 0, 1))
    assert the_same(script) == 0, what


def test_a_guest_that_polls_is_given_its_input() -> None:
    """The read that makes it a guest that waits is the device's."""
    script = [(READ, LSR, 0, POLLS + 10), (WAIT, 0, 0, 500_000), (READ, LSR, 0, 3), (READ, COM1, 0, 3)]
    assert the_same(script, typed=b"abc") > POLLS
    assert b"a" in play(script, typed=b"abc")[0].answers


def test_a_user_who_waits_for_output_gets_it_with_the_instruction() -> None:
    """--until-output ends the run there, and --mark reads the counters there."""
    console = Console(until=re.compile(b"x"))
    with start("portscript") as guest:
        stand_in: Any = SimpleNamespace(machine=guest.machine, console=console, epoch=0, memory=4 << 20)
        board = attach_pc(stand_in)
        board.uart.write(0, 0x41)
        assert (console.written, board.uart.line.plain) == (1, 0)


def test_a_platform_that_answers_ports_itself_is_asked() -> None:
    def own(guest: Guest) -> None:
        table = {**PC_EXITS, Exit(Kind.PORT_IN): lambda vcpu, port, size: 0x5A}
        guest.machine.connect(table)

    seen, answered = play([(READ, LSR, 0, 3), (WRITE, COM1, 0x41, 1)], prepare=own)
    assert (seen.answers, seen.output, answered) == (b"\x5a" * 3, b"A", 0)


def test_a_watcher_of_exits_sees_all_of_them() -> None:
    class Watcher:
        def __init__(self, inner: Dispatcher) -> None:
            self._inner, self.ports = inner, list[int]()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def port_out(self, port: int, size: int, value: int) -> None:
            self.ports.append(port)
            self._inner.port_out(port, size, value)

    watchers: list[Watcher] = []

    def wrap(inner: Dispatcher) -> Handlers:
        watchers.append(Watcher(inner))
        return cast(Handlers, watchers[-1])

    def watch(guest: Guest) -> None:
        guest.machine.watch_exits = wrap
        guest.machine.connect(PC_EXITS)

    assert play([(WRITE, COM1, 0x41, 3)], prepare=watch)[1] == 0
    assert watchers[-1].ports == [COM1] * 3


ports = st.one_of(st.sampled_from([COM1, LSR, PIT, PIT + 2]), st.sampled_from(range(COM1, COM1 + 8)),
                  st.sampled_from([PIT, PIT + 1, PIT + 2, CONTROL, PORT61, POST]))
values = st.one_of(st.integers(0, 255), st.sampled_from([0x00, 0x30, 0x34, 0xB0, 0xB4, 0x80, 0xC0, 0x83, 0x0B, 0x1B]))
rows = st.one_of(
    st.tuples(st.just(WRITE), ports, values, st.integers(1, 3)),
    st.tuples(st.just(READ), ports, st.just(0), st.sampled_from([1, 1, 2, 3, 20, POLLS])),
    st.tuples(st.just(WAIT), st.just(0), st.just(0), st.sampled_from([1, 100, 10_000, 1_000_000])),
)


@given(script=st.lists(rows, max_size=30), typed=st.binary(max_size=20))
@example(script=[(WRITE, CONTROL, 52, 1), (WRITE, PIT, 1, 2), (READ, PIT, 0, 9), (WRITE, PIT, 0, 2), (READ, PIT, 0, 4)],
         typed=b"")  # a count of 101h, and a new one that waits for its end
@example(script=[(WRITE, COM1, 65, 2), (WRITE, IER, 2, 1), (READ, FCR, 0, 2), (WRITE, COM1, 66, 1), (READ, FCR, 0, 2)],
         typed=b"")  # the interrupt of a transmitter that C has emptied
@settings(max_examples=60, deadline=None)
def test_any_accesses(script: list[Row], typed: bytes) -> None:
    the_same(script, typed)
