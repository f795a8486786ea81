"""Time: cycle counters and two alarms.

Cycles are those of the time-stamp counter. Real time (counter 0) is available time (1) plus stolen time (2); with one
CPU of its own a guest is never ready without running, so nothing is stolen and the first two are one counter.

An alarm is due when its counter has reached an absolute value. It interrupts through IRQ 0 of the interrupt
controller, or, as SetAlarm says, through the local APIC's timer entry (LVTT). A periodic one goes on with the first
multiple of its period that lies ahead: what was missed is not made up for. One alarm for each counter.

Ref: Linux 2.6.32 arch/x86/kernel/vmiclock_32.c, asm/vmi_time.h (flags).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paravirt.api import Cancellable
from paravirt_vmi.platform import apic
from paravirt_vmi.platform.layout import CYCLES_PER_SECOND

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

REAL, AVAILABLE = 0, 1
COUNTER_MASK, PERIODIC, LVTT = 0xFF, 0x100, 0x10000


@dataclass
class Alarm:
    """:ivar expiry: in cycles. :ivar period: in cycles, 0 for once."""

    expiry: int
    period: int
    lvtt: bool
    timer: Cancellable | None = None


def frequency(m: Monitor) -> int:
    return CYCLES_PER_SECOND


def counter(m: Monitor, index: int) -> int:
    return m.vcpu.tsc if index <= AVAILABLE else 0


def set_alarm(m: Monitor, flags: int, low: int, high: int, period_low: int, period_high: int) -> None:
    """A counter that has no alarm: the call does nothing."""
    index = flags & COUNTER_MASK
    if index > AVAILABLE:
        return
    cancel_alarm(m, flags)
    period = period_low | period_high << 32 if flags & PERIODIC else 0
    m.alarms[index] = alarm = Alarm(low | high << 32, period, bool(flags & LVTT))
    _arm(m, index, alarm)


def _arm(m: Monitor, index: int, alarm: Alarm) -> None:
    """Virtual time is in nanoseconds, as the cycles are."""
    now = m.machine.engine.now()
    ahead = alarm.expiry - m.vcpu.tsc
    alarm.timer = m.machine.timeline.call_at(now + max(0, ahead), lambda: _due(m, index, alarm))


def _due(m: Monitor, index: int, alarm: Alarm) -> None:
    now = m.vcpu.tsc
    m.count("alarms")
    if alarm.period:
        alarm.expiry += max(0, now - alarm.expiry) // alarm.period * alarm.period + alarm.period
        _arm(m, index, alarm)
    else:
        del m.alarms[index]
    if alarm.lvtt:
        apic.raise_timer(m)
    else:
        line = m.board.pic.line(0)
        line(False)
        line(True)


def cancel_alarm(m: Monitor, flags: int) -> int:
    """1 if it was armed."""
    alarm = m.alarms.pop(flags & COUNTER_MASK, None)
    if alarm is None:
        return 0
    if alarm.timer is not None:
        alarm.timer.cancel()
    return 1


def wallclock(m: Monitor) -> int:
    return m.guest.epoch * 10**9 + m.machine.engine.now()


def wallclock_updated(m: Monitor) -> int:
    """Nobody sets it while the guest runs."""
    return 0
