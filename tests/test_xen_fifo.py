"""Event channels by queues, the FIFO ABI.

What must hold: an event is hooked into its port's queue once, if it is not masked, and the queue is called ready when
it has been empty; a guest that takes queues as the header says loses no event and gets none twice, whatever masks,
priorities, closings and half-taken queues come in between; what was pending before its page of words was there shows
when it comes. What is wrong is refused as Xen refuses it, and a reset goes back to the two-level ABI.

Ref: Xen public/event_channel.h (EVTCHN_FIFO_*); Linux 3.14, drivers/xen/events/events_fifo.c (how a guest takes them).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt_xen.platform.errors import EINVAL, ENOENT, ENOSPC, ENOSYS, EOPNOTSUPP
from paravirt_xen.platform.frames import TYPE, WRITABLE
from tests.xenaudit import audit
from tests.xenservices import ARGUMENT, Caller, calling

SELF = 0x7FF0
CLOSE, SEND, BIND_IPI, UNMASK, RESET, INIT_CONTROL, EXPAND_ARRAY, SET_PRIORITY = 3, 4, 7, 9, 10, 11, 12, 13
POLL = 3  # of sched_op
PENDING, MASKED, LINKED, LINK = 1 << 31, 1 << 30, 1 << 29, (1 << 17) - 1
CONTROL_PFN, ARRAY_PFN, OFFSET = 0x180, 0x181, 256
DEFAULT = 7


class Fifo:
    """A guest that uses the ABI.

    :ivar taken: ports in the order in which their events were handled.
    """

    def __init__(self, guest: Caller) -> None:
        self.guest, self.ram = guest, guest.domain.ram
        self.control = guest.domain.p2m[CONTROL_PFN] * 4096 + OFFSET
        self.array = guest.domain.p2m[ARRAY_PFN] * 4096
        self.heads = [0] * 16
        self.taken: list[int] = []

    def start(self) -> None:
        guest = self.guest
        assert guest.evtchn(INIT_CONTROL, "QIIB7x", guest.domain.p2m[CONTROL_PFN], OFFSET, 0, 0) == 0
        assert guest.get("QIIB7x") == (guest.domain.p2m[CONTROL_PFN], OFFSET, 0, 17)

    def expand(self) -> None:
        assert self.guest.evtchn(EXPAND_ARRAY, "Q", self.guest.domain.p2m[ARRAY_PFN]) == 0

    def word(self, port: int) -> int:
        return self.ram.words[self.array + 4 * port >> 2]

    def set_word(self, port: int, value: int) -> None:
        self.ram.write_u32(self.array + 4 * port, value)

    def mask(self, port: int) -> None:
        self.set_word(port, self.word(port) | MASKED)

    def ready(self) -> int:
        """Take the word that says which queues have something."""
        ready = self.ram.words[self.control >> 2]
        self.ram.write_u32(self.control, 0)
        return ready

    def take_one(self, queue: int) -> bool:
        """Take the first port of a queue; whether there are more."""
        port = self.heads[queue] or self.ram.words[(self.control + 8 >> 2) + queue]
        word = self.word(port)
        self.set_word(port, word & ~(LINKED | LINK))
        self.heads[queue] = word & LINK
        if word & PENDING and not word & MASKED:
            self.set_word(port, self.word(port) & ~PENDING)
            self.taken.append(port)
        return bool(self.heads[queue])

    def take(self, most: int = 1 << 20) -> list[int]:
        """The upcall. :param most: ports, then it breaks off, and the rest of the queues waits for the next time."""
        self.ram.write(self.guest.domain.vcpu_info, b"\0")
        begin = len(self.taken)
        ready = self.ready() | sum(1 << queue for queue, head in enumerate(self.heads) if head)
        while ready and most:
            queue = (ready & -ready).bit_length() - 1
            if not self.take_one(queue):
                ready &= ~(1 << queue)
            ready |= self.ready()
            most -= 1
        if ready:
            self.ram.write_u32(self.control, self.ready() | ready)
        return self.taken[begin:]


@pytest.fixture
def guest() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


@pytest.fixture
def fifo(guest: Caller) -> Fifo:
    fifo = Fifo(guest)
    fifo.start()
    fifo.expand()
    return fifo


def send(fifo: Fifo, *ports: int) -> None:
    for port in ports:
        assert fifo.guest.evtchn(SEND, "I", port) == 0


def test_events_come_in_their_order(fifo: Fifo) -> None:
    ports = [fifo.guest.bind_ipi() for _ in range(3)]
    send(fifo, ports[2], ports[0], ports[2], ports[1])
    assert fifo.guest.flags[0] == 1 and fifo.ram.words[fifo.control >> 2] == 1 << DEFAULT
    assert [fifo.word(port) for port in ports] == [PENDING | LINKED | ports[1], PENDING | LINKED,
                                                   PENDING | LINKED | ports[0]]
    assert fifo.take() == [ports[2], ports[0], ports[1]]
    assert fifo.take() == []


def test_the_queue_is_ready_once(fifo: Fifo) -> None:
    """Edges: the guest is told of a queue that was empty, not of each event in it."""
    first, second = (fifo.guest.bind_ipi() for _ in range(2))
    send(fifo, first)
    fifo.ready()
    fifo.ram.write(fifo.guest.domain.vcpu_info, b"\0")
    send(fifo, first, second)
    assert (fifo.ram.words[fifo.control >> 2], fifo.guest.flags[0]) == (0, 0)


def test_a_masked_port_shows_when_it_is_unmasked(fifo: Fifo) -> None:
    port = fifo.guest.bind_ipi()
    fifo.mask(port)
    send(fifo, port)
    assert fifo.word(port) == PENDING | MASKED and fifo.guest.flags[0] == 0
    assert fifo.guest.evtchn(UNMASK, "I", port) == 0
    assert fifo.guest.flags[0] == 1 and fifo.take() == [port]


def test_priorities(fifo: Fifo) -> None:
    low, normal, high = (fifo.guest.bind_ipi() for _ in range(3))
    for port, priority in ((low, 15), (high, 0)):
        assert fifo.guest.evtchn(SET_PRIORITY, "II", port, priority) == 0
    send(fifo, low, normal, high)
    assert fifo.ram.words[fifo.control >> 2] == 1 << 15 | 1 << DEFAULT | 1
    assert fifo.take() == [high, normal, low]
    assert fifo.guest.evtchn(SET_PRIORITY, "II", low, 16) == -EINVAL
    assert fifo.guest.evtchn(SET_PRIORITY, "II", 1000, 3) == -EINVAL


def test_a_port_moves_to_another_queue_with_its_next_event(fifo: Fifo) -> None:
    """The queue in which it was the last is empty then: nothing may be hooked in behind it there."""
    port, other = (fifo.guest.bind_ipi() for _ in range(2))
    send(fifo, port)
    assert fifo.take() == [port]
    assert fifo.guest.evtchn(SET_PRIORITY, "II", port, 3) == 0
    send(fifo, port, other)
    assert fifo.take() == [port, other]


def test_what_was_pending_before_is_not_lost(guest: Caller) -> None:
    """Neither in the bits of the other ABI, nor before the page with its word is there."""
    before, between = (guest.bind_ipi() for _ in range(2))
    assert guest.evtchn(SEND, "I", before) == 0
    guest.domain.ram.write(guest.domain.vcpu_info, b"\0")
    fifo = Fifo(guest)
    fifo.start()
    send(fifo, between)
    assert guest.flags[0] == 0
    fifo.expand()
    assert guest.flags[0] == 1 and sorted(fifo.take()) == [before, between]


def test_the_hypervisors_own_events_come_too(fifo: Fifo) -> None:
    timer = fifo.guest.bind_virq(0)
    assert fifo.guest.call("set_timer_op", (fifo.guest.domain.clock.now() + 1000) & 0xFFFFFFFF, 0) == 0
    fifo.guest.pass_time(fifo.guest.now + 2000)
    assert timer in fifo.take()


def test_a_closed_port_stays_out_of_use_while_it_is_in_a_queue(fifo: Fifo) -> None:
    first, second = (fifo.guest.bind_ipi() for _ in range(2))
    send(fifo, first, second)
    assert fifo.guest.evtchn(CLOSE, "I", first) == 0
    assert fifo.guest.bind_ipi() not in (first, second)
    assert fifo.take() == [second], "what is closed is silent"
    assert fifo.guest.bind_ipi() == first


def test_a_poll_waits_for_a_masked_port(fifo: Fifo) -> None:
    guest, port = fifo.guest, fifo.guest.bind_ipi()
    fifo.mask(port)
    ports = guest.put("I", port, at=ARGUMENT + 64)
    assert guest.call("sched_op", POLL, guest.put("IIQ", ports, 1, 0)) == 0
    assert guest.domain.sched.blocked
    guest.domain.events.set_pending(port)
    assert not guest.domain.sched.blocked


def test_reset_goes_back_to_bits(fifo: Fifo) -> None:
    guest, frames = fifo.guest, fifo.guest.domain.frames
    held = [guest.domain.p2m[pfn] for pfn in (CONTROL_PFN, ARRAY_PFN)]
    assert all(frames.info[mfn] & TYPE == WRITABLE for mfn in held)
    counts = [frames.counts[mfn] for mfn in held]
    audit(guest.domain)
    assert guest.evtchn(RESET, "H", SELF) == 0
    assert [frames.counts[mfn] for mfn in held] == [count - 1 for count in counts]
    audit(guest.domain)
    port = guest.bind_ipi()
    assert guest.evtchn(SEND, "I", port) == 0 and guest.pending == [port]
    assert guest.evtchn(SET_PRIORITY, "II", port, 3) == -ENOSYS


def test_what_is_refused(guest: Caller) -> None:
    frame, table = guest.domain.p2m[CONTROL_PFN], guest.domain.l3_mfn
    assert guest.evtchn(EXPAND_ARRAY, "Q", frame) == -EOPNOTSUPP
    assert guest.evtchn(INIT_CONTROL, "QIIB7x", frame, 0, 1, 0) == -ENOENT
    for gfn, offset in ((1 << 64) - 2, 0), (1 << 32, 0), (0x7FFFFFFF, 0), (frame, 4), (frame, 4096 - 64), (table, 0):
        assert guest.evtchn(INIT_CONTROL, "QIIB7x", gfn, offset, 0, 0) == -EINVAL
    port = guest.bind_ipi()
    assert guest.evtchn(SEND, "I", port) == 0 and guest.pending == [port], "nothing has changed"
    Fifo(guest).start()
    assert guest.evtchn(INIT_CONTROL, "QIIB7x", frame, 0, 0, 0) == -EINVAL, "there is one"
    assert guest.evtchn(EXPAND_ARRAY, "Q", table) == -EINVAL
    for _ in range(128):
        assert guest.evtchn(EXPAND_ARRAY, "Q", frame) == 0
    assert guest.evtchn(EXPAND_ARRAY, "Q", frame) == -ENOSPC
    audit(guest.domain)


NUMBERS = st.integers(0, 4)
STEPS = st.lists(max_size=40, elements=st.one_of(
    st.tuples(st.sampled_from(["send", "send", "send", "mask", "unmask", "close"]), NUMBERS),
    st.tuples(st.just("take"), st.sampled_from([1, 2, 100])),
    st.tuples(st.just("priority"), NUMBERS, st.sampled_from([0, 7, 15])),
))


@given(steps=STEPS)
def test_no_event_is_lost_or_doubled(steps: list[tuple[str, int] | tuple[str, int, int]]) -> None:
    with calling() as guest:
        fifo = Fifo(guest)
        fifo.start()
        fifo.expand()
        ports = [guest.bind_ipi() for _ in range(5)]
        due: set[int] = set()

        def took(events: list[int]) -> None:
            assert len(set(events)) == len(events) and set(events) <= due
            due.difference_update(events)

        for name, number, *rest in steps:
            port = ports[number % 5]
            if name == "send":
                send(fifo, port)
                due.add(port)
            elif name == "mask":
                fifo.mask(port)
            elif name == "unmask":
                assert guest.evtchn(UNMASK, "I", port) == 0
            elif name == "priority":
                assert guest.evtchn(SET_PRIORITY, "II", port, *rest) == 0
            elif name == "close":
                assert guest.evtchn(CLOSE, "I", port) == 0
                due.discard(port)
                ports[number] = guest.bind_ipi()
                fifo.set_word(ports[number], fifo.word(ports[number]) & ~MASKED)
            else:
                took(fifo.take(number))
        for port in ports:
            assert guest.evtchn(UNMASK, "I", port) == 0
        took(fifo.take())
        assert not due
        audit(guest.domain)
