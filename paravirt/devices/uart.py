"""A serial port: a 16550A whose line is up and whose transmitter takes no time.

What the host sends waits outside until the guest listens, since kernels empty the FIFO when they open the
port. A guest listens while its receive interrupt is enabled and can reach the CPU, or when it has polled the
line status often enough without saying anything. Input then comes at the rate of the line, a FIFO at a
time, so that it neither overruns the guest's buffers nor costs an event a byte.

Ref: National Semiconductor PC16550D data sheet, "Registers" and "FIFO Interrupt Mode Operation"; IBM PC/AT
Technical Reference, "Serial/Parallel Adapter" (OUT2 gates the interrupt)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.machine.bus import Clock, IrqLine
from paravirt.machine.shortcuts import LINE_BYTES, SerialLine

DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH = range(8)
FCR = IIR  # the FIFO control register is written where the cause of the interrupt is read

POLLS = 1000  # reads of the line status, without a write in between, by a guest that waits for input
FIFO = 16

IER_RX, IER_THRE, IER_LINE, IER_MODEM = 0x01, 0x02, 0x04, 0x08
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP = 0x01, 0x02, 0x04, 0x08, 0x10
LSR_READY, LSR_OVERRUN, LSR_IDLE = 0x01, 0x02, 0x60  # idle: holding and shift registers are empty
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80
FCR_ENABLE, FCR_CLEAR_RX = 0x01, 0x02
_FCR_KEPT = 0xC9  # trigger, DMA mode, enable; the clear bits clear themselves

_IIR_NONE, _IIR_MODEM, _IIR_THRE, _IIR_RX, _IIR_LINE, _IIR_TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
_IIR_FIFO = 0xC0
_TRIGGERS = (1, 4, 8, 14)  # by the two high bits of the FIFO control register
_LOOPED = ((MCR_RTS, MSR_CTS), (MCR_DTR, MSR_DSR), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))
_CHARACTER = 10 * 1_000_000_000 * 16 // 1_843_200  # ns of start, eight data and stop bits at divisor 1


class Uart:
    """Eight ports.

    :param irq: the interrupt line.
    :param transmit: called with what the guest sends, each byte at once; see `collect`.
    :ivar sent_at: when the last of it was sent, in virtual ns. :ivar line: what may be done in this device's place.
    """

    def __init__(self, clock: Clock, irq: IrqLine, transmit: Callable[[bytes], None]) -> None:
        self._clock, self._irq, self._transmit = clock, irq, transmit
        self._waiting = bytearray()  # what the host sent and the FIFO has not had
        self._arriving = 0  # bytes of it that are on the line now
        self._high = False
        self._scratch = 0
        self._divisor = 0
        self.line = SerialLine(patience=POLLS)
        self._patient = False
        self.sent_at = 0
        self._power_on()
        self._readers: dict[int, Callable[[], int]] = {
            DATA: self._read_data,
            IER: lambda: self._ier,
            IIR: self._read_cause,
            LCR: lambda: self._lcr,
            MCR: lambda: self._mcr,
            LSR: self._read_line_status,
            MSR: self._read_modem_status,
            SCRATCH: lambda: self._scratch,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            DATA: self._send,
            IER: self._write_enables,
            FCR: self._write_fifo_control,
            LCR: self._write_line_control,
            MCR: self._write_modem_control,
            SCRATCH: self._write_scratch,
        }

    def _power_on(self) -> None:
        self._ier = 0
        self._lcr = 0
        self._mcr = 0
        self._fcr = 0
        self._fifo = bytearray()
        self._overrun = False
        self._thr_empty = False  # the interrupt of the empty transmitter, not the state: that is always empty
        self._modem_changes = 0
        self.line.polls = 0
        self._foresee()

    def collect(self) -> None:
        """What is sent may wait for `settle` from now on."""
        self._patient = True
        self._foresee()

    def settle(self) -> None:
        """Pass on what was sent since the last time."""
        line = self.line
        if line.sent:
            data, line.sent = bytes(line.bytes[:line.sent]), 0
            self.sent_at = line.sent_at
            self._transmit(data)

    def _catch_up(self) -> None:
        """Take note of what was done in this device's place."""
        if self.line.emptied:
            self._thr_empty, self.line.emptied = True, False

    def _foresee(self) -> None:
        """Say what may be done in this device's place until something changes."""
        line = self.line
        line.plain = self._patient and not (
            self._lcr & LCR_DLAB or self._mcr & MCR_LOOP or self._ier & IER_THRE)
        line.status = 0 if self._overrun else LSR_IDLE | (LSR_READY if self._fifo else 0)

    def receive(self, data: bytes) -> None:
        """Queue input from the host, as much as it likes; it arrives when the guest listens."""
        self._waiting += data
        self._expect()

    @property
    def _depth(self) -> int:
        return FIFO if self._fcr & FCR_ENABLE else 1

    @property
    def _connected(self) -> bool:
        """The interrupt can reach the CPU."""
        return self._mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2

    @property
    def _listening(self) -> bool:
        if self._mcr & MCR_LOOP:
            return False
        return bool(self._ier & IER_RX and self._connected) or self.line.polls >= POLLS

    def _expect(self) -> None:
        """If the guest listens and has read all it got, let the next input arrive after its time on the line."""
        if self._waiting and not self._fifo and not self._arriving and self._listening:
            self._arriving = min(self._depth, len(self._waiting))
            when = self._clock.now() + self._arriving * _CHARACTER * max(self._divisor, 1)
            self._clock.call_at(when, self._arrive)

    def _arrive(self) -> None:
        count, self._arriving = min(self._arriving, self._depth - len(self._fifo)), 0
        if self._listening:  # otherwise it comes when the guest listens again
            self._fifo += self._waiting[:count]
            del self._waiting[:count]
        self._expect()
        self._update()

    def _cause(self) -> int:
        """The interrupt identification, without the FIFO bits."""
        if self._ier & IER_LINE and self._overrun:
            return _IIR_LINE
        if self._ier & IER_RX and self._fifo:
            trigger = _TRIGGERS[self._fcr >> 6] if self._fcr & FCR_ENABLE else 1
            # The time-out comes at once: below the trigger, more will not come before the guest has read.
            return _IIR_RX if len(self._fifo) >= trigger else _IIR_TIMEOUT
        if self._ier & IER_THRE and self._thr_empty:
            return _IIR_THRE
        if self._ier & IER_MODEM and self._modem_changes:
            return _IIR_MODEM
        return _IIR_NONE

    def _update(self) -> None:
        self._foresee()
        high = self._connected and self._cause() != _IIR_NONE
        if high != self._high:
            self._high = high
            self._irq(high)

    def _modem_lines(self) -> int:
        if self._mcr & MCR_LOOP:
            return sum(line for control, line in _LOOPED if self._mcr & control)
        return MSR_CTS | MSR_DSR | MSR_DCD

    def read(self, offset: int) -> int:
        self._catch_up()
        if self._lcr & LCR_DLAB and offset < 2:
            return self._divisor >> 8 * offset & 0xFF
        return self._readers[offset]()

    def _read_data(self) -> int:
        if not self._fifo:
            return 0
        value = self._fifo.pop(0)
        self._expect()
        self._update()
        return value

    def _read_cause(self) -> int:
        cause = self._cause()
        if cause == _IIR_THRE:
            self._thr_empty = False
            self._update()
        return cause | (_IIR_FIFO if self._fcr & FCR_ENABLE else 0)

    def _read_line_status(self) -> int:
        self.line.polls += 1
        if self.line.polls == POLLS:
            self._expect()
        status = LSR_IDLE | (LSR_READY if self._fifo else 0) | (LSR_OVERRUN if self._overrun else 0)
        if self._overrun:
            self._overrun = False
            self._update()
        return status

    def _read_modem_status(self) -> int:
        changes, self._modem_changes = self._modem_changes, 0
        self._update()
        return self._modem_lines() | changes

    def write(self, offset: int, value: int) -> None:
        self._catch_up()
        self.line.polls = 0
        if self._lcr & LCR_DLAB and offset < 2:
            self._divisor = self._divisor & 0xFF << 8 * (1 - offset) | value << 8 * offset
        elif offset in self._writers:  # the status registers take no writes
            self._writers[offset](value)
            self._expect()
            self._update()

    def _send(self, value: int) -> None:
        # The interrupt goes while the register is full, and comes back: an edge-triggered controller needs both.
        self._thr_empty = False
        self._update()
        if self._mcr & MCR_LOOP:
            if len(self._fifo) < self._depth:
                self._fifo.append(value)
            else:
                self._overrun = True
        else:
            self._put(value)
        self._thr_empty = True

    def _put(self, value: int) -> None:
        line = self.line
        if line.sent == LINE_BYTES:
            self.settle()
        line.bytes[line.sent] = value
        line.sent += 1
        line.sent_at = self._clock.now()
        if not self._patient:
            self.settle()

    def _write_enables(self, value: int) -> None:
        # Enabling the interrupt of an empty transmitter raises it, even if it was taken before.
        if value & ~self._ier & IER_THRE:
            self._thr_empty = True
        self._ier = value & 0x0F

    def _write_fifo_control(self, value: int) -> None:
        if (value ^ self._fcr) & FCR_ENABLE or value & FCR_CLEAR_RX:
            self._fifo.clear()
        self._fcr = value & _FCR_KEPT if value & FCR_ENABLE else 0

    def _write_line_control(self, value: int) -> None:
        self._lcr = value

    def _write_scratch(self, value: int) -> None:
        self._scratch = value

    def _write_modem_control(self, value: int) -> None:
        before = self._modem_lines()
        self._mcr = value & 0x1F
        after = self._modem_lines()
        changed = (before ^ after) & ~MSR_RI | before & ~after & MSR_RI  # the ring bit tells its end only
        self._modem_changes |= changed >> 4

    def state(self) -> Mapping[str, object]:
        return {
            "ier": self._ier,
            "lcr": self._lcr,
            "mcr": self._mcr,
            "fcr": self._fcr,
            "scratch": self._scratch,
            "divisor": self._divisor,
            "fifo": bytes(self._fifo),
            "waiting": bytes(self._waiting),
            "arriving": self._arriving,
            "overrun": self._overrun,
            "thr_empty": self._thr_empty or bool(self.line.emptied),
            "modem_changes": self._modem_changes,
            "polls": min(self.line.polls, POLLS),
            "irq": self._high,
        }

    def reset(self) -> None:
        # Divisor, scratch register and what the host has queued survive.
        self._catch_up()
        self._power_on()
        self._expect()
        self._update()
