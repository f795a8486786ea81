"""The vcpu's two timers: one that fires once, and a periodic one of 100 Hz until the guest stops it.

Both raise VIRQ_TIMER. The periodic one runs only while the vcpu has the CPU: a blocked vcpu is not woken by it, and
gets a tick that it has missed when it comes back.

Ref: Xen common/sched/core.c (do_set_timer_op, vcpu_periodic_timer_work), public/vcpu.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from paravirt_xen.platform.channels import VIRQ_TIMER

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

PERIOD_NS = 10_000_000
FAR = 1 << 50  # a timeout so far away, or negative, is one that has wrapped
FAR_NS = 100_000_000  # then: soon, but not at once
NEVER = 1 << 62  # ns: 146 years; the machine's clock is a signed 64-bit number


class Cancellable(Protocol):
    def cancel(self) -> None: ...


def call_at(domain: Domain, when: int, callback: Callable[[], None]) -> Cancellable | None:
    """Call at system time `when`, a signed 64-bit number: what is negative is past. None: it is too far away."""
    if when >> 63:
        when = 0
    return domain.machine.timeline.call_at(when, callback) if when < NEVER else None


class Timers:
    """
    :ivar single: when the one-shot timer fires, None if it is not set.
    :ivar period: of the periodic timer, 0 if it is stopped.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.single: int | None = None
        self.period = PERIOD_NS
        self._last = 0
        self._running = True
        self._single_timer: Cancellable | None = None
        self._periodic_timer: Cancellable | None = None
        domain.events.on_virq_change = lambda virq: self._arm()

    def _now(self) -> int:
        return self.domain.machine.engine.now()

    def _call_at(self, when: int, callback: Callable[[], None]) -> Cancellable | None:
        return call_at(self.domain, when, callback)

    def state(self) -> tuple[object, ...]:
        return self.single, self.period, self._last, self._running

    # ------------------------------------------------------------------ once

    def set_single(self, when: int | None) -> None:
        """Fire at system time `when`, at once if that is past; None: not at all."""
        if self._single_timer is not None:
            self._single_timer.cancel()
            self._single_timer = None
        self.single = when
        if when is not None:
            self._single_timer = self._call_at(when, self._fire)

    def _fire(self) -> None:
        self.single = self._single_timer = None
        self.domain.events.virq(VIRQ_TIMER)

    # ------------------------------------------------------------------ again and again

    def set_period(self, period: int) -> None:
        """:param period: ns; 0 stops it."""
        self.period = period
        self._work()

    def scheduled_in(self) -> None:
        """The vcpu has the CPU again."""
        self._running = True
        self._work()

    def scheduled_out(self) -> None:
        """The vcpu blocks: no ticks."""
        self._running = False
        self._arm()

    def _work(self) -> None:
        now = self._now()
        if self.period and now >= self._last + self.period:
            self._last = now
            self.domain.events.virq(VIRQ_TIMER)
        self._arm()

    def _arm(self) -> None:
        """Have a deadline if somebody listens: one more would only keep an idle machine awake."""
        if self._periodic_timer is not None:
            self._periodic_timer.cancel()
            self._periodic_timer = None
        if self.period and self._running and VIRQ_TIMER in self.domain.events.virqs:
            now = self._now()
            if now >= self._last + self.period:  # ticks that nobody has heard
                self._last += (now - self._last) // self.period * self.period
            self._periodic_timer = self._call_at(self._last + self.period, self._tick)

    def _tick(self) -> None:
        self._periodic_timer = None
        self._work()


def set_timer_op(domain: Domain, when: int) -> int:
    now = domain.machine.engine.now()
    if when == 0:
        domain.timers.set_single(None)
    elif when >> 63 or when - now >= FAR:
        domain.timers.set_single(now + FAR_NS)
    else:
        domain.timers.set_single(when)
    return 0
