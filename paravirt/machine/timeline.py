"""What will happen, and when: the event queue of virtual time.

The machine runs the guest up to `Timeline.next_deadline`, then calls `Timeline.run_due`. Devices ask
for a call at an absolute time in nanoseconds; a few timers are alive at once, so a sorted list serves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable


class Timer:
    """A call that is still to come. After it was made or cancelled, `cancel` does nothing.

    `when` is the deadline in virtual nanoseconds.
    """

    def __init__(self, timeline: Timeline, when: int, sequence: int, callback: Callable[[], None]) -> None:
        self.when = when
        self._timeline = timeline
        self._sequence = sequence
        self._callback = callback

    def cancel(self) -> None:
        self._timeline._remove((self.when, self._sequence, self))


class Timeline:
    """
    :param now: gives the current virtual time in nanoseconds.
    :param changed: called when the earliest deadline became earlier than it was, so that a slice of the
        guest that is running can be shortened. A deadline that moves away is not announced: a slice that
        ends too early costs nothing.
    """

    def __init__(self, now: Callable[[], int], changed: Callable[[], None]) -> None:
        self.now = now
        self._changed = changed
        self._sequence = 0
        self._queue: list[tuple[int, int, Timer]] = []
        self._running: int | None = None

    def call_at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, as soon as virtual time has reached `when`.

        A callback that asks for its own deadline or an earlier one gets the next nanosecond instead, so
        that a device which is always late cannot hold the machine at one instant.
        """
        if self._running is not None and when <= self._running:
            when = self.now() + 1
        self._sequence += 1
        timer = Timer(self, when, self._sequence, callback)
        insort(self._queue, (when, self._sequence, timer))
        if self._queue[0][2] is timer:
            self._changed()
        return timer

    def next_deadline(self) -> int | None:
        """The earliest deadline in virtual nanoseconds, or None if nothing will ever happen."""
        return self._queue[0][0] if self._queue else None

    def run_due(self) -> int:
        """Make every call whose time has come, in order of deadline and then of asking, with those that
        these calls ask for. Returns how many."""
        count = 0
        try:
            while self._queue and self._queue[0][0] <= self.now():
                when, _, timer = self._queue.pop(0)
                self._running = when
                timer._callback()
                count += 1
        finally:
            self._running = None
        return count

    def _remove(self, entry: tuple[int, int, Timer]) -> None:
        index = bisect_left(self._queue, entry[:2], key=lambda queued: queued[:2])
        if index < len(self._queue) and self._queue[index][2] is entry[2]:
            del self._queue[index]
