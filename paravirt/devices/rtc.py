"""The real-time clock of a PC/AT and its battery-backed memory: an MC146818A with 128 bytes.

Time is virtual time plus a shift, so the clock needs no ticking: registers, update-in-progress and flags
are worked out when they are read. The clock is asked for a call only while an interrupt is enabled.

Ref: Motorola MC146818A data sheet, "Address Map", "Registers A to D", "Update Cycle"; IBM PC/AT Technical
Reference, "Real-Time Clock/CMOS RAM"; Ralf Brown's interrupt list, CMOS map (memory sizes, century)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from paravirt.machine.bus import FLOATING, Cancellable, Clock, IrqLine

SECOND = 1_000_000_000
UPDATE = 244_000  # ns that update-in-progress is set before the registers change
DAY = 86_400

SECONDS, MINUTES, HOURS, WEEKDAY, MONTHDAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
ALARMS = (1, 3, 5)  # seconds, minutes, hours
A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
CENTURY = 0x32
_TIME = (SECONDS, MINUTES, HOURS, WEEKDAY, MONTHDAY, MONTH, YEAR, CENTURY)

UIP = 0x80  # register A
SET, PIE, AIE, UIE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02  # register B
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10  # register C
VALID = 0x80  # register D: the battery is good
_ANY = 0xC0  # an alarm byte from here on matches everything

_UNIX_EPOCH = date(1970, 1, 1).toordinal() - 1
_ERA_YEARS, _ERA_DAYS = 400, 146_097  # the calendar repeats


class _Fields(NamedTuple):
    second: int
    minute: int
    hour: int
    weekday: int  # 1: Sunday
    monthday: int
    month: int
    year: int  # with century


def _fields(second: int) -> _Fields:
    """Seconds since 1970 as a date; no year is out of range."""
    days, rest = divmod(second, DAY)
    era, day = divmod(days + _UNIX_EPOCH, _ERA_DAYS)
    when = date.fromordinal(day + 1)
    year = when.year + _ERA_YEARS * era
    return _Fields(rest % 60, rest // 60 % 60, rest // 3600, (days + 4) % 7 + 1, when.day, when.month, year)


def _seconds(fields: _Fields) -> int:
    """The inverse of `_fields`. A day or time that does not exist carries into what follows."""
    era, year = divmod(fields.year - 1, _ERA_YEARS)
    month = min(max(fields.month, 1), 12)
    days = date(year + 1, month, 1).toordinal() + _ERA_DAYS * era + fields.monthday - 2 - _UNIX_EPOCH
    return days * DAY + fields.hour * 3600 + fields.minute * 60 + fields.second


def _initial_memory(memory: int) -> bytearray:
    """What firmware leaves: `memory` bytes of RAM, a coprocessor, no drives."""
    ram = bytearray(128)
    extended = min(max((memory >> 10) - 1024, 0), 0xFFFF)  # KiB above 1 MiB
    high = min(max((memory - (16 << 20)) >> 16, 0), 0xFFFF)  # 64 KiB blocks above 16 MiB
    beyond = max((memory - (4 << 30)) >> 16, 0)  # 64 KiB blocks above 4 GiB
    ram[0x14] = 0x02  # equipment: coprocessor
    ram[0x15:0x17] = (640).to_bytes(2, "little")
    ram[0x17:0x19] = ram[0x30:0x32] = extended.to_bytes(2, "little")
    ram[0x34:0x36] = high.to_bytes(2, "little")
    ram[0x5B:0x5E] = min(beyond, 0xFFFFFF).to_bytes(3, "little")
    ram[0x2E:0x30] = sum(ram[0x10:0x2E]).to_bytes(2, "big")
    ram[A], ram[B] = 0x26, HOURS_24  # 32768 Hz base, 1024 Hz rate
    return ram


class Rtc:
    """Index at offset 0, data at offset 1.

    :param irq8: high while an enabled flag is set in register C.
    :param epoch: what the clock shows at virtual time 0, in seconds since 1970 UTC.
    :param memory: bytes of RAM, for the sizes that firmware leaves in CMOS memory.
    """

    def __init__(self, clock: Clock, irq8: IrqLine, epoch: int = 946_684_800, memory: int = 0) -> None:
        self._clock, self._irq8 = clock, irq8
        self._ram = _initial_memory(memory)
        self._index = 0
        self._shift = epoch * SECOND  # the chip's time is virtual time plus this, in ns
        self._weekday_shift = 0
        self._seen = self._chip_time()  # flags are worked out up to here
        self._timer: Cancellable | None = None
        self._high = False

    def _chip_time(self) -> int:
        return self._clock.now() + self._shift

    @property
    def _stopped(self) -> bool:
        """The divider is held in reset, or has no 32768 Hz base selected."""
        return self._ram[A] & 0x70 != 0x20

    @property
    def _frozen(self) -> bool:
        """The time registers do not advance: they hold what is in memory."""
        return self._stopped or bool(self._ram[B] & SET)

    def _encode(self, value: int) -> int:
        return value if self._ram[B] & BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self._ram[B] & BINARY else (value >> 4) * 10 + (value & 15)

    def _encode_hour(self, hour: int) -> int:
        if self._ram[B] & HOURS_24:
            return self._encode(hour)
        return self._encode((hour + 11) % 12 + 1) | (0x80 if hour > 11 else 0)

    def _registers(self, second: int) -> dict[int, int]:
        """The time registers at `second`."""
        now = _fields(second)
        return {
            SECONDS: self._encode(now.second),
            MINUTES: self._encode(now.minute),
            HOURS: self._encode_hour(now.hour),
            WEEKDAY: (now.weekday - 1 + self._weekday_shift) % 7 + 1,
            MONTHDAY: self._encode(now.monthday),
            MONTH: self._encode(now.month),
            YEAR: self._encode(now.year % 100),
            CENTURY: self._encode(now.year // 100 % 100),
        }

    def _freeze(self) -> None:
        for register, value in self._registers(self._chip_time() // SECOND).items():
            self._ram[register] = value

    def _thaw(self, restarted: bool) -> None:
        """Go on from what the time registers hold.

        :param restarted: the divider comes out of reset; the first update follows half a second later.
        """
        at = [self._decode(self._ram[register]) for register in _TIME]
        hour = at[2]
        if not self._ram[B] & HOURS_24:
            hour = self._decode(self._ram[HOURS] & 0x7F) % 12 + (12 if self._ram[HOURS] & 0x80 else 0)
        second = _seconds(_Fields(at[0], at[1], hour, 0, at[4], at[5], at[6] + 100 * at[7]))
        self._weekday_shift = (self._ram[WEEKDAY] - _fields(second).weekday) % 7
        part = SECOND // 2 if restarted else self._chip_time() % SECOND
        self._shift = second * SECOND + part - self._clock.now()
        self._seen = self._chip_time()

    def _hz(self) -> int:
        """The periodic rate, or 0."""
        rate = self._ram[A] & 15
        if not rate or self._stopped:
            return 0
        return 512 >> rate if rate < 3 else 0x10000 >> rate

    def _next_alarm(self, second: int) -> int | None:
        """The first second after this one that the alarm bytes match."""
        wanted = [self._ram[register] for register in ALARMS]
        end = second + 1 + DAY
        second += 1
        while second < end:
            now = _fields(second)
            shown = (self._encode(now.second), self._encode(now.minute), self._encode_hour(now.hour))
            differs = [alarm < _ANY and alarm != byte for alarm, byte in zip(wanted, shown, strict=True)]
            if differs[2]:
                second += 3600 - second % 3600
            elif differs[1]:
                second += 60 - second % 60
            elif differs[0]:
                second += 1
            else:
                return second
        return None

    def _settle(self) -> None:
        """Set the flags of what happened since the last time."""
        now, seen = self._chip_time(), self._seen
        self._seen = now
        hz = self._hz()
        if now * hz // SECOND != seen * hz // SECOND:
            self._ram[C] |= PF
        if not self._frozen and now // SECOND != seen // SECOND:
            self._ram[C] |= UF
            alarm = self._next_alarm(seen // SECOND)
            if alarm is not None and alarm <= now // SECOND:
                self._ram[C] |= AF

    def _refresh(self) -> None:
        """Bring the interrupt line in step, and ask for a call when the next enabled flag would be set."""
        high = bool(self._ram[B] & self._ram[C] & (PF | AF | UF))
        self._ram[C] = self._ram[C] & ~IRQF | (IRQF if high else 0)
        if high != self._high:
            self._high = high
            self._irq8(high)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = None if high else self._next_event()
        if when is not None:
            self._timer = self._clock.call_at(when - self._shift, self._due)

    def _next_event(self) -> int | None:
        """The chip's time of the next enabled flag."""
        enabled, now, events = self._ram[B], self._seen, []
        hz = self._hz()
        if enabled & PIE and hz:
            events.append(-(-(now * hz // SECOND + 1) * SECOND // hz))
        if not self._frozen:
            if enabled & UIE:
                events.append((now // SECOND + 1) * SECOND)
            alarm = self._next_alarm(now // SECOND) if enabled & AIE else None
            if alarm is not None:
                events.append(alarm * SECOND)
        return min(events, default=None)

    def _due(self) -> None:
        self._timer = None
        self._settle()
        self._refresh()

    def read(self, offset: int) -> int:
        if offset == 0:
            return FLOATING  # the index cannot be read
        index = self._index
        if index in _TIME and not self._frozen:
            return self._registers(self._chip_time() // SECOND)[index]
        if index == A:
            updating = not self._frozen and self._chip_time() % SECOND >= SECOND - UPDATE
            return self._ram[A] | (UIP if updating else 0)
        if index == C:
            self._settle()
            self._refresh()
            flags, self._ram[C] = self._ram[C], 0
            self._refresh()
            return flags
        return VALID if index == D else self._ram[index]

    def write(self, offset: int, value: int) -> None:
        if offset == 0:
            self._index = value & 0x7F  # bit 7 masks NMI, of which there is none
            return
        index = self._index
        if index in (C, D):
            return
        self._settle()
        frozen, stopped = self._frozen, self._stopped
        if not frozen and index in (*_TIME, A, B):
            self._freeze()
        if index == A:
            value &= 0x7F
        elif index == B and value & SET:
            value &= ~UIE
        self._ram[index] = value
        if not self._frozen and (frozen or index in _TIME):
            self._thaw(restarted=stopped)
        self._refresh()

    def state(self) -> Mapping[str, object]:
        return {
            "ram": bytes(self._ram),
            "index": self._index,
            "shift": self._shift,
            "weekday_shift": self._weekday_shift,
            "seen": self._seen,
            "irq": self._high,
        }

    def reset(self) -> None:
        # The battery keeps the time and the memory; the reset line only stops interrupts.
        self._settle()
        self._ram[B] &= ~(PIE | AIE | UIE | 0x08)
        self._ram[C] = 0
        self._refresh()
