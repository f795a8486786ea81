"""How a vcpu spends its time: running, runnable (it could run and does not: stolen time), blocked, offline.

Ref: Xen public/vcpu.h (struct vcpu_runstate_info, in its 32-bit layout); common/sched/core.c
(vcpu_runstate_change, vcpu_runstate_get).
"""

from __future__ import annotations

import struct

RUNNING, RUNNABLE, BLOCKED, OFFLINE = range(4)
RUNSTATE_INFO = struct.Struct("<iQ4Q")  # state, state_entry_time, time[4]


class Runstate:
    """Times are virtual nanoseconds; those of all states together are the time since the vcpu was made."""

    def __init__(self, now: int = 0) -> None:
        self.state = RUNNING
        self.entered = now
        self.times = [0, 0, 0, 0]

    def change(self, state: int, now: int) -> None:
        if state == self.state:
            return
        self.times[self.state] += now - self.entered
        self.state, self.entered = state, now

    def as_of_entry(self) -> bytes:
        """What the guest's own copy holds: the times up to the entry into this state."""
        return RUNSTATE_INFO.pack(self.state, self.entered, *self.times)

    def as_of(self, now: int) -> bytes:
        """The same with the time in this state added, as VCPUOP_get_runstate_info gives it."""
        times = list(self.times)
        times[self.state] += now - self.entered
        return RUNSTATE_INFO.pack(self.state, self.entered, *times)
