"""The interval timer of a PC/AT: an 8254 with three counters, and port 61h beside it.

Nothing ticks. The CLK input is virtual time cut into ticks of 1/1193182 s, counted from time 0; a counter
remembers the tick at which it was loaded, and count and OUT follow from the tick it is now. So the n-th
edge is as exact as the first. Only counter 0 asks the clock for calls, since only its edges interrupt.

Ref: Intel 82C54 data sheet (order 231244), "Programming the 82C54" and "Mode Definitions"; IBM PC/AT
Technical Reference, "System Timers" and port 61h
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.machine.bus import FLOATING, Cancellable, Clock, IrqLine
from paravirt.machine.shortcuts import Countdown

HZ = 1193182
SECOND = 1_000_000_000
REFRESH = 18  # ticks from one memory refresh to the next, as every PC's firmware sets it

_CONTROL = 3
_LOW, _HIGH, _BOTH = 1, 2, 3


def ticks_at(now: int) -> int:
    """The CLK ticks that ended up to `now` (ns)."""
    return now * HZ // SECOND


def time_of(tick: int) -> int:
    """The first nanosecond at which `tick` ticks have ended."""
    return -(-tick * SECOND // HZ)


def _from_bcd(value: int) -> int:
    return sum((value >> 4 * i & 15) * 10**i for i in range(4))


def _to_bcd(value: int) -> int:
    return sum(value // 10**i % 10 << 4 * i for i in range(4))


class Counter:
    """One counter. All times are in ticks; `tick` gives the present one.

    :param gate: the level of GATE at power-on.
    :param changed: called after a change to what OUT will do.
    """

    def __init__(self, tick: Callable[[], int], gate: bool, changed: Callable[[], None]) -> None:
        self._tick, self._wired_gate, self._changed = tick, gate, changed
        self._gate = gate
        self.countdown = Countdown()
        self._program(0)

    def _program(self, control: int) -> None:
        self._control = control  # the low six bits of the control word: how to access, mode, BCD
        self._start: int | None = None  # the tick that loads the count; None: nothing is loaded
        self._held: int | None = None  # ticks counted when GATE stopped it
        self._count = 0  # what is counted down from
        self._written = 0  # what the next load takes
        self._switch: tuple[int, int] | None = None  # the tick that loads a count anew, and `_start` from then
        self._first_byte: int | None = None  # the low byte, while the high one is to come
        self.countdown.high_next = False
        self._latched: int | None = None
        self._status: int | None = None
        self._foresee()

    def _foresee(self) -> None:
        """Say what may be read in this counter's place until something changes."""
        countdown = self.countdown
        countdown.running = (
            self._start is not None and self._held is None and self._switch is None and self._latched is None
            and self._status is None and self._access == _BOTH and not self._control & 1 and self.mode in (0, 2))
        countdown.periodic = self.mode == 2
        countdown.start, countdown.count = self._start or 0, self._count

    @property
    def mode(self) -> int:
        mode = self._control >> 1 & 7
        return mode & 3 if mode > 5 else mode

    @property
    def _access(self) -> int:
        return self._control >> 4 & 3

    @property
    def _span(self) -> int:
        return 10_000 if self._control & 1 else 0x10000

    def _elapsed(self) -> int | None:
        """Ticks counted, or None while nothing is loaded."""
        if self._held is not None or self._start is None:
            return self._held
        now = self._tick()
        if self._switch is not None and now >= self._switch[0]:
            self._start, self._count, self._switch = self._switch[1], self._written, None
        return now - self._start if now >= self._start else None

    def out(self) -> bool:
        """The level of OUT."""
        mode = self.mode
        elapsed = self._elapsed()
        if elapsed is None:
            # A one-shot goes low with its trigger, not a tick later, so that a new trigger makes no gap.
            return mode > 1 or (mode == 1 and self._start is None)
        if mode < 2:
            return elapsed >= self._count
        if mode < 4 and not self._gate:
            return True
        if mode == 2:
            return elapsed % self._count != self._count - 1
        if mode == 3:
            return elapsed % self._count < (self._count + 1) // 2
        return elapsed != self._count

    def value(self) -> int:
        """The count as it is read: binary or BCD."""
        elapsed = self._elapsed() or 0
        count = self._count
        if self.mode == 2 and count:
            left = count - elapsed % count
        elif self.mode == 3 and count:
            place, high = elapsed % count, (count + 1) // 2
            left = (count & ~1) - 2 * (place if place < high else place - high)
        else:
            left = count - elapsed
        left %= self._span
        return _to_bcd(left) if self._control & 1 else left

    def next_rise(self) -> int | None:
        """The next tick at which OUT goes high, or None."""
        elapsed = self._elapsed() or 0
        if self._held is not None or self._start is None:
            return None
        mode, count = self.mode, self._count
        if mode not in (2, 3):
            rise = count if mode < 2 else count + 1
            return self._start + rise if rise > elapsed else None
        if self._switch is not None:
            when, start = self._switch
            return start if start >= when else start + self._written
        # A count of 1 is not allowed: OUT would never leave its level.
        return self._start + (elapsed // count + 1) * count if count > 1 else None

    def control(self, word: int) -> None:
        """Take a control word for this counter that is not a latch command."""
        self._program(word & 0x3F)
        self._changed()

    def latch_count(self) -> None:
        if self._latched is None:
            self._latched = self.value()
            self._foresee()

    def latch_status(self) -> None:
        if self._status is None:
            null = self._elapsed() is None or self._written != self._count
            self._status = self.out() << 7 | null << 6 | self._control
            self._foresee()

    def read(self) -> int:
        if self._status is not None:
            status, self._status = self._status, None
            self._foresee()
            return status
        value = self.value() if self._latched is None else self._latched
        if self._access == _BOTH and not self.countdown.high_next:
            self.countdown.high_next = True
            return value & 0xFF
        self._latched = None
        self.countdown.high_next = False
        self._foresee()
        return value & 0xFF if self._access == _LOW else value >> 8

    def write(self, value: int) -> None:
        if self._access == _BOTH and self._first_byte is None:
            self._first_byte = value
            if self.mode == 0:
                self._start = self._held = None  # the first byte stops it and brings OUT low
                self._foresee()
                self._changed()
            return
        if self._access == _BOTH:
            value = (self._first_byte or 0) | value << 8
            self._first_byte = None
        elif self._access == _HIGH:
            value <<= 8
        if self._control & 1:
            value = _from_bcd(value) % self._span
        self._take(value or self._span)
        self._foresee()
        self._changed()

    def _take(self, count: int) -> None:
        """A count was written: load it when its mode says so."""
        mode = self.mode
        self._elapsed()  # takes an earlier count that is due
        self._written = count
        if mode in (2, 3) and self._start is not None:
            self._switch = self._end_of_part(max(self._tick(), self._start))
        elif mode in (1, 5):
            if self._start is None:
                self._count = count  # GATE will load it
        else:
            self._load()

    def _end_of_part(self, now: int) -> tuple[int, int]:
        """When a new count takes over: at the end of the period (mode 2) or half period (mode 3)."""
        assert self._start is not None
        place, high = (now - self._start) % self._count, (self._count + 1) // 2
        if self.mode == 3 and place < high:
            end = now + high - place
            return end, end - (self._written + 1) // 2  # the low half of the new count follows
        end = now + self._count - place
        return end, end

    def _load(self) -> None:
        """Load what was written at the next CLK pulse."""
        self._count = self._written
        self._switch = None
        self._start = self._tick() + 1
        self._held = None if self._gate or self.mode in (1, 5) else 0

    def set_gate(self, high: bool) -> None:
        """GATE stops modes 0 and 4, stops and restarts 2 and 3, and triggers 1 and 5."""
        if high == self._gate:
            return
        elapsed = self._elapsed()
        self._gate = high
        mode = self.mode
        if not high:
            if mode not in (1, 5) and self._start is not None:
                self._held = elapsed or 0
        elif mode in (0, 4):
            if self._held is not None:
                self._start, self._held = self._tick() - self._held, None
        elif self._written:
            self._load()
        self._foresee()
        self._changed()

    def state(self) -> Mapping[str, object]:
        return {
            "control": self._control,
            "gate": self._gate,
            "start": -1 if self._start is None else self._start,
            "held": -1 if self._held is None else self._held,
            "count": self._count,
            "written": self._written,
            "switch": self._switch or (),
            "first_byte": -1 if self._first_byte is None else self._first_byte,
            "high_next": bool(self.countdown.high_next),
            "latched": -1 if self._latched is None else self._latched,
            "status": -1 if self._status is None else self._status,
        }

    def reset(self) -> None:
        self._gate = self._wired_gate
        self._program(0)
        self._changed()


class Port61:
    """System control port B: GATE of counter 2 (bit 0), speaker (1), refresh toggle (4), OUT of counter 2 (5)."""

    def __init__(self, tick: Callable[[], int], counter: Counter) -> None:
        self._tick, self._counter = tick, counter
        self._bits = 0

    def read(self, offset: int) -> int:
        refresh = self._tick() // REFRESH & 1
        return self._bits | refresh << 4 | self._counter.out() << 5

    def write(self, offset: int, value: int) -> None:
        self._bits = value & 0x0F
        self._counter.set_gate(bool(value & 1))

    def state(self) -> Mapping[str, object]:
        return {"bits": self._bits}

    def reset(self) -> None:
        self.write(0, 0)


class Pit:
    """Counters 0 to 2 at offsets 0 to 2, control words at 3. Port 61h is the port device `port61`.

    :param irq0: follows OUT of counter 0. In the periodic modes only its rising edges are exact: the line
        falls right before it rises, since the interrupt controller acts on nothing else.
    """

    def __init__(self, clock: Clock, irq0: IrqLine) -> None:
        self._clock, self._irq0 = clock, irq0
        self._timer: Cancellable | None = None
        self.counters = (
            Counter(self._tick, True, self._out0_changed),
            Counter(self._tick, True, _unobserved),
            Counter(self._tick, False, _unobserved),
        )
        self.port61 = Port61(self._tick, self.counters[2])

    def _tick(self) -> int:
        return ticks_at(self._clock.now())

    def _out0_changed(self) -> None:
        self._irq0(self.counters[0].out())
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rise = self.counters[0].next_rise()
        if rise is not None:
            self._timer = self._clock.call_at(time_of(rise), self._rise)

    def _rise(self) -> None:
        self._timer = None
        self._irq0(False)
        self._irq0(True)
        self._schedule()

    def read(self, offset: int) -> int:
        return FLOATING if offset == _CONTROL else self.counters[offset].read()

    def write(self, offset: int, value: int) -> None:
        if offset != _CONTROL:
            self.counters[offset].write(value)
        elif value >> 6 == 3:
            for number, counter in enumerate(self.counters):
                if value >> number + 1 & 1:
                    if not value & 0x20:
                        counter.latch_count()
                    if not value & 0x10:
                        counter.latch_status()
        elif value & 0x30:
            self.counters[value >> 6].control(value)
        else:
            self.counters[value >> 6].latch_count()

    def state(self) -> Mapping[str, object]:
        return {
            f"{name}{number}": value
            for number, counter in enumerate(self.counters)
            for name, value in counter.state().items()
        }

    def reset(self) -> None:
        for counter in self.counters:
            counter.reset()


def _unobserved() -> None:
    """Nobody looks at the edges of counters 1 and 2."""
