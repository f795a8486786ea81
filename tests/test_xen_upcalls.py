"""Events as a running guest gets them: upcalls, wake-ups, NMIs, at the instruction and the nanosecond.

What must hold, on both engines: an event that a guest sends to itself is delivered before the hypercall is over; a
blocked guest goes on when its timer fires and not later; a poll ends without an upcall; a multicall that blocks goes on
behind the call that did; an NMI comes at once and ends with the iret hypercall; the periodic timer ticks at 100 Hz.
Two runs are the same to the bit.
"""

from __future__ import annotations

import pytest

from paravirt.machine.outcome import End
from tests.xensnippet import XenSnippet, xen_snippet

SELF, BLOCK, POLL, MULTI, NMI, SPIN = range(6)
SPIN_AND_TELL = 7
MS = 1_000_000
SLACK = 10_000  # ns between a deadline and the guest's looking at the clock
COUNT_SLICE = 5_000  # of the portable clock, which is exact to a slice

each_engine = pytest.mark.parametrize("engine", ["auto", "portable"])


def run(guest: XenSnippet) -> XenSnippet:
    outcome = guest.run()
    assert outcome.end is End.POWEROFF, outcome
    return guest


@each_engine
def test_an_event_to_itself(engine: str) -> None:
    with xen_snippet("events", engine, [SELF, 20]) as guest:
        run(guest)
        port, in_time = guest.words("results", 2)
        assert [taken for taken, _ in guest.log()[-20:]] == [port] * 20
        assert in_time == 20, "each was delivered before its call was over"


@each_engine
def test_the_first_upcall_finds_store_and_console(engine: str) -> None:
    with xen_snippet("events", engine, [SELF, 1]) as guest:
        run(guest)
        assert [port for port, _ in guest.log()] == [1, 2, 3]


@each_engine
def test_blocking_until_a_timer(engine: str) -> None:
    with xen_snippet("events", engine, [BLOCK]) as guest:
        run(guest)
        when, after, port = guest.words("results", 3)
        assert guest.log()[-1][0] == port
        assert when <= guest.log()[-1][1] <= after <= when + SLACK
        assert guest.machine.engine.instructions() < 20_000, "waiting takes no instructions"


@each_engine
def test_polling(engine: str) -> None:
    with xen_snippet("events", engine, [POLL]) as guest:
        run(guest)
        when, after, _ = guest.words("results", 3)
        assert when <= after <= when + SLACK
        assert [port for port, _ in guest.log()] == [1, 2], "the timer makes no upcall: both are masked"


@each_engine
def test_a_multicall_that_blocks(engine: str) -> None:
    with xen_snippet("events", engine, [MULTI]) as guest:
        run(guest)
        when, after, port = guest.words("results", 3)
        assert when <= after <= when + SLACK
        assert guest.log()[-1][0] == port
        state, *times = guest.words("runstate", 11)
        assert state == 0, "running"
        assert times[0] >= when, "the second call was made behind the wait"
        assert times[2 + 4] > 6 * MS, "blocked"
        assert guest.domain.dispatcher.counts()["xen.multicall.sched_op"] == 1


@each_engine
def test_an_nmi(engine: str) -> None:
    with xen_snippet("events", engine, [NMI]) as guest:
        run(guest)
        before, after = guest.words("results", 2)
        (port, when), = guest.log()
        assert port == 0
        assert before < when < after


@each_engine
def test_the_periodic_timer(engine: str) -> None:
    with xen_snippet("events", engine, [SPIN, 45 * MS]) as guest:
        run(guest)
        (port,) = guest.words("results", 3)[2:]
        ticks = [when for taken, when in guest.log() if taken == port]
        slack = SLACK if engine == "auto" else SLACK + 100 * COUNT_SLICE
        assert len(ticks) == 4
        assert all(10 * MS * number <= when <= 10 * MS * number + slack for number, when in enumerate(ticks, 1)), ticks


def nanoseconds(guest: XenSnippet) -> list[int]:
    """The times of the runstate: running, runnable, blocked, offline."""
    words = guest.words("runstate", 11)[3:]
    return [low | high << 32 for low, high in zip(words[::2], words[1::2], strict=True)]


@each_engine
@pytest.mark.parametrize("steal", [0, 25, 90])
def test_stolen_time(engine: str, steal: int) -> None:
    """Another domain takes its share behind each time slice of 30 ms; the guest's clock goes on meanwhile."""
    with xen_snippet("events", engine, [SPIN_AND_TELL, 400 * MS], steal=steal) as guest:
        run(guest)
        running, runnable, blocked, offline = nanoseconds(guest)
        times = guest.domain.counts["xen.preempted"]
        stolen = 30 * MS * steal // (100 - steal)
        assert runnable == times * stolen
        assert times == (0 if not steal else 400 * MS // (30 * MS + stolen) + (400 * MS % (30 * MS + stolen) > 30 * MS))
        assert (blocked, offline) == (0, 0)
        assert running + runnable <= guest.machine.engine.now()
        assert running + runnable >= 400 * MS


def test_without_contention_nothing_is_stolen() -> None:
    with xen_snippet("events", "auto", [BLOCK]) as guest:
        run(guest)
        runstate = guest.domain.sched.runstate
        assert runstate.times[1] == 0 and runstate.times[2] > 6 * MS


@pytest.mark.parametrize("case", [SELF, BLOCK, POLL, MULTI, NMI, SPIN])
def test_twice_the_same(case: int) -> None:
    def once() -> tuple[str, int]:
        with xen_snippet("events", "auto", [case, 3 if case == SELF else 25 * MS]) as guest:
            run(guest)
            return guest.machine.state_hash(), guest.machine.engine.now()

    assert once() == once()
