"""Time and scheduling of a domain: blocking, polling, timers, runstate, the clock in shared_info, the end.

What must hold: a blocked vcpu uses no time of its own and is woken by exactly what Xen wakes it by: the upcall flag
becoming set, the port it polls, the timeout, never by the periodic timer. Timers fire at their nanosecond and once;
absurd timeouts are softened as Xen softens them. Runstate times add up to the time that has passed, none of it stolen.
The time record is even when it can be read, and gives the TSC's nanoseconds. Each reason of a shutdown has its outcome
and each wrong call its error.

Ref: public/sched.h, vcpu.h, xen.h (vcpu_time_info, wc_*).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.machine.outcome import End
from paravirt_xen.platform.errors import EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH
from paravirt_xen.platform.runstate import BLOCKED, RUNNABLE, RUNNING, Runstate
from tests.xenservices import ARGUMENT, MS, UNMAPPED, Caller, calling

YIELD, BLOCK, SHUTDOWN, POLL, REMOTE_SHUTDOWN, SHUTDOWN_CODE, WATCHDOG, PIN_OVERRIDE = range(8)
SINGLESHOT, PERIODIC, STOP_PERIODIC = 8, 6, 7
PORTS = ARGUMENT + 0x100


@pytest.fixture
def guest() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


def set_timer(guest: Caller, when: int) -> None:
    assert guest.call("set_timer_op", when & 0xFFFFFFFF, when >> 32) == 0


def poll(guest: Caller, *ports: int, timeout: int = 0) -> int:
    guest.put(f"{len(ports)}I", *ports, at=PORTS)
    return guest.with_structure("sched_op", POLL, "IIQ", PORTS, len(ports), timeout)


def blocked(guest: Caller) -> bool:
    return guest.domain.sched.blocked


# ---------------------------------------------------------------------- blocking


def test_block_lets_events_through_and_waits(guest: Caller) -> None:
    guest.bind_virq(0)
    set_timer(guest, 5 * MS)
    assert guest.call("sched_op", BLOCK, 0) == 0
    assert guest.flags == (0, 0, 0) and blocked(guest), "unmasked"
    guest.pass_time(5 * MS - 1)
    assert blocked(guest)
    guest.pass_time(5 * MS)
    assert not blocked(guest)


def test_block_returns_at_once_when_something_is_pending(guest: Caller) -> None:
    port = guest.bind_ipi()
    guest.evtchn(4, "I", port)
    assert guest.call("sched_op", BLOCK, 0) == 0
    assert not blocked(guest) and guest.domain.events.pending_unmasked()


def test_a_masked_port_does_not_wake(guest: Caller) -> None:
    port = guest.bind_virq(0)
    guest.mask(port)
    set_timer(guest, 5 * MS)
    guest.call("sched_op", BLOCK, 0)
    guest.pass_time(20 * MS)
    assert blocked(guest) and guest.pending == [port]


def test_the_old_form(guest: Caller) -> None:
    assert guest.call("sched_op_compat", YIELD, 0) == 0
    assert guest.call("sched_op_compat", BLOCK, 0) == 0
    assert blocked(guest)
    assert guest.call("sched_op_compat", POLL, 0) == -ENOSYS
    outcome = guest.ended("sched_op_compat", SHUTDOWN, 0)
    assert (outcome.end, outcome.exit_code) == (End.POWEROFF, 0)


def test_yield_costs_time(guest: Caller) -> None:
    before = guest.now
    assert guest.call("sched_op", YIELD, 0) == 0
    assert guest.now > before and not blocked(guest)


# ---------------------------------------------------------------------- polling


def test_poll_wakes_by_its_port_though_events_are_masked(guest: Caller) -> None:
    first, second = guest.bind_virq(0), guest.bind_ipi()
    guest.mask(first)
    guest.mask(second)
    assert poll(guest, first) == 0
    assert blocked(guest)
    guest.domain.events.set_pending(second)
    assert blocked(guest), "another port"
    guest.domain.events.virq(0)
    assert not blocked(guest)
    assert guest.flags[:2] == (0, 1), "no upcall: the port is masked, and so are upcalls"


def test_poll_of_several_ports_wakes_by_any(guest: Caller) -> None:
    """As under Xen, which remembers a port only if it is the only one."""
    ports = [guest.bind_ipi() for _ in range(3)]
    for port in ports:
        guest.mask(port)
    assert poll(guest, *ports[:2]) == 0
    guest.domain.events.set_pending(ports[2])
    assert not blocked(guest)


def test_poll_of_what_is_pending_returns(guest: Caller) -> None:
    port = guest.bind_ipi()
    guest.mask(port)
    guest.evtchn(4, "I", port)
    assert poll(guest, port) == 0
    assert not blocked(guest)


def test_poll_times_out(guest: Caller) -> None:
    port = guest.bind_ipi()
    assert poll(guest, port, timeout=7 * MS) == 0
    guest.pass_time(7 * MS - 1)
    assert blocked(guest)
    guest.pass_time(7 * MS)
    assert not blocked(guest) and guest.pending == []


def test_a_poll_that_was_woken_leaves_no_timeout(guest: Caller) -> None:
    port = guest.bind_ipi()
    guest.mask(port)
    poll(guest, port, timeout=7 * MS)
    guest.domain.events.set_pending(port)
    guest.call("sched_op", BLOCK, 0)
    guest.pass_time(20 * MS)
    assert blocked(guest), "the timeout of the poll before must not wake it"


def test_wrong_polls(guest: Caller) -> None:
    assert poll(guest, 1000) == -EINVAL
    assert poll(guest, 3) == -EINVAL, "not open"
    assert guest.with_structure("sched_op", POLL, "IIQ", PORTS, 129, 0) == -EINVAL
    assert guest.with_structure("sched_op", POLL, "IIQ", UNMAPPED, 1, 0) == -EFAULT
    assert guest.with_structure("sched_op", POLL, "IIQ", 0xF5800000, 1, 0) == -EFAULT
    assert guest.with_structure("sched_op", POLL, "IIQ", 0xFFFFFFFF, 128, 0) == -EFAULT
    assert guest.call("sched_op", POLL, UNMAPPED) == -EFAULT
    assert not blocked(guest)
    assert poll(guest) == 0
    assert blocked(guest), "no port at all: any event"


# ---------------------------------------------------------------------- timers


def fired(guest: Caller, until: int) -> list[int]:
    """When VIRQ_TIMER has come, up to `until`; the vcpu keeps the CPU."""
    port, times = guest.domain.events.virqs[0], []
    while guest.now < until:
        deadline = guest.domain.machine.timeline.next_deadline()
        guest.pass_time(until if deadline is None else min(until, deadline))
        times += [guest.now] * (port in guest.take())
    return times


def test_set_timer_fires_once_at_its_nanosecond(guest: Caller) -> None:
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    set_timer(guest, 12_345_678)
    assert fired(guest, 100 * MS) == [12_345_678]


def test_a_timer_set_again_or_taken_back(guest: Caller) -> None:
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    set_timer(guest, 5 * MS)
    set_timer(guest, 9 * MS)
    assert fired(guest, 20 * MS) == [9 * MS]
    set_timer(guest, 30 * MS)
    set_timer(guest, 0)
    assert fired(guest, 50 * MS) == []


def test_a_timeout_that_is_past_fires_at_once(guest: Caller) -> None:
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    guest.pass_time(10 * MS)
    set_timer(guest, 3 * MS)
    assert fired(guest, 20 * MS) == [10 * MS]


@pytest.mark.parametrize("when", [1 << 63, (1 << 64) - 1, 1 << 51, 1 << 62])
def test_a_timeout_that_has_wrapped_fires_in_100_ms(guest: Caller, when: int) -> None:
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    set_timer(guest, when)
    assert fired(guest, 300 * MS) == [100 * MS]


def test_the_periodic_timer_ticks_at_100_hz_until_it_is_stopped(guest: Caller) -> None:
    guest.bind_virq(0)
    assert fired(guest, 55 * MS) == [10 * MS, 20 * MS, 30 * MS, 40 * MS, 50 * MS]
    assert guest.call("vcpu_op", STOP_PERIODIC, 0, 0) == 0
    assert fired(guest, 100 * MS) == []
    assert guest.call("vcpu_op", PERIODIC, 0, guest.put("Q", 3 * MS)) == 0
    assert guest.take() == [guest.domain.events.virqs[0]], "the last tick is longer ago than the new period"
    assert fired(guest, 109 * MS) == [103 * MS, 106 * MS, 109 * MS]


@pytest.mark.parametrize("when", [1 << 62, (1 << 63) - 1])
def test_a_deadline_that_never_comes(guest: Caller, when: int) -> None:
    """The machine's own clock ends before; nothing may trip over that."""
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    assert guest.call("vcpu_op", SINGLESHOT, 0, guest.put("QI", when, 0)) == 0
    assert guest.call("vcpu_op", PERIODIC, 0, guest.put("Q", (1 << 62) - 1)) == 0
    assert poll(guest, 1, timeout=when) == 0 and blocked(guest)
    guest.pass_time(1 << 61)
    assert blocked(guest) and guest.domain.machine.timeline.next_deadline() is None


