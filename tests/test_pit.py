"""Kernels calibrate against the 8254 and count time by its interrupts, so it must be exact over any length of time.

The n-th interrupt comes at the n-th period's nanosecond, however late the machine looks. Counts and OUT are compared
with the mode diagrams of the data sheet, tick by tick.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pcbench import PIT, PORT61, SECOND, Pc, tick


@pytest.fixture
def pc() -> Pc:
    return Pc()


@pytest.fixture
def pics(pc: Pc) -> Pc:
    pc.start_pics()
    return pc


@pytest.mark.parametrize(("word", "load"), [(0x34, 11932), (0x36, 11932), (0x36, 11933), (0x35, 0x5000)])
def test_the_nth_periodic_interrupt_does_not_drift(pics: Pc, word: int, load: int) -> None:
    pics.serve = True
    pics.out(PIT + 3, word)
    pics.out(PIT, load & 0xFF, load >> 8)
    period = 5000 if word & 1 else load
    pics.end_of_interrupt(pics.board.acknowledge())  # OUT went high with the control word
    pics.pass_time(3 * SECOND)
    assert [when for when, _ in pics.irqs] == [tick(1 + n * period) for n in range(1, len(pics.irqs) + 1)]
    assert len(pics.irqs) == (3 * 1193182 - 1) // period
    assert {vector for _, vector in pics.irqs} == {0x20}


def test_a_machine_that_looks_late_gets_one_interrupt_and_keeps_the_phase(pics: Pc) -> None:
    pics.out(PIT + 3, 0x34)
    pics.out(PIT, 0xE8, 0x03)
    pics.end_of_interrupt(pics.board.acknowledge())
    pics.now = tick(5501)
    assert pics.timeline.run_due() == 1
    assert pics.intr
    assert pics.timeline.next_deadline() == tick(6001)


def test_one_shots_interrupt_once(pics: Pc) -> None:
    pics.serve = True
    pics.out(PIT + 3, 0x30)
    pics.out(PIT, 0x64, 0x00)
    pics.pass_time(SECOND)
    assert pics.irqs == [(tick(101), 0x20)]
    assert pics.timeline.next_deadline() is None
    pics.out(PIT + 3, 0x38)  # mode 4: OUT is high at once, then strobes low for a tick
    pics.irqs.clear()
    assert not pics.intr  # OUT was high before
    pics.out(PIT, 0x64, 0x00)
    pics.pass_time(2 * SECOND)
    assert pics.irqs == [(tick(1193182 + 102), 0x20)]


def test_nothing_is_scheduled_for_counters_that_nobody_sees(pc: Pc) -> None:
    for word, port in ((0x74, PIT + 1), (0xB6, PIT + 2)):
        pc.out(PIT + 3, word)
        pc.out(port, 0x34, 0x12)
    assert pc.timeline.next_deadline() is None


COUNTS = [  # control word for counter 2, count written, ticks after the load, what is read
    (0xB0, 0x1000, 0, 0x1000), (0xB0, 0x1000, 1, 0x0FFF), (0xB0, 0x1000, 0x1001, 0xFFFF),
    (0xB4, 0x1000, 0, 0x1000), (0xB4, 0x1000, 0xFFF, 1), (0xB4, 0x1000, 0x1000, 0x1000),
    (0xB6, 0x1000, 1, 0x0FFE), (0xB6, 0x1000, 0x7FF, 2), (0xB6, 0x1000, 0x800, 0x1000),
    (0xB6, 5, 0, 4), (0xB6, 5, 2, 0), (0xB6, 5, 3, 4), (0xB6, 5, 4, 2), (0xB6, 5, 5, 4),
    (0xB8, 3, 4, 0xFFFF), (0xB1, 0x1234, 1, 0x1233), (0xB1, 0x1000, 1, 0x0999), (0xB1, 0, 1, 0x9999),
    (0xB0, 0, 1, 0xFFFF), (0xBE, 0x1000, 1, 0x0FFE), (0xBC, 0x1000, 1, 0x0FFF),
]


@pytest.mark.parametrize(("word", "load", "after", "expected"), COUNTS)
def test_counts_read_back(pc: Pc, word: int, load: int, after: int, expected: int) -> None:
    pc.out(PORT61, 1)
    pc.out(PIT + 3, word)
    pc.out(PIT + 2, load & 0xFF, load >> 8)
    pc.now = tick(1 + after)
    assert pc.read(PIT + 2, 2) == expected


def waveform(pc: Pc, first: int, ticks: int) -> str:
    levels = ""
    for number in range(first, first + ticks):
        pc.now = tick(number)
        levels += "-" if pc.read(PORT61) & 0x20 else "_"
    return levels


@pytest.mark.parametrize(("word", "expected"), [
    (0xB0, "_____------"), (0xB2, "-----------"), (0xB4, "----_---_--"), (0xB6, "---__--__--"),
    (0xB8, "-----_-----"), (0xBA, "-----------"),
])
def test_out_follows_the_mode(pc: Pc, word: int, expected: str) -> None:
    pc.out(PORT61, 1)
    pc.out(PIT + 3, word)
    pc.out(PIT + 2, 4, 0)
    assert waveform(pc, 0, 11) == expected


@pytest.mark.parametrize(("word", "expected"), [
    (0xB2, "_____-----"), (0xBA, "-----_----"), (0xB6, "---__--__-"), (0xB4, "----_---_-"),
])
def test_a_rising_gate_triggers(pc: Pc, word: int, expected: str) -> None:
    pc.out(PIT + 3, word)
    pc.out(PIT + 2, 4, 0)
    pc.now = tick(50)
    pc.out(PORT61, 1)
    assert waveform(pc, 50, 10) == expected


def test_linux_calibrates_the_tsc_with_gate_2(pc: Pc) -> None:
    pc.out(PORT61, pc.read(PORT61) & ~2 | 1)
    pc.out(PIT + 3, 0xB0)
    load = 1193182 // 20
    pc.out(PIT + 2, load & 0xFF, load >> 8)
    pc.now = tick(load)
    assert not pc.read(PORT61) & 0x20
    pc.now = tick(load + 1)
    assert pc.read(PORT61) & 0x20


def test_a_low_gate_stops_mode_0_where_it_is(pc: Pc) -> None:
    pc.out(PORT61, 1)
    pc.out(PIT + 3, 0xB0)
    pc.out(PIT + 2, 100, 0)
    pc.now = tick(11)
    pc.out(PORT61, 0)
    pc.now = tick(1000)
    assert pc.read(PIT + 2, 2) == 90
    pc.out(PORT61, 1)
    pc.now = tick(1005)
    assert pc.read(PIT + 2, 2) == 85


def test_a_count_written_while_counting_waits_for_the_end_of_the_period(pics: Pc) -> None:
    pics.serve = True
    pics.out(PIT + 3, 0x34)
    pics.out(PIT, 100, 0)
    pics.end_of_interrupt(pics.board.acknowledge())
    pics.pass_time(tick(31))
    pics.out(PIT, 40, 0)
    pics.pass_time(tick(200))
    assert [when for when, _ in pics.irqs] == [tick(101), tick(141), tick(181)]


def test_mode_3_takes_a_new_count_at_half_its_period(pc: Pc) -> None:
    pc.out(PORT61, 1)
    pc.out(PIT + 3, 0xB6)
    pc.out(PIT + 2, 6, 0)
    pc.now = tick(2)
    pc.out(PIT + 2, 4, 0)
    assert waveform(pc, 1, 11) == "---__--__--"


def test_latches_hold_until_they_are_read(pc: Pc) -> None:
    pc.out(PIT + 3, 0x34)
    pc.out(PIT, 0x00, 0x10)
    pc.now = tick(1)
    pc.out(PIT + 3, 0xC2)  # read-back of status and count of counter 0
    pc.now = tick(101)
    pc.out(PIT + 3, 0x00)  # a second latch changes nothing
    assert pc.read(PIT, 3) == 0x1000B4
    assert pc.read(PIT, 2) == 0x1000 - 100
    pc.out(PIT + 3, 0x34)
    pc.out(PIT + 3, 0xE2)
    assert pc.read(PIT) == 0xF4  # OUT high, nothing loaded yet
    assert pc.read(PIT + 3) == 0xFF


@pytest.mark.parametrize(("access", "expected"), [(0x10, 0x7F), (0x20, 0x7F)])
def test_access_to_one_byte(pc: Pc, access: int, expected: int) -> None:
    pc.out(PIT + 3, 0x40 | access)
    pc.out(PIT + 1, 0x80)
    pc.now = tick(2)
    assert pc.read(PIT + 1) == expected


@given(st.integers(0, 9999), st.integers(0, 20_000))
def test_bcd_counts_like_decimal(load: int, after: int) -> None:
    pc = Pc()
    pc.out(PIT + 3, 0x71)
    digits = int(str(load), 16)
    pc.out(PIT + 1, digits & 0xFF, digits >> 8)
    pc.now = tick(1 + after)
    assert f"{pc.read(PIT + 1, 2):x}" == str((load - after) % 10_000)


def test_the_refresh_toggle_moves(pc: Pc) -> None:
    toggles = 0
    last = pc.read(PORT61) & 0x10
    for number in range(1800):
        pc.now = tick(number)
        toggles += pc.read(PORT61) & 0x10 != last
        last = pc.read(PORT61) & 0x10
    assert toggles == 99  # every 18 ticks, 15.09 us
