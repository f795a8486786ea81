"""A local APIC for one CPU: interrupts by vector, its timer, and the 8259's through LINT0.

There is no I/O APIC and no other CPU: an IPI reaches this one or nobody, and one that is neither by vector nor an NMI
goes nowhere. The timer counts virtual nanoseconds.

Ref: Intel SDM vol. 3A, 10.4 (registers), 10.5 (local vector table, timer), 10.6 (ICR), 10.8 (priorities, EOI).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt.machine.bus import Cancellable, Clock

ID, VERSION, TPR, EOI, LDR, DFR, SVR, ISR, IRR, ESR = 0x20, 0x30, 0x80, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x200, 0x280
ICR, ICR_HIGH, LVTT, LVT_PERFORMANCE, LINT0, LINT1, LVT_ERROR = 0x300, 0x310, 0x320, 0x340, 0x350, 0x360, 0x370
INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x380, 0x390, 0x3E0
MASKED, PERIODIC, ENABLED, EXTINT, MODE = 1 << 16, 1 << 17, 1 << 8, 7 << 8, 7 << 8
VERSION_VALUE = 0x00040014  # five entries in the table, version 14h
AT_RESET = {LDR: 0, DFR: 0xFFFFFFFF, SVR: 0xFF, LVTT: MASKED, LVT_PERFORMANCE: MASKED, LINT0: MASKED, LINT1: MASKED,
            LVT_ERROR: MASKED}
READ_ONLY = frozenset({ID, VERSION, ESR, CURRENT_COUNT, *range(ISR, ESR, 0x10)})
SELF, ALL = 1 << 18, 2 << 18  # destination shorthands of ICR
SHORTHAND, FIXED, NMI = 3 << 18, 0, 4 << 8


class LocalApic:
    """A device of 4 KiB of registers, 16 bytes apart.

    :param intr: the CPU's INTR input. :param acknowledge_pic: an INTA cycle to the 8259.
    :param nmi: the CPU's NMI input; None: NMIs go nowhere.
    :param virtual_wire: LINT0 passes the 8259's interrupts on from the beginning, as firmware leaves it.
    """

    def __init__(self, clock: Clock, intr: Callable[[bool], None], acknowledge_pic: Callable[[], int], *,
                 nmi: Callable[[], None] | None = None, virtual_wire: bool = False) -> None:
        self._clock, self._intr, self._acknowledge_pic = clock, intr, acknowledge_pic
        self._nmi = nmi
        self._lint0 = EXTINT if virtual_wire else MASKED
        self._pic = False
        self._timer: Cancellable | None = None
        self._power_on()

    def _power_on(self) -> None:
        self._registers = {**AT_RESET, LINT0: self._lint0}
        self._requested: set[int] = set()
        self._served: list[int] = []  # the last is the highest
        self._started = 0

    # ------------------------------------------------------------------ interrupts

    def pic_line(self, level: bool) -> None:
        """The 8259's output, on LINT0."""
        self._pic = level
        self._update()

    def timer_entry(self) -> None:
        """What LVTT says happens."""
        self._local(LVTT)

    def acknowledge(self) -> int:
        """The vector that the CPU is to take."""
        vector = self._deliverable()
        if vector is None:
            return self._acknowledge_pic()
        self._requested.discard(vector)
        self._served.append(vector)
        self._update()
        return vector

    def _local(self, entry: int) -> None:
        value = self._registers.get(entry, MASKED)
        if not value & MASKED:
            self._requested.add(value & 0xFF)
            self._update()

    def _deliverable(self) -> int | None:
        if not self._requested or not self._registers[SVR] & ENABLED:
            return None
        vector = max(self._requested)
        serving = self._served[-1] >> 4 if self._served else 0
        return vector if vector >> 4 > max(serving, self._registers.get(TPR, 0) >> 4 & 15) else None

    def _passes_pic(self) -> bool:
        lint0 = self._registers[LINT0]
        return not self._registers[SVR] & ENABLED or (not lint0 & MASKED and lint0 & MODE == EXTINT)

    def _update(self) -> None:
        self._intr(self._deliverable() is not None or (self._pic and self._passes_pic()))

    # ------------------------------------------------------------------ timer

    def _divisor(self) -> int:
        code = self._registers.get(DIVIDE, 0)
        shift = code & 3 | code >> 1 & 4
        return 1 if shift == 7 else 2 << shift

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._started = self._clock.now()
        if count := self._registers.get(INITIAL_COUNT, 0):
            self._timer = self._clock.call_at(self._started + count * self._divisor(), self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._local(LVTT)
        if self._registers[LVTT] & PERIODIC:
            self._start_timer()

    def _current_count(self) -> int:
        passed = (self._clock.now() - self._started) // self._divisor()
        return max(0, self._registers.get(INITIAL_COUNT, 0) - passed)

    # ------------------------------------------------------------------ the registers

    def read_wide(self, offset: int, size: int) -> int:
        register = offset & ~0xF
        value = self._read(register) if offset & 0xF < 4 else 0
        return value >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def _read(self, register: int) -> int:
        if register == VERSION:
            return VERSION_VALUE
        if register == CURRENT_COUNT:
            return self._current_count()
        if ISR <= register < ESR:
            vectors = self._requested if register >= IRR else self._served
            first = (register >> 4 & 7) * 32
            in_tmr = ISR + 0x80 <= register < IRR  # trigger mode: all are edges
            return 0 if in_tmr else sum(1 << vector - first for vector in vectors if first <= vector < first + 32)
        return self._registers.get(register, 0)

    def write_wide(self, offset: int, size: int, value: int) -> None:
        register = offset & ~0xF
        if offset & 0xF or size != 4:
            return  # the manual has no meaning for it
        if register == EOI:
            if self._served:
                self._served.pop()
        elif register == ICR:
            self._registers[ICR] = value
            to_us = value & SHORTHAND in (SELF, ALL) or (
                not value & SHORTHAND and self._registers.get(ICR_HIGH, 0) >> 24 in (0, 0xFF))
            if value & MODE == FIXED and to_us:
                self._requested.add(value & 0xFF)
            elif value & MODE == NMI and to_us and self._nmi is not None:
                self._nmi()
        elif register not in READ_ONLY:
            self._registers[register] = value
            if register == INITIAL_COUNT:
                self._start_timer()
        self._update()

    def state(self) -> Mapping[str, object]:
        return {"registers": sorted(self._registers.items()), "requested": sorted(self._requested),
                "served": list(self._served), "started": self._started, "pic": self._pic}

    def reset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._power_on()