@pytest.mark.parametrize("when", [1 << 63, (1 << 64) - 1])
def test_a_negative_deadline_is_past(guest: Caller, when: int) -> None:
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    assert guest.call("vcpu_op", SINGLESHOT, 0, guest.put("QI", when, 0)) == 0
    assert fired(guest, MS) == [0]
    assert poll(guest, 1, timeout=when) == 0
    guest.pass_time(2 * MS)
    assert not blocked(guest)


@pytest.mark.parametrize(("period", "error"), [(0, EINVAL), (MS - 1, EINVAL), (1 << 62, EINVAL), (MS, 0),
                                               ((1 << 62) - 1, 0)])
def test_periods(guest: Caller, period: int, error: int) -> None:
    assert guest.call("vcpu_op", PERIODIC, 0, guest.put("Q", period)) == -error


def test_the_periodic_timer_wakes_nobody(guest: Caller) -> None:
    """A tick that was missed comes with the next event, as under Xen."""
    timer, other = guest.bind_virq(0), guest.bind_virq(1)
    guest.call("sched_op", BLOCK, 0)
    guest.pass_time(95 * MS)
    assert blocked(guest) and guest.pending == []
    guest.domain.events.virq(1)
    guest.domain.events.upcall_mask = True
    guest.pass_time(96 * MS)
    assert not blocked(guest) and guest.pending == sorted([timer, other])


