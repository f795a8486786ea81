"""Virtual time moves by the event queue alone, so it must call everything once, in order, and never stand still.

Deadlines come first, then the order of asking; a call that is late asks for the next nanosecond, or a periodic
device would hold the machine at one instant for ever.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.machine.timeline import Timeline, Timer


class Bench:
    def __init__(self) -> None:
        self.now = 0
        self.announced = 0
        self.calls: list[str] = []
        self.timeline = Timeline(lambda: self.now, self.announce)

    def announce(self) -> None:
        self.announced += 1

    def at(self, when: int, name: str) -> Timer:
        return self.timeline.call_at(when, lambda: self.calls.append(name))

    def chain(self, when: int, then: int, name: str) -> None:
        """At `when`, ask for a call at `then`."""

        def ask() -> None:
            self.at(then, name)

        self.timeline.call_at(when, ask)

    def run(self, now: int) -> int:
        self.now = now
        return self.timeline.run_due()


def test_calls_come_in_order_of_deadline_then_of_asking() -> None:
    bench = Bench()
    for when, name in ((30, "late"), (10, "first"), (20, "second"), (20, "third")):
        bench.at(when, name)
    assert bench.timeline.next_deadline() == 10
    assert bench.run(9) == 0
    assert bench.run(20) == 3
    assert bench.calls == ["first", "second", "third"]
    assert bench.timeline.next_deadline() == 30


def test_an_empty_timeline_has_no_deadline() -> None:
    assert Bench().timeline.next_deadline() is None


def test_only_an_earlier_deadline_is_announced() -> None:
    bench = Bench()
    timer = bench.at(100, "a")
    bench.at(200, "b")
    assert bench.announced == 1
    bench.at(50, "c")
    assert bench.announced == 2
    timer.cancel()
    assert bench.announced == 2


def test_a_cancelled_call_is_not_made_and_cancelling_again_does_nothing() -> None:
    bench = Bench()
    timer, other = bench.at(10, "gone"), bench.at(10, "stays")
    timer.cancel()
    timer.cancel()
    assert bench.run(10) == 1
    other.cancel()
    assert bench.calls == ["stays"]


def test_a_call_may_cancel_one_that_is_due_as_well() -> None:
    bench = Bench()
    timers: list[Timer] = []
    bench.timeline.call_at(5, lambda: timers[0].cancel())
    timers.append(bench.at(6, "never"))
    assert bench.run(10) == 1
    assert bench.calls == []


def test_calls_asked_for_by_a_call_are_made_when_due() -> None:
    bench = Bench()
    bench.chain(5, 7, "second")
    assert bench.run(10) == 2
    assert bench.calls == ["second"]


@pytest.mark.parametrize("asked", [5, 4, 0, -1])
def test_a_late_device_gets_the_next_nanosecond(asked: int) -> None:
    bench = Bench()
    bench.chain(5, asked, "again")
    assert bench.run(10) == 1
    assert bench.timeline.next_deadline() == 11
    assert bench.run(11) == 1


def test_a_failing_call_leaves_the_queue_usable() -> None:
    bench = Bench()

    def fail() -> None:
        raise RuntimeError("device")

    bench.timeline.call_at(5, fail)
    bench.at(6, "next")
    with pytest.raises(RuntimeError, match="device"):
        bench.run(10)
    bench.at(3, "past")  # outside a call, a deadline in the past is due at once
    assert bench.run(10) == 2
    assert bench.calls == ["past", "next"]


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30), st.integers(0, 60))
def test_exactly_the_due_and_uncancelled_calls_are_made(entries: list[tuple[int, bool]], until: int) -> None:
    bench = Bench()
    timers = [bench.at(when, str(number)) for number, (when, _) in enumerate(entries)]
    for timer, (_, cancelled) in zip(timers, entries, strict=True):
        if cancelled:
            timer.cancel()
    kept = sorted((when, number) for number, (when, cancelled) in enumerate(entries) if not cancelled)
    bench.run(until)
    assert bench.calls == [str(number) for when, number in kept if when <= until]
    assert bench.timeline.next_deadline() == min((when for when, _ in kept if when > until), default=None)
