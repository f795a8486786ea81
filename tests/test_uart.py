"""Drivers probe a serial port in a dozen ways, and a console must lose no byte in either direction.

What is read back is compared with literals from the data sheet and from the checks that drivers make. Input waits for
the guest: drivers empty the FIFO when they open the port, so a byte that came earlier would be lost.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pcbench import COM1, SECOND, Pc, open_console

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(COM1, COM1 + 8)
FCR = IIR
CHARACTER = 86_805  # ns of ten bits at 115200 baud


@pytest.fixture
def pc() -> Pc:
    return Pc()


def drain(pc: Pc) -> bytes:
    got = bytearray()
    while pc.read(LSR) & 1:
        got.append(pc.read(DATA))
    return bytes(got)


def test_linux_recognises_a_16550a(pc: Pc) -> None:
    pc.out(IER, 0x00)
    assert pc.read(IER) == 0
    pc.out(IER, 0xFF)
    assert pc.read(IER) == 0x0F
    pc.out(IER, 0x00)
    pc.out(MCR, 0x1A)
    assert pc.read(MSR) & 0xF0 == 0x90
    pc.out(MCR, 0x00)
    assert pc.read(MSR) & 0xF0 == 0xB0  # carrier, data set ready, clear to send
    pc.out(FCR, 0x00)
    assert pc.read(IIR) == 0x01
    pc.out(FCR, 0x01)
    assert pc.read(IIR) == 0xC1
    pc.out(LCR, 0x80)
    pc.out(DATA, 0x0C, 0x34)
    pc.out(IER, 0x12)
    assert (pc.read(DATA), pc.read(IER)) == (0x34, 0x12)
    pc.out(LCR, 0x03)
    assert (pc.read(DATA), pc.read(IER), pc.read(LCR)) == (0, 0, 3)
    pc.out(SCR, 0xA5)
    assert pc.read(SCR) == 0xA5
    assert pc.sent == b""


def test_a_byte_is_sent_at_once(pc: Pc) -> None:
    for byte in b"Hi\n":
        assert pc.read(LSR) == 0x60
        pc.out(DATA, byte)
    assert pc.sent == b"Hi\n"


def test_the_empty_transmitter_interrupts_after_enabling_and_after_each_byte(pc: Pc) -> None:
    pc.start_pics()
    open_console(pc, 0x02)
    assert pc.board.acknowledge() == 0x24
    assert pc.read(IIR) == 0xC2
    assert pc.read(IIR) == 0xC1
    pc.end_of_interrupt(0x24)
    assert not pc.intr
    pc.out(IER, 0x00)
    pc.out(IER, 0x02)
    assert pc.board.acknowledge() == 0x24
    pc.out(DATA, 0x41)  # a new edge, though the line was high
    pc.end_of_interrupt(0x24)
    assert pc.intr
    pc.out(IER, 0x00)
    assert not pc.intr


@pytest.mark.parametrize("mcr", [0x03, 0x1B])
def test_interrupts_need_out2_and_no_loop(pc: Pc, mcr: int) -> None:
    pc.start_pics()
    open_console(pc, 0x02)
    assert pc.intr
    pc.out(MCR, mcr)
    assert not pc.intr
    assert pc.read(IIR) == 0xC2


def test_loopback_fills_the_fifo_and_tells_overruns_first(pc: Pc) -> None:
    open_console(pc, 0x0F)
    assert pc.read(MSR) == 0xB0
    pc.out(MCR, 0x10)
    pc.out(DATA, *range(17))
    assert pc.sent == b""
    assert pc.read(IIR) == 0xC6
    assert pc.read(LSR) == 0x63
    assert pc.read(IIR) == 0xC4
    assert drain(pc) == bytes(range(16))
    assert pc.read(IIR) == 0xC2
    assert pc.read(IIR) == 0xC0  # the modem lines fell
    assert pc.read(MSR) == 0x0B
    assert pc.read(IIR) == 0xC1


def test_the_trigger_decides_between_data_and_time_out(pc: Pc) -> None:
    open_console(pc)
    pc.out(FCR, 0x81)  # 8 bytes
    pc.board.uart.receive(b"12345678")
    pc.pass_time(SECOND)
    assert pc.read(IIR) == 0xC4
    assert pc.read(DATA) == 0x31
    assert pc.read(IIR) == 0xCC


def test_input_waits_until_the_port_is_open_for_good(pc: Pc) -> None:
    pc.board.uart.receive(b"early")
    pc.out(IER, 0x0F)  # a probe, without OUT2
    pc.pass_time(SECOND)
    assert not pc.read(LSR) & 1
    pc.out(IER, 0x00)
    open_console(pc)
    pc.read(DATA)  # drivers clear the port once more after they enabled it
    pc.start_pics()
    pc.pass_time(2 * SECOND)
    assert pc.board.acknowledge() == 0x24
    assert drain(pc) == b"early"


def test_input_waits_while_a_driver_has_its_interrupts_off(pc: Pc) -> None:
    open_console(pc)
    pc.board.uart.receive(b"abc")
    pc.out(IER, 0x00)
    pc.pass_time(SECOND)
    pc.out(FCR, 0x07)
    pc.out(IER, 0x05)
    pc.pass_time(2 * SECOND)
    assert drain(pc) == b"abc"


def test_a_guest_that_only_polls_gets_input_as_well(pc: Pc) -> None:
    pc.board.uart.receive(b"k")
    for _ in range(999):
        assert pc.read(LSR) == 0x60
    pc.out(DATA, 0x2E)  # it was talking, not waiting
    for _ in range(999):
        pc.read(LSR)
    assert pc.timeline.next_deadline() is None
    pc.read(LSR)
    assert pc.timeline.next_deadline() == CHARACTER
    pc.pass_time(CHARACTER)
    assert drain(pc) == b"k"


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 5_000_000), st.booleans())
def test_input_arrives_whole_in_order_and_no_faster_than_the_line(
    pieces: list[bytes], step: int, fifo: bool
) -> None:
    pc = Pc()
    open_console(pc)
    pc.out(FCR, fifo)
    got, text = bytearray(), b"".join(pieces)
    for piece in pieces:
        pc.board.uart.receive(piece)
        pc.pass_time(pc.now + step)
        burst = drain(pc)
        assert len(burst) <= (16 if fifo else 1)
        got += burst
    while (when := pc.timeline.next_deadline()) is not None:
        pc.pass_time(when)
        got += drain(pc)
    assert bytes(got) == text
    assert pc.now >= len(text) * CHARACTER


def test_a_reset_keeps_what_the_host_sent(pc: Pc) -> None:
    open_console(pc)
    pc.board.uart.receive(b"keep")
    pc.board.reset()
    pc.pass_time(SECOND)
    assert (pc.read(IER), pc.read(MCR), pc.read(IIR)) == (0, 0, 1)
    open_console(pc)
    pc.pass_time(2 * SECOND)
    assert drain(pc) == b"keep"
