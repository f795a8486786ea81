"""Kernels probe clock, keyboard controller and PCI by the letter, and hang or misjudge what is off by a bit.

Registers are written as real drivers write them, through the bus and at their PC addresses; what comes back is
compared with literals from the data sheets and from the drivers' own checks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.devices.board import PORTS
from paravirt.devices.pci import PciConfig
from paravirt.machine.bus import BusConflict
from tests.pcbench import SECOND, Pc, open_console


@pytest.fixture
def pc() -> Pc:
    return Pc()


# ---------------------------------------------------------------- clock


def date_of(pc: Pc) -> list[int]:
    """Century, year, month, day, hour, minute, second, day of the week."""
    return [pc.cmos(index) for index in (0x32, 9, 8, 7, 4, 2, 0, 6)]


def test_the_time_runs_in_bcd_and_binary_and_twelve_hours(pc: Pc) -> None:
    assert date_of(pc) == [0x20, 0x00, 0x02, 0x29, 0x11, 0x59, 0x59, 3]
    pc.now = SECOND
    assert date_of(pc) == [0x20, 0x00, 0x02, 0x29, 0x12, 0x00, 0x00, 3]
    pc.cmos(0x0B, 0x00)
    assert pc.cmos(4) == 0x92
    pc.cmos(0x0B, 0x06)
    pc.now = (12 * 3600 + 2) * SECOND
    assert date_of(pc) == [20, 0, 3, 1, 0, 0, 1, 4]
    pc.cmos(0x0B, 0x04)
    assert pc.cmos(4) == 12


def test_update_in_progress_warns_244_us_before_the_second(pc: Pc) -> None:
    times = (0, SECOND - 244_001, SECOND - 244_000, SECOND - 1, SECOND)
    seen = []
    for pc.now in times:
        seen.append(pc.cmos(0x0A))
    assert seen == [0x26, 0x26, 0xA6, 0xA6, 0x26]
    pc.now = 2 * SECOND - 1
    pc.cmos(0x0B, 0x82)
    assert pc.cmos(0x0A) == 0x26


def test_the_guest_sets_the_time_as_linux_does(pc: Pc) -> None:
    pc.now = SECOND // 4
    pc.cmos(0x0B, 0x82)
    pc.cmos(0x0A, 0x76)
    for index, value in ((0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x58)):
        assert pc.cmos(index, value) == value
    pc.now = 100 * SECOND
    assert pc.cmos(0) == 0x58
    pc.cmos(0x0B, 0x02)
    pc.cmos(0x0A, 0x26)
    pc.now = 100 * SECOND + SECOND // 2 - 1
    assert pc.cmos(0) == 0x58
    pc.now = 102 * SECOND
    assert date_of(pc)[:7] == [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]


@settings(max_examples=60)
@given(st.datetimes(datetime(1, 1, 1), datetime(9998, 12, 31)), st.booleans(), st.integers(0, 200_000))
def test_any_time_is_kept(when: datetime, hours_24: bool, later: int) -> None:
    pc = Pc(epoch=0)
    pc.cmos(0x0B, 0x84 | hours_24 << 1)
    hour = when.hour if hours_24 else (when.hour + 11) % 12 + 1 | (when.hour > 11) << 7
    for index, value in ((0x32, when.year // 100), (9, when.year % 100), (8, when.month), (7, when.day), (4, hour),
                         (2, when.minute), (0, when.second)):
        pc.cmos(index, value)
    pc.cmos(0x0B, 0x04 | hours_24 << 1)
    pc.cmos(0x0B, 0x06)
    pc.now = later * SECOND
    new = when + timedelta(seconds=later)
    assert date_of(pc)[:7] == [new.year // 100, new.year % 100, new.month, new.day, new.hour, new.minute, new.second]


def test_periodic_interrupts_keep_their_rate_and_wait_for_register_c(pc: Pc) -> None:
    pc.start_pics()
    pc.cmos(0x0B, 0x42)
    pc.pass_time(SECOND // 2)
    assert pc.board.acknowledge() == 0x28
    pc.end_of_interrupt(0x28)
    assert not pc.intr  # the line stays high until register C is read
    assert pc.timeline.next_deadline() is None
    assert (pc.cmos(0x0C), pc.cmos(0x0C)) == (0xC0, 0x00)
    assert pc.timeline.next_deadline() == -(-(512 + 1) * SECOND // 1024)
    for rate, hz in ((1, 256), (2, 128), (3, 8192), (15, 2)):
        pc.cmos(0x0A, 0x20 | rate)
        pc.now = SECOND
        pc.cmos(0x0C)
        assert pc.timeline.next_deadline() == SECOND + -(-SECOND // hz)
        pc.now = SECOND // 2


def test_update_and_alarm_interrupts(pc: Pc) -> None:
    pc.cmos(0x0B, 0x12)
    assert pc.timeline.next_deadline() == SECOND
    pc.pass_time(SECOND)
    assert pc.cmos(0x0C) & 0xB0 == 0x90
    for index, value in ((1, 0x30), (3, 0xC0), (5, 0x14)):
        pc.cmos(index, value)
    pc.cmos(0x0B, 0x22)
    assert pc.timeline.next_deadline() == (1 + 2 * 3600 + 30) * SECOND  # 14:00:30
    pc.pass_time(3 * 3600 * SECOND)
    assert pc.cmos(0x0C) & 0xA0 == 0xA0
    pc.cmos(5, 0x7F)  # no such hour
    assert pc.timeline.next_deadline() is None


def test_nothing_is_scheduled_while_no_interrupt_is_enabled(pc: Pc) -> None:
    assert pc.timeline.next_deadline() is None
    pc.now = 5 * SECOND
    assert pc.cmos(0x0C) == 0x50  # flags are set all the same


@pytest.mark.parametrize(("mib", "extended", "high"), [
    (16, 15 * 1024, 0), (64, 63 * 1024, 0x300), (128, 0xFFFF, 0x700), (1, 0, 0), (3072, 0xFFFF, 0xBF00),
])
def test_cmos_tells_the_memory(mib: int, extended: int, high: int) -> None:
    pc = Pc(memory=mib << 20)

    def word(index: int) -> int:
        return pc.cmos(index) | pc.cmos(index + 1) << 8

    assert (word(0x15), word(0x17), word(0x30), word(0x34)) == (640, extended, extended, high)
    assert [pc.cmos(index) for index in (0x5B, 0x5C, 0x5D, 0x0D, 0x0F)] == [0, 0, 0, 0x80, 0]
    assert pc.cmos(0x2E) << 8 | pc.cmos(0x2F) == sum(pc.cmos(index) for index in range(0x10, 0x2E))
    pc.cmos(0x0D, 0)
    assert pc.cmos(0x0D) == 0x80
    assert pc.cmos(0x50, 0xA5) == 0xA5


# ---------------------------------------------------------------- keyboard controller


def command(pc: Pc, value: int, *data: int) -> list[int]:
    """Write a command to port 64h and data to 60h; give the output until there is none."""
    pc.out(0x64, value)
    pc.out(0x60, *data)
    return keyboard(pc)


def keyboard(pc: Pc, *data: int) -> list[int]:
    pc.out(0x60, *data)
    answer = []
    while pc.read(0x64) & 1:
        answer.append(pc.read(0x60))
    return answer


@pytest.mark.parametrize(("value", "answer"), [
    (0xAA, [0x55]), (0xAB, [0x00]), (0xA9, [0x00]), (0x20, [0x45]), (0xD0, [0x03]), (0xC0, [0x80]), (0xAD, []),
    (0xAE, []), (0xA7, []), (0xA8, []),
])
def test_controller_commands(pc: Pc, value: int, answer: list[int]) -> None:
    assert command(pc, value) == answer


def test_the_mode_byte_is_kept_and_ports_are_switched_in_it(pc: Pc) -> None:
    assert command(pc, 0x60, 0x03) == []
    for switch, mode in ((0xA7, 0x23), (0xAD, 0x33), (0xA8, 0x13), (0xAE, 0x03)):
        command(pc, switch)
        assert command(pc, 0x20) == [mode]


@pytest.mark.parametrize(("data", "answer"), [
    ((0xFF,), [0xFA, 0xAA]), ((0xF2,), [0xFA, 0xAB, 0x83]), ((0xED, 0x07), [0xFA, 0xFA]), ((0xEE,), [0xEE]),
    ((0xF0, 0x00), [0xFA, 0xFA, 0x02]), ((0xF3, 0x20), [0xFA, 0xFA]), ((0xF4,), [0xFA]), ((0x12,), [0xFE]),
])
def test_keyboard_commands(pc: Pc, data: tuple[int, ...], answer: list[int]) -> None:
    command(pc, 0x60, 0x01)
    assert keyboard(pc, *data) == answer


def test_translation_changes_the_keyboards_identity_only(pc: Pc) -> None:
    assert keyboard(pc, 0xF2) == [0xFA, 0xAB, 0x41]
    assert command(pc, 0xD2, 0x83) == [0x83]


def test_each_byte_interrupts_on_its_own_line(pc: Pc) -> None:
    pc.start_pics()
    command(pc, 0x60, 0x03)
    pc.out(0x60, 0xFF)
    pc.out(0x64, 0xD3)
    pc.out(0x60, 0x5A)
    for vector, status, byte in ((0x21, 0x01, 0xFA), (0x21, 0x01, 0xAA), (0x2C, 0x21, 0x5A)):
        assert pc.board.acknowledge() == vector
        assert pc.read(0x64) & 0x21 == status
        assert pc.read(0x60) == byte
        pc.end_of_interrupt(vector)
    assert not pc.intr


def test_a_missing_mouse_is_a_time_out(pc: Pc) -> None:
    pc.out(0x64, 0xD4)
    pc.out(0x60, 0xFF)
    assert pc.read(0x64) & 0x61 == 0x61
    assert pc.read(0x60) == 0xFE


# ---------------------------------------------------------------- PCI and the small registers


def test_linux_believes_in_configuration_type_1(pc: Pc) -> None:
    pc.out(0xCFB, 0x00)
    pc.out(0xCF8, 0x00)
    pc.out(0xCFA, 0x00)
    assert (pc.read(0xCF8), pc.read(0xCFA)) == (0xFF, 0xFF)  # so it is not type 2
    pc.out(0xCFB, 0x01)
    pc.ports.write(0xCF8, 4, 0x80000000)
    assert pc.ports.read(0xCF8, 4) == 0x80000000
    assert pc.ports.read(0xCFC, 4) == 0x12378086
    pc.ports.write(0xCF8, 4, 0x80000008)
    assert pc.ports.read(0xCFE, 2) == 0x0600
    pc.ports.write(0xCF8, 4, 0x80000800)
    assert [pc.ports.read(0xCFC, size) for size in (4, 2, 1)] == [0xFFFFFFFF, 0xFFFF, 0xFF]
    pc.ports.write(0xCF8, 4, 0x00000000)
    assert pc.ports.read(0xCFC, 4) == 0xFFFFFFFF


def test_the_bus_can_be_quite_empty() -> None:
    pci = PciConfig(host_bridge=False)
    pci.write_wide(0, 4, 0x80000000)
    assert pci.read_wide(4, 4) == 0xFFFFFFFF


ENDS: list[tuple[Callable[[Pc], object], object]] = [
    (lambda pc: pc.out(0x64, 0xFE), "i8042"),
    (lambda pc: command(pc, 0xD1, 0xDE), "i8042"),
    (lambda pc: pc.out(0x92, 0x03), "port92"),
    (lambda pc: pc.out(0xCF9, 0x02, 0x06), "pci"),
    (lambda pc: pc.out(0xF4, 0x31), 0x31),
    (lambda pc: pc.ports.write(0x604, 2, 0x2000), "off"),
]


@pytest.mark.parametrize(("act", "event"), ENDS)
def test_ways_to_end(pc: Pc, act: Callable[[Pc], object], event: object) -> None:
    act(pc)
    assert pc.events == [event]


def test_what_does_not_end(pc: Pc) -> None:
    pc.out(0x92, 0x02)
    pc.out(0x64, 0xFF)
    command(pc, 0xD1, 0xDF)
    pc.ports.write(0x604, 2, 0x0001)
    pc.ports.write(0x604, 1, 0x20)
    pc.out(0x80, 0x42)
    assert pc.events == []
    assert (pc.read(0x80), pc.read(0x92), pc.ports.read(0x604, 2)) == (0x42, 0x02, 0x0001)


# ---------------------------------------------------------------- the board


def test_the_board_claims_its_table(pc: Pc) -> None:
    assert pc.ports.claims() == list(PORTS)
    assert list(pc.board.state()) == [name for _, _, name in PORTS]
    with pytest.raises(BusConflict, match="com1"):
        pc.ports.claim(0x3FF, 1, pc.board.uart, "other")


def plain(value: object) -> bool:
    return isinstance(value, int | bytes | str) or (isinstance(value, tuple | list) and all(map(plain, value)))


def test_state_is_plain_repeatable_and_back_after_a_reset() -> None:
    def used() -> Pc:
        pc = Pc()
        pc.start_pics()
        open_console(pc)
        pc.out(0x43, 0x34)
        pc.out(0x40, 0x9C, 0x2E)
        pc.pass_time(SECOND)
        keyboard(pc, 0xF0)
        return pc

    first, second = used().board, used().board
    assert first.state() == second.state()
    assert all(plain(value) for device in first.state().values() for value in device.values())
    first.reset()
    fresh = Pc().board
    for name in ("pic1", "pic2", "pit", "i8042", "elcr", "port61", "port92", "pci"):
        assert first.state()[name] == fresh.state()[name], name
    assert first.state()["rtc"]["ram"] == fresh.state()["rtc"]["ram"]


# ---------------------------------------------------------------- ports that emulators have


def test_the_debug_port_prints_and_is_found(pc: Pc) -> None:
    """Kernels read it to see whether somebody listens; Bochs and QEMU answer with the port's number."""
    assert pc.read(0xE9) == 0xE9
    pc.out(0xE9, *b"hi")
    assert (pc.sent, pc.events) == (b"hi", [])


@pytest.mark.parametrize(("size", "value"), [(1, 0x11), (2, 0x1122), (4, 0x11223344)])
def test_the_exit_for_tests_takes_any_width(pc: Pc, size: int, value: int) -> None:
    pc.ports.write(0xF4, size, value)
    assert pc.events == [value], "one access ends the run once"
    assert pc.ports.read(0xF4, size) == (1 << 8 * size) - 1
