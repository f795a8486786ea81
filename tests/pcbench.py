"""A PC's devices on a bus, with a clock that the test moves and no CPU."""

from __future__ import annotations

from paravirt.devices.board import pc_board
from paravirt.machine.bus import PortBus
from paravirt.machine.timeline import Timeline

SECOND = 1_000_000_000
NOON = 951_825_599  # 2000-02-29 11:59:59 UTC, a Tuesday
PIC1, PIC2, PIT, PORT61, COM1 = 0x20, 0xA0, 0x40, 0x61, 0x3F8


class Pc:
    """A board, its bus and a clock that the test moves."""

    def __init__(self, epoch: int = NOON, memory: int = 128 << 20) -> None:
        self.now = 0
        self.intr = False
        self.irqs: list[tuple[int, int]] = []  # (time, vector), if `serve` is set
        self.serve = False
        self.events: list[object] = []
        self.sent = b""
        self.timeline = Timeline(lambda: self.now, lambda: None)
        self.ports = PortBus()
        self.board = pc_board(
            self.ports, self.timeline, self._intr, epoch=epoch, memory=memory, transmit=self._transmit,
            reset=self.events.append, debug_output=self._transmit, debug_exit=self.events.append,
            power_off=lambda: self.events.append("off"),
        )

    def _intr(self, high: bool) -> None:
        assert high != self.intr, "INTR is told of changes only"
        self.intr = high

    def _transmit(self, data: bytes) -> None:
        self.sent += data

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.ports.write(port, 1, value)

    def read(self, port: int, count: int = 1) -> int:
        """`count` reads of one port, the first in the lowest byte."""
        return sum(self.ports.read(port, 1) << 8 * i for i in range(count))

    def pass_time(self, until: int) -> None:
        while (when := self.timeline.next_deadline()) is not None and when <= until:
            self.now = max(when, self.now)
            self.timeline.run_due()
            while self.serve and self.intr:
                self.irqs.append((self.now, self.board.acknowledge()))
                self.end_of_interrupt(self.irqs[-1][1])
        self.now = until

    def end_of_interrupt(self, vector: int) -> None:
        if vector >= 0x28:
            self.out(PIC2, 0x20)
        self.out(PIC1, 0x20)

    def start_pics(self, icw4: int = 0x01) -> None:
        """As Linux does: vectors 20h-2Fh, everything unmasked."""
        for port, base, wiring in ((PIC1, 0x20, 0x04), (PIC2, 0x28, 0x02)):
            self.out(port, 0x11)
            self.out(port + 1, base, wiring, icw4, 0x00)

    def line(self, irq: int, high: bool = True) -> None:
        self.board.pic.line(irq)(high)

    def cmos(self, index: int, value: int | None = None) -> int:
        self.out(0x70, index)
        if value is not None:
            self.out(0x71, value)
        return self.read(0x71)


def tick(number: int) -> int:
    """The first nanosecond of a tick of 1193182 Hz."""
    return -(-number * SECOND // 1193182)


def open_console(pc: Pc, ier: int = 0x05) -> None:
    """As a driver opens the port: 115200 baud, FIFOs on and emptied, OUT2, interrupts."""
    pc.out(COM1 + 3, 0x83)
    pc.out(COM1, 1)
    pc.out(COM1 + 1, 0)
    pc.out(COM1 + 3, 0x03)
    pc.out(COM1 + 2, 0x07)
    pc.out(COM1 + 4, 0x0B)
    pc.out(COM1 + 1, ier)
