"""Event channels as public/event_channel.h and public/xen.h describe them.

What must hold: a send sets one pending bit, and if the port is not masked the selector bit and the upcall flag; an
event that is pending already changes nothing; a masked one shows when it is unmasked by the hypercall. Ports are given
out lowest first, 1023 of them; what is closed is free, silent and unbound. The domain can bind to itself and to dom0's
two backends, never to anybody else. Each wrong port, vcpu, VIRQ or domain has the error that Xen gives. The structures
of the hypercall of before 2006 mean the same. Random sequences keep the bookkeeping whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt_xen.platform.channels import State
from paravirt_xen.platform.errors import EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, ENOSYS, EPERM, ESRCH
from paravirt_xen.platform.events import Events
from tests.xenservices import ARGUMENT, READ_ONLY, UNMAPPED, Caller, calling

SELF, US = 0x7FF0, 1
STORE, CONSOLE = 1, 2
BIND_INTERDOMAIN, BIND_VIRQ, BIND_PIRQ, CLOSE, SEND, STATUS = range(6)
ALLOC_UNBOUND, BIND_IPI, BIND_VCPU, UNMASK, RESET = range(6, 11)


@pytest.fixture
def guest() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


def status(guest: Caller, port: int, domain: int = SELF) -> tuple[int, ...]:
    """Status, vcpu and the two words of the union."""
    assert guest.evtchn(STATUS, "HxxIIIII", domain, port, 9, 9, 9, 9) == 0
    return guest.get("HxxIIIII")[2:]


# ---------------------------------------------------------------------- sending


def test_the_builder_leaves_store_and_console_pending() -> None:
    with calling() as guest:
        domain = guest.domain
        events = Events(domain)
        for _ in range(2):
            backend = events.add_backend(lambda: None)
            events.notify(backend)
        assert guest.pending == [STORE, CONSOLE]
        assert guest.flags == (1, 1, 1), "pending, masked, the first word selected"


def test_send_sets_the_bits_once(guest: Caller) -> None:
    port = guest.bind_ipi()
    assert guest.evtchn(SEND, "I", port) == 0
    assert (guest.pending, guest.flags) == ([port], (1, 1, 1))
    guest.domain.ram.write_u32(guest.domain.vcpu_info + 4, 0)  # the guest has begun to take it
    assert guest.evtchn(SEND, "I", port) == 0
    assert guest.flags == (1, 1, 0), "it is pending already: no second edge"


def test_a_masked_port_shows_when_it_is_unmasked(guest: Caller) -> None:
    port = guest.bind_ipi()
    guest.mask(port)
    assert guest.evtchn(SEND, "I", port) == 0
    assert (guest.pending, guest.flags) == ([port], (0, 1, 0))
    assert guest.evtchn(UNMASK, "I", port) == 0
    assert guest.flags == (1, 1, 1)
    guest.clear()
    assert guest.evtchn(UNMASK, "I", port) == 0
    assert guest.flags == (0, 1, 0), "nothing was masked, nothing is pending"


def test_the_selector_word_follows_the_port(guest: Caller) -> None:
    ports = [guest.bind_ipi() for _ in range(70)]
    assert ports == list(range(3, 73))
    assert guest.evtchn(SEND, "I", 71) == 0
    assert guest.flags == (1, 1, 1 << 2)


def test_upcalls_are_due_when_unmasked(guest: Caller) -> None:
    port = guest.bind_ipi()
    guest.evtchn(SEND, "I", port)
    assert not guest.domain.events.pending_unmasked()
    guest.domain.events.upcall_mask = False
    assert guest.domain.events.pending_unmasked()


@pytest.mark.parametrize("port", [0, 3, 63, 64, 1023, 1024, 1 << 31, 0xFFFFFFFF])
def test_sending_through_what_is_not_open(guest: Caller, port: int) -> None:
    for command in (SEND, CLOSE):
        assert guest.evtchn(command, "I", port) == -EINVAL
    assert guest.pending == []


def test_a_virq_cannot_be_sent_and_an_unbound_port_drops_events(guest: Caller) -> None:
    assert guest.evtchn(SEND, "I", guest.bind_virq(0)) == -EINVAL
    assert guest.evtchn(SEND, "I", guest.alloc_unbound(0)) == 0
    assert guest.pending == []


# ---------------------------------------------------------------------- binding


def test_loop_back(guest: Caller) -> None:
    ours = guest.alloc_unbound(SELF)
    assert status(guest, ours) == (State.UNBOUND, 0, US, 0)
    assert guest.evtchn(BIND_INTERDOMAIN, "HxxII", SELF, ours, 0) == 0
    other = guest.get("HxxII")[2]
    assert guest.take() == [other], "what was sent before may be lost, so the new end is pending"
    assert status(guest, ours) == (State.INTERDOMAIN, 0, US, other)
    guest.evtchn(SEND, "I", ours)
    assert guest.take() == [other]
    guest.evtchn(SEND, "I", other)
    assert guest.take() == [ours]
    assert guest.evtchn(CLOSE, "I", other) == 0
    assert status(guest, other)[0] == State.FREE
    assert status(guest, ours)[:3] == (State.UNBOUND, 0, US), "it waits for another binding"


def test_binding_to_what_does_not_wait_for_us(guest: Caller) -> None:
    for_dom0 = guest.alloc_unbound(0)
    for remote, port in ((SELF, for_dom0), (US, 0), (SELF, STORE), (SELF, 1024), (0, 17), (0, 999)):
        assert guest.evtchn(BIND_INTERDOMAIN, "HxxII", remote, port, 0) == -EINVAL, (remote, port)
    assert guest.evtchn(BIND_INTERDOMAIN, "HxxII", 2, 1, 0) == -ESRCH
    assert guest.bind_ipi() == for_dom0 + 1, "failures leave no port behind"


def test_the_backends_can_be_bound_again(guest: Caller) -> None:
    kind, vcpu, remote, peer = status(guest, CONSOLE)
    assert (kind, vcpu, remote) == (State.INTERDOMAIN, 0, 0)
    assert guest.evtchn(CLOSE, "I", CONSOLE) == 0
    guest.domain.events.notify(guest.domain.console.backend)
    assert guest.pending == [], "nobody is at the other end"
    assert guest.evtchn(BIND_INTERDOMAIN, "HxxII", 0, peer, 0) == 0
    assert guest.get("HxxII")[2] == CONSOLE == guest.take()[0]
    assert status(guest, CONSOLE) == (kind, vcpu, remote, peer)


def test_allocating_for_others(guest: Caller) -> None:
    assert guest.evtchn(ALLOC_UNBOUND, "HHI", 0, 1, 0) == -EPERM
    assert guest.evtchn(ALLOC_UNBOUND, "HHI", 7, 1, 0) == -ESRCH
    assert guest.evtchn(ALLOC_UNBOUND, "HHI", US, 7, 0) == 0
    assert status(guest, 3) == (State.UNBOUND, 0, 7, 0)


@pytest.mark.parametrize(("virq", "vcpu", "error"), [
    (24, 0, EINVAL), (0xFFFFFFFF, 0, EINVAL), (0, 1, ENOENT), (0, 0xFFFFFFFF, ENOENT), (2, 1, EINVAL)])
def test_wrong_virqs(guest: Caller, virq: int, vcpu: int, error: int) -> None:
    assert guest.evtchn(BIND_VIRQ, "III", virq, vcpu, 0) == -error


def test_virqs(guest: Caller) -> None:
    port = guest.bind_virq(0)
    assert status(guest, port) == (State.VIRQ, 0, 0, 0)
    assert guest.evtchn(BIND_VIRQ, "III", 0, 0, 0) == -EEXIST
    guest.domain.events.virq(0)
    guest.domain.events.virq(1)
    assert guest.take() == [port]
    assert guest.evtchn(CLOSE, "I", port) == 0
    guest.domain.events.virq(0)
    assert guest.take() == []
    assert guest.bind_virq(0) == port


def test_pirqs_and_ipis(guest: Caller) -> None:
    assert guest.evtchn(BIND_PIRQ, "III", 4, 0, 0) == -EPERM
    assert guest.evtchn(BIND_PIRQ, "III", 1 << 20, 0, 0) == -EINVAL
    assert guest.evtchn(BIND_IPI, "II", 1, 0) == -ENOENT
    assert status(guest, guest.bind_ipi()) == (State.IPI, 0, 0, 0)


def test_bind_vcpu(guest: Caller) -> None:
    assert guest.evtchn(BIND_VCPU, "II", CONSOLE, 0) == 0
    assert guest.evtchn(BIND_VCPU, "II", CONSOLE, 1) == -ENOENT
    assert guest.evtchn(BIND_VCPU, "II", 5000, 0) == -EINVAL
    assert guest.evtchn(BIND_VCPU, "II", guest.bind_ipi(), 0) == -EINVAL
    assert guest.evtchn(BIND_VCPU, "II", guest.bind_virq(0), 0) == -EINVAL, "a VIRQ of the vcpu's own"
    assert guest.evtchn(BIND_VCPU, "II", guest.bind_virq(2), 0) == 0


def test_status_of_other_domains(guest: Caller) -> None:
    assert guest.evtchn(STATUS, "HxxIIIII", 0, 1, 0, 0, 0, 0) == -EPERM
    assert guest.evtchn(STATUS, "HxxIIIII", 5, 1, 0, 0, 0, 0) == -ESRCH
    assert guest.evtchn(STATUS, "HxxIIIII", SELF, 1024, 0, 0, 0, 0) == -EINVAL
    assert status(guest, 0)[0] == State.FREE


def test_ports_run_out(guest: Caller) -> None:
    assert [guest.bind_ipi() for _ in range(1021)] == list(range(3, 1024))
    assert guest.evtchn(BIND_IPI, "II", 0, 0) == -ENOSPC
    assert guest.evtchn(CLOSE, "I", 500) == 0
    assert guest.bind_ipi() == 500


def test_closing_takes_the_event_back(guest: Caller) -> None:
    port = guest.bind_ipi()
    guest.evtchn(SEND, "I", port)
    guest.evtchn(CLOSE, "I", port)
    assert guest.pending == []


def test_reset(guest: Caller) -> None:
    guest.bind_virq(0)
    assert guest.evtchn(RESET, "H", 0) == -EPERM
    assert guest.evtchn(RESET, "H", SELF) == 0
    assert [status(guest, port)[0] for port in range(1, 4)] == [0, 0, 0]
    assert guest.bind_virq(0) == 1


# ---------------------------------------------------------------------- the calls


def test_commands_that_do_not_exist(guest: Caller) -> None:
    for command in (14, 0xFFFFFFFF):
        assert guest.call("event_channel_op", command, ARGUMENT) == -ENOSYS
    assert guest.evtchn(13, "II", STORE, 3) == -ENOSYS, "priorities belong to the FIFO ABI"


@pytest.mark.parametrize("command", range(14))
def test_bad_addresses(guest: Caller, command: int) -> None:
    for address in (0, UNMAPPED, 0xFFFFFFFE):
        assert guest.call("event_channel_op", command, address) == -EFAULT
        assert guest.call("event_channel_op_compat", address) == -EFAULT


def test_an_answer_that_cannot_be_stored(guest: Caller) -> None:
    """In memory that is read-only: the machine-to-phys table, at the word of pfn 0, which reads as vcpu 0."""
    at = READ_ONLY + 4 * guest.domain.p2m[0]
    assert guest.call("event_channel_op", BIND_IPI, at) == -EFAULT
    assert status(guest, 3)[0] == State.IPI, "the port is open all the same, as with Xen"


def test_the_old_form_means_the_same(guest: Caller) -> None:
    at = guest.put("IIII12x", BIND_VIRQ, 0, 0, 0)
    assert guest.call("event_channel_op_compat", at) == 0
    port = guest.get("IIII")[3]
    assert status(guest, port)[0] == State.VIRQ
    guest.put("IHH20x", ALLOC_UNBOUND, SELF, 0)
    assert guest.call("event_channel_op_compat", ARGUMENT) == 0
    assert guest.get("IHHI")[3] == port + 1
    guest.put("II20x", CLOSE, port)
    assert guest.call("event_channel_op_compat", ARGUMENT) == 0
    for command in (RESET, 11, 13):
        guest.put("I24x", command)
        assert guest.call("event_channel_op_compat", ARGUMENT) == -ENOSYS


# ---------------------------------------------------------------------- anything goes

PORTS = st.one_of(st.integers(0, 12), st.sampled_from([63, 64, 1023, 1024, 0xFFFFFFFF]))
DOMAINS = st.sampled_from([0, 1, 2, SELF])
CALLS = st.one_of(
    st.tuples(st.just(BIND_INTERDOMAIN), st.just("HxxII"), st.tuples(DOMAINS, st.integers(0, 20), st.just(0))),
    st.tuples(st.just(BIND_VIRQ), st.just("III"), st.tuples(st.integers(0, 25), st.integers(0, 1), st.just(0))),
    st.tuples(st.just(CLOSE), st.just("I"), st.tuples(PORTS)),
    st.tuples(st.just(SEND), st.just("I"), st.tuples(PORTS)),
    st.tuples(st.just(UNMASK), st.just("I"), st.tuples(PORTS)),
    st.tuples(st.just(ALLOC_UNBOUND), st.just("HHI"), st.tuples(DOMAINS, DOMAINS, st.just(0))),
    st.tuples(st.just(BIND_IPI), st.just("II"), st.tuples(st.integers(0, 1), st.just(0))),
    st.tuples(st.just(BIND_VCPU), st.just("II"), st.tuples(PORTS, st.integers(0, 1))),
    st.tuples(st.just(RESET), st.just("H"), st.tuples(DOMAINS)),
)


@pytest.fixture(scope="module")
def reused() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


@settings(max_examples=60, deadline=None)
@given(calls=st.lists(CALLS, max_size=30))
def test_any_sequence_keeps_the_books(reused: Caller, calls: list[tuple[int, str, tuple[int, ...]]]) -> None:
    guest, events = reused, reused.domain.events
    guest.clear()
    for command, layout, fields in calls:
        assert guest.evtchn(command, layout, *fields) in (
            0, -EINVAL, -ENOENT, -ESRCH, -EPERM, -EEXIST, -ENOSPC)
        for port, channel in enumerate(events.channels):
            if channel.state is State.INTERDOMAIN and channel.remote == 0:
                assert events.backends[channel.peer].peer == port
            elif channel.state is State.INTERDOMAIN:
                other = events.channels[channel.peer]
                assert (other.state, other.peer) == (State.INTERDOMAIN, port)
            elif channel.state is State.VIRQ:
                assert events.virqs[channel.virq] == port
        assert all(events.channels[port].state is State.VIRQ for port in events.virqs.values())
        assert all(events.channels[port].state is not State.FREE for port in guest.pending)
