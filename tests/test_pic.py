"""An interrupt that is lost, doubled or given the wrong vector hangs a kernel far from its cause.

The pair of 8259A is programmed as drivers do, at its PC addresses. What it acknowledges, and when it asks, must be
what the data sheet says for each mode; INTR is driven on changes only.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.devices.pic import Pic
from tests.pcbench import PIC1, PIC2, Pc


@pytest.fixture
def pc() -> Pc:
    return Pc()


@pytest.fixture
def pics(pc: Pc) -> Pc:
    pc.start_pics()
    return pc


def test_an_uninitialised_controller_asks_for_nothing(pc: Pc) -> None:
    pc.out(PIC1 + 1, 0)
    pc.line(1)
    assert not pc.intr
    assert pc.read(PIC1 + 1) == 0


def test_the_cascade_gives_the_slaves_vector_and_needs_two_ends(pics: Pc) -> None:
    pics.line(12)
    assert pics.intr
    assert pics.board.acknowledge() == 0x2C
    assert not pics.intr
    pics.out(PIC1, 0x0B)
    pics.out(PIC2, 0x0B)
    assert (pics.read(PIC1), pics.read(PIC2)) == (0x04, 0x10)
    pics.line(14)
    assert not pics.intr  # lower than 12, which is in service
    pics.end_of_interrupt(0x2C)
    assert pics.intr
    assert pics.board.acknowledge() == 0x2E


def test_priority_nests_and_masking_takes_a_request_back(pics: Pc) -> None:
    pics.line(4)
    assert pics.board.acknowledge() == 0x24
    pics.line(5)
    assert not pics.intr
    pics.line(1)
    assert pics.intr
    pics.out(PIC1 + 1, 0x02)
    assert not pics.intr
    pics.out(PIC1 + 1, 0x00)
    assert pics.board.acknowledge() == 0x21
    pics.out(PIC1, 0x61)  # specific end of 1
    assert not pics.intr
    pics.out(PIC1, 0x20)
    assert pics.board.acknowledge() == 0x25


def test_an_edge_counts_once_and_goes_with_its_line(pics: Pc) -> None:
    pics.line(3)
    assert pics.board.acknowledge() == 0x23
    pics.end_of_interrupt(0x23)
    assert not pics.intr
    pics.line(3, False)
    pics.line(3)
    assert pics.intr
    pics.line(3, False)
    assert not pics.intr
    assert pics.board.acknowledge() == 0x27  # spurious: nothing is put in service
    pics.out(PIC1, 0x0B)
    assert pics.read(PIC1) == 0x00


def test_a_slave_whose_request_went_between_the_cycles_gives_irq_15(pics: Pc) -> None:
    pics.line(10)
    pics.board.pic.slave.asking = lambda: None  # type: ignore[method-assign]
    assert pics.board.acknowledge() == 0x2F


def test_a_level_request_comes_back_until_its_line_falls(pics: Pc) -> None:
    pics.out(0x4D0, 0xFF)
    pics.out(0x4D1, 0xFF)
    assert (pics.read(0x4D0), pics.read(0x4D1)) == (0xF8, 0xDE)  # IRQ 0-2, 8 and 13 stay with edges
    pics.line(11)
    assert pics.board.acknowledge() == 0x2B
    pics.end_of_interrupt(0x2B)
    assert pics.board.acknowledge() == 0x2B
    pics.line(11, False)
    pics.end_of_interrupt(0x2B)
    assert not pics.intr


def test_automatic_end_and_rotation(pc: Pc) -> None:
    pc.start_pics(icw4=0x03)
    pc.out(PIC1, 0x80)  # rotate in automatic end mode
    for irq in (1, 4):
        pc.line(irq)
    assert [pc.board.acknowledge() for _ in range(2)] == [0x21, 0x24]
    for irq in (5, 1, 4):
        pc.line(irq, False)
        pc.line(irq)
    # 4 was served last, so 5 is the highest now and 4 the lowest.
    assert [pc.board.acknowledge() for _ in range(3)] == [0x25, 0x21, 0x24]


def test_set_priority_and_rotate_on_end(pics: Pc) -> None:
    pics.out(PIC1, 0xC4)  # 4 becomes the lowest
    for irq in (0, 4, 5):
        pics.line(irq)
    assert pics.board.acknowledge() == 0x25
    pics.out(PIC1, 0xA0)  # end, and 5 becomes the lowest
    assert pics.board.acknowledge() == 0x20


def test_special_mask_mode_lets_lower_levels_through(pics: Pc) -> None:
    pics.line(3)
    assert pics.board.acknowledge() == 0x23
    pics.line(6)
    assert not pics.intr
    pics.out(PIC1 + 1, 0x08)
    assert not pics.intr
    pics.out(PIC1, 0x68)
    assert pics.board.acknowledge() == 0x26
    pics.out(PIC1, 0x20)  # ends 6, not the masked 3
    pics.out(PIC1, 0x0B)
    assert pics.read(PIC1) == 0x08


def test_special_fully_nested_mode_lets_the_slave_interrupt_itself(pc: Pc) -> None:
    for icw4, again in ((0x01, False), (0x11, True)):
        pc.start_pics(icw4)
        pc.line(12)
        assert pc.board.acknowledge() == 0x2C
        pc.line(9)
        assert pc.intr is again
        for irq in (9, 12):
            pc.line(irq, False)


def test_poll_acknowledges_by_a_read(pics: Pc) -> None:
    pics.out(PIC1, 0x0C)
    assert pics.read(PIC1) == 0x00
    pics.line(6)
    pics.out(PIC1, 0x0C)
    assert pics.read(PIC1) == 0x86
    assert not pics.intr
    assert pics.read(PIC1) == 0x00  # the request register again


def test_no_device_can_drive_the_cascade() -> None:
    pic = Pic(lambda high: None)
    for irq in (-1, 2, 16):
        with pytest.raises(ValueError, match=str(irq)):
            pic.line(irq)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 3, 4, 8, 9, 12, 15]), st.booleans()), max_size=24))
def test_acknowledge_gives_the_highest_request_and_intr_is_exact(changes: list[tuple[int, bool]]) -> None:
    pc = Pc()
    pc.start_pics()
    levels: dict[int, bool] = {}
    wanted: set[int] = set()
    for irq, high in changes:
        if high and not levels.get(irq):
            wanted.add(irq)
        elif not high:
            wanted.discard(irq)
        levels[irq] = high
        pc.line(irq, high)
    order = [0, 1, *range(8, 16), 3, 4, 5, 6, 7]
    got = []
    while pc.intr:
        got.append(pc.board.acknowledge())
        pc.end_of_interrupt(got[-1])
    assert got == [0x20 + irq for irq in order if irq in wanted]