def test_without_a_listener_there_is_no_deadline(guest: Caller) -> None:
    """Or a domain that waits for nothing would never be seen to be idle."""
    timeline = guest.domain.machine.timeline
    assert timeline.next_deadline() is None
    port = guest.bind_virq(0)
    assert timeline.next_deadline() is not None
    guest.evtchn(3, "I", port)
    assert timeline.next_deadline() is None


def test_singleshot_with_a_flag(guest: Caller) -> None:
    etime = 62
    guest.bind_virq(0)
    guest.call("vcpu_op", STOP_PERIODIC, 0, 0)
    guest.pass_time(10 * MS)
    assert guest.call("vcpu_op", SINGLESHOT, 0, guest.put("QI", 9 * MS, 1)) == -etime
    assert guest.call("vcpu_op", SINGLESHOT, 0, guest.put("QI", 11 * MS, 1)) == 0
    assert fired(guest, 15 * MS) == [11 * MS]
    assert guest.call("vcpu_op", SINGLESHOT, 0, guest.put("QI", 9 * MS, 0)) == 0
    assert fired(guest, 20 * MS) == [15 * MS]
    guest.call("vcpu_op", SINGLESHOT, 0, guest.put("QI", 30 * MS, 0))
    assert guest.call("vcpu_op", SINGLESHOT + 1, 0, 0) == 0
    assert fired(guest, 40 * MS) == []


# ---------------------------------------------------------------------- runstate and clock


@settings(max_examples=100, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1 << 40))))
def test_runstate_times_add_up(changes: list[tuple[int, int]]) -> None:
    runstate, now = Runstate(), 0
    for state, later in changes:
        now += later
        runstate.change(state, now)
        assert sum(runstate.times) == runstate.entered <= now


def test_runstate_of_a_vcpu_that_blocks(guest: Caller) -> None:
    guest.bind_virq(0)
    assert guest.call("vcpu_op", 5, 0, guest.put("I", PORTS)) == 0
    assert guest.get("iQ4Q", at=PORTS)[0] == RUNNING
    guest.pass_time(4 * MS)
    set_timer(guest, 30 * MS)
    guest.call("sched_op", BLOCK, 0)
    start = guest.now
    guest.pass_time(31 * MS)
    state, entered, *times = guest.get("iQ4Q", at=PORTS)
    assert (state, entered, times[BLOCKED]) == (RUNNING, 30 * MS, 30 * MS - start)
    assert times[RUNNABLE] == 0, "nothing is stolen"
    assert sum(times) == entered
    guest.call("vcpu_op", 4, 0, ARGUMENT)
    state, entered, *times = guest.get("iQ4Q")
    assert (state, sum(times)) == (RUNNING, guest.now)


def test_a_runstate_area_that_is_not_mapped_is_left_alone(guest: Caller) -> None:
    assert guest.call("vcpu_op", 5, 0, guest.put("I", UNMAPPED)) == 0
    guest.call("sched_op", BLOCK, 0)
    guest.bind_virq(1)
    guest.domain.events.virq(1)
    guest.domain.events.upcall_mask = True
    guest.pass_time(MS)
    assert not blocked(guest)
    assert guest.call("vcpu_op", 5, 0, guest.put("I", 0xF5800000)) == -EFAULT


