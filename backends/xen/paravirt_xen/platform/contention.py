"""Another domain that wants the CPU: after each time slice of the vcpu's it gets a share.

The vcpu is runnable and does not run, which its runstate tells as stolen time. A vcpu that wakes up runs at once.
Without it (share 0) nothing is ever stolen.

Ref: Xen common/sched/credit.c (time slices of 30 ms; a vcpu that wakes is boosted).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt_xen.platform.timers import Cancellable

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

SLICE_NS = 30_000_000


class Contention:
    """:param share: percent of the CPU that the other one takes while both want it, 0 to 90."""

    def __init__(self, domain: Domain, share: int) -> None:
        self.domain = domain
        self.stolen = SLICE_NS * share // (100 - share)
        self._timer: Cancellable | None = None

    def scheduled_in(self) -> None:
        """The vcpu has the CPU, for a time slice."""
        self.scheduled_out()
        if self.stolen:
            timeline = self.domain.machine.timeline
            self._timer = timeline.call_at(timeline.now() + SLICE_NS, self._preempt)

    def scheduled_out(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _preempt(self) -> None:
        self._timer = None
        self.domain.counts["xen.preempted"] += 1
        self.domain.sched.preempt(self.stolen)
