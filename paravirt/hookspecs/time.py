# mypy: disable-error-code=empty-body
"""Ops of the clocks: time of day, scheduler clock, clock rate. The TSC itself is a CPU op.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h; callers in arch/i386/kernel/time.c, arch/i386/kernel/tsc.c,
kernel/sched.c.
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import S32, U32, U64


@op(prototype="unsigned long (*get_wallclock)(void)")
def get_wallclock() -> U32:
    """Read the time of day.

    No state changes but that of the clock's own registers. Called by timekeeping_init and on resume.

    :returns: seconds since 1970-01-01 00:00:00 UTC.
    """


@op(prototype="int (*set_wallclock)(unsigned long seconds)")
def set_wallclock(seconds: U32) -> S32:
    """Set the time of day that the platform keeps.

    Afterwards get_wallclock continues from the new time, if the platform lets the guest set it. Called by the
    kernel's timer when the time is synchronised by NTP.

    :param seconds: seconds since 1970-01-01 00:00:00 UTC.
    :returns: 0, or -1 when the platform does not let the guest set its clock.
    """


@op(prototype="u64 (*sched_clock)(void)")
def sched_clock() -> U64:
    """Read the clock of the scheduler and of the log's time stamps.

    No state changes. It never runs backwards on one CPU, and starts near 0 at boot; a hypervisor may leave out
    the time that the CPU was taken from the guest. Called from sched_init on, at every switch and log line.

    :returns: nanoseconds.
    """


@op(prototype="unsigned long (*get_cpu_khz)(void)")
def get_cpu_khz() -> U32:
    """Find the rate of the time-stamp counter.

    No state changes but that of a timer used to measure it. Called by tsc_init; the slot is read each time.

    :returns: kHz, 0 when it cannot be told.
    """