def time_record(guest: Caller, at: int | None = None) -> tuple[int, ...]:
    """version, tsc_timestamp, system_time, mul, shift."""
    data = guest.domain.ram.read(guest.domain.vcpu_info + 32, 32) if at is None else guest.domain.read(at, 32)
    version, _, tsc, system, mul, shift, _ = struct.unpack("<IIQQIbB2x", data)
    return version, tsc, system, mul, shift


def test_the_clock_is_1_ghz_and_advances(guest: Caller) -> None:
    version, _, system, mul, shift = time_record(guest)
    assert version % 2 == 0 and version > 0
    assert (mul, shift) == (0x80000000, 1)
    guest.pass_time(25 * MS)
    guest.call("sched_op", YIELD, 0)
    guest.pass_time(26 * MS)
    later = time_record(guest)
    assert later[0] > version and later[0] % 2 == 0
    assert later[2] > system
    assert (guest.domain.vcpu.tsc - later[1] << shift) * mul >> 32 == guest.now - later[2], "what a guest computes"


def test_the_clock_moves_with_the_vcpu_info(guest: Caller) -> None:
    frame = guest.domain.p2m[0x180]
    assert guest.call("vcpu_op", 10, 0, guest.put("QII", frame, 0x40, 0)) == 0
    assert guest.domain.vcpu_info == frame * 4096 + 0x40
    assert time_record(guest)[2] == guest.now


def test_a_second_copy_of_the_clock(guest: Caller) -> None:
    assert guest.call("vcpu_op", 13, 0, guest.put("I", PORTS)) == 0
    assert time_record(guest, PORTS) == time_record(guest)


def test_wall_clock(guest: Caller) -> None:
    domain = guest.domain
    domain.clock.set_wall_clock((1 << 32) + 77)
    assert domain.shared_u32(2304) % 2 == 0
    assert (domain.shared_u32(2308), domain.shared_u32(2312), domain.shared_u32(2340)) == (77, 0, 1)


# ---------------------------------------------------------------------- the end


@pytest.mark.parametrize(("reason", "end", "status"), [
    (0, End.POWEROFF, 0), (1, End.REBOOT, 0), (3, End.CRASH, 70), (4, End.CRASH, 70), (5, End.REBOOT, 0),
    (77, End.CRASH, 70), (0x100, End.POWEROFF, 0)])
def test_shutdown(guest: Caller, reason: int, end: End, status: int) -> None:
    outcome = guest.ended("sched_op", SHUTDOWN, guest.put("I", reason))
    assert (outcome.end, outcome.exit_code) == (end, status)
    assert outcome.reason


def test_a_suspend_is_cancelled(guest: Caller) -> None:
    assert guest.with_structure("sched_op", SHUTDOWN, "I", 2) == 1
    assert guest.domain.machine.outcome is None


def test_a_latched_reason_goes_first(guest: Caller) -> None:
    assert guest.with_structure("sched_op", SHUTDOWN_CODE, "I", 3) == 0
    assert guest.with_structure("sched_op", SHUTDOWN_CODE, "I", 0) == 0
    assert guest.ended("sched_op", SHUTDOWN, guest.put("I", 0)).end is End.CRASH


def test_calls_for_others(guest: Caller) -> None:
    for domain in (0, 1):
        assert guest.with_structure("sched_op", REMOTE_SHUTDOWN, "HxxI", domain, 0) == -EPERM
    for domain in (2, 0x7FF0):
        assert guest.with_structure("sched_op", REMOTE_SHUTDOWN, "HxxI", domain, 0) == -ESRCH
    assert guest.with_structure("sched_op", PIN_OVERRIDE, "i", 0) == -EPERM
    for command in (8, 0xFFFFFFFF):
        assert guest.call("sched_op", command, ARGUMENT) == -ENOSYS
    for command in (SHUTDOWN, REMOTE_SHUTDOWN, SHUTDOWN_CODE, WATCHDOG):
        assert guest.call("sched_op", command, UNMAPPED) == -EFAULT


def test_watchdogs(guest: Caller) -> None:
    def watchdog(number: int, seconds: int) -> int:
        return guest.with_structure("sched_op", WATCHDOG, "II", number, seconds)

    assert [watchdog(0, 10), watchdog(0, 20), watchdog(0, 30)] == [1, 2, -ENOSPC]
    assert watchdog(3, 1) == -EINVAL
    assert watchdog(1, 0) == 0
    assert watchdog(1, 5) == -EINVAL, "stopped"
    guest.pass_time(15_000 * MS)
    assert guest.domain.machine.outcome is None
    assert watchdog(2, 30) == 0
    guest.pass_time(44_000 * MS)
    assert guest.domain.machine.outcome is None
    guest.pass_time(46_000 * MS)
    outcome = guest.domain.machine.outcome
    assert outcome is not None and (outcome.end, outcome.reason) == (End.CRASH, "a watchdog of the guest expired")
