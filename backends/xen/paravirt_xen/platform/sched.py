"""sched_op: yielding, blocking, polling, the end of the domain; and what blocking means for the vcpu.

A vcpu blocks by `Machine.block`. It is woken when evtchn_upcall_pending becomes set, when a port that it polls
becomes pending, or by the timeout of its poll.

Ref: Xen public/sched.h; common/sched/core.c (vcpu_block, vcpu_unblock, do_poll, domain_watchdog), common/domain.c
(domain_shutdown), arch/x86/compat.c (do_sched_op_compat).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paravirt.api import End, GuestExit, Outcome
from paravirt_xen.platform.abi import (
    DOMAIN_ID,
    SCHEDOP_BLOCK,
    SCHEDOP_POLL,
    SCHEDOP_SHUTDOWN,
    SCHEDOP_YIELD,
    SHUTDOWN_CRASH,
    SHUTDOWN_POWEROFF,
    SHUTDOWN_REBOOT,
    SHUTDOWN_SUSPEND,
    SHUTDOWN_WATCHDOG,
)
from paravirt_xen.platform.channels import ANY_PORT, DOM0
from paravirt_xen.platform.contention import Contention
from paravirt_xen.platform.errors import EFAULT, EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH, HypercallError
from paravirt_xen.platform.layout import HYPERVISOR_START
from paravirt_xen.platform.runstate import BLOCKED, RUNNABLE, RUNNING, Runstate
from paravirt_xen.platform.timers import Cancellable, call_at

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

SCHEDOP_REMOTE_SHUTDOWN, SCHEDOP_SHUTDOWN_CODE, SCHEDOP_WATCHDOG, SCHEDOP_PIN_OVERRIDE = 4, 5, 6, 7
SHUTDOWN_SOFT_RESET = 5
SUSPEND_CANCELLED = 1
POLL = struct.Struct("<IIQ")  # ports, nr_ports, timeout
MAX_POLL_PORTS = 128
WATCHDOGS = 2
SECOND = 1_000_000_000
YIELD_NS = 1_000  # another domain has its turn

OUTCOMES: Mapping[int, tuple[End, str]] = {
    SHUTDOWN_POWEROFF: (End.POWEROFF, "the guest powered the machine off"),
    SHUTDOWN_REBOOT: (End.REBOOT, "the guest asked for a reboot"),
    SHUTDOWN_CRASH: (End.CRASH, "the guest reported its own crash (sched_op shutdown, reason 3)"),
    SHUTDOWN_WATCHDOG: (End.CRASH, "a watchdog of the guest expired"),
    SHUTDOWN_SOFT_RESET: (End.REBOOT, "the guest asked for a soft reset"),
}


class Scheduler:
    """The one vcpu's.

    :param share: percent of the CPU that another domain takes, see contention.py.
    :ivar runstate_area: virtual address of the guest's own copy of the runstate.
    """

    def __init__(self, domain: Domain, share: int = 0) -> None:
        self.domain = domain
        self.contention = Contention(domain, share)
        self.contention.scheduled_in()
        self.runstate = Runstate(domain.machine.engine.now())
        self.runstate_area: int | None = None
        self.blocked = False
        self._poll_timer: Cancellable | None = None
        self.shutdown_code: int | None = None
        self.watchdogs: list[Cancellable | None] = [None] * WATCHDOGS
        domain.events.kick = self.unblock

    def state(self) -> tuple[object, ...]:
        runstate, watchdogs = self.runstate, [timer is not None for timer in self.watchdogs]
        return (self.blocked, self.domain.events.polled, self.shutdown_code, self.runstate_area, runstate.state,
                runstate.entered, runstate.times, watchdogs)

    # ------------------------------------------------------------------ blocking

    def block(self) -> None:
        """SCHEDOP_block, and HLT: events are let through, and if there is none the vcpu waits for one."""
        events = self.domain.events
        events.upcall_mask = False
        if not events.pending_unmasked():
            self._deschedule("an event")

    def _deschedule(self, waits_for: str) -> None:
        domain = self.domain
        self.blocked = True
        domain.timers.scheduled_out()
        self.contention.scheduled_out()
        domain.machine.block(lambda: not self.blocked, waits_for)
        self.runstate.change(BLOCKED, domain.machine.engine.now())

    def unblock(self) -> None:
        """Something has come for the vcpu."""
        if not self.blocked:
            return
        self.blocked = False
        self._end_poll()
        self.runstate.change(RUNNABLE, self.domain.machine.engine.now())

    def preempt(self, ns: int) -> None:
        """Somebody else has the CPU for a time, though the vcpu could use it."""
        machine = self.domain.machine
        now = machine.engine.now()
        self.domain.timers.scheduled_out()
        machine.timeline.call_at(now + ns, lambda: None)
        machine.block(lambda: machine.engine.now() >= now + ns, "the CPU")
        self.runstate.change(RUNNABLE, now)

    def entering(self) -> bool:
        """The CPU is about to run the vcpu; whether it did something else before."""
        domain = self.domain
        if self.runstate.state == RUNNING:
            domain.clock.renew_if_old()
            return False
        self.runstate.change(RUNNING, domain.machine.engine.now())
        domain.timers.scheduled_in()
        self.contention.scheduled_in()
        domain.clock.renew()
        self.store_runstate()
        return True

    def leaves(self) -> bool:
        """Whether the guest does not go on as it is: it is blocked, has an upcall before it, or is at its end."""
        domain = self.domain
        return self.blocked or domain.events.pending_unmasked() or domain.machine.outcome is not None

    def store_runstate(self) -> None:
        """Renew the guest's copy; one that cannot be reached now is not."""
        if self.runstate_area is not None:
            with contextlib.suppress(HypercallError):
                self.domain.write(self.runstate_area, self.runstate.as_of_entry())

    # ------------------------------------------------------------------ polling

    def poll(self, ports: int, count: int, timeout: int) -> None:
        """Wait until one of the ports is pending, or system time is `timeout` (0: never)."""
        domain = self.domain
        if count > MAX_POLL_PORTS:
            raise HypercallError(EINVAL, f"{count} ports to poll")
        if ports + 4 * count > HYPERVISOR_START:
            raise HypercallError(EFAULT, f"no guest memory: {ports:#x}")
        if domain.events.pending_unmasked():
            return
        port = 0
        for index in range(count):
            port = domain.read_u32(ports + 4 * index)
            if domain.events.poll(port):
                return
        domain.events.polled = port if count == 1 else ANY_PORT
        if timeout:
            self._poll_timer = call_at(domain, timeout, self.unblock)
        self._deschedule("an event, or a port that it polls,")

    def _end_poll(self) -> None:
        self.domain.events.polled = 0
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None

    # ------------------------------------------------------------------ the end

    def shutdown(self, reason: int) -> int:
        """:param reason: SHUTDOWN_*; a code that was latched before goes before it."""
        if self.shutdown_code is None:
            if reason == SHUTDOWN_SUSPEND:
                return SUSPEND_CANCELLED  # nobody is there who could save the domain
            self.shutdown_code = reason
        domain = self.domain
        domain.console.drain()
        if self.shutdown_code == SHUTDOWN_CRASH and domain.guest.kernel.note is not None:
            message, eip = domain.guest.panic()
            raise GuestExit(Outcome(End.CRASH, f"kernel panic: {message}", eip, domain.machine.symbolize(eip)))
        end, sentence = OUTCOMES.get(self.shutdown_code, (
            End.CRASH, f"the guest shut down for the unknown reason {self.shutdown_code}"))
        domain.machine.end(end, sentence)
        return 0

    def watchdog(self, number: int, seconds: int) -> int:
        """:param number: 0 starts one and gives its number, others set it again or (0 seconds) stop it."""
        if number > WATCHDOGS:
            raise HypercallError(EINVAL, f"watchdog {number}")
        if number == 0:
            for index, timer in enumerate(self.watchdogs):
                if timer is None:
                    self._set_watchdog(index, seconds)
                    return index + 1
            raise HypercallError(ENOSPC, "all watchdogs are in use")
        timer = self.watchdogs[number - 1]
        if timer is None:
            raise HypercallError(EINVAL, f"watchdog {number} is not in use")
        timer.cancel()
        self.watchdogs[number - 1] = None
        if seconds:
            self._set_watchdog(number - 1, seconds)
        return 0

    def _set_watchdog(self, index: int, seconds: int) -> None:
        machine = self.domain.machine
        self.watchdogs[index] = machine.timeline.call_at(
            machine.engine.now() + seconds * SECOND, lambda: self._expired())

    def _expired(self) -> None:
        self.shutdown(SHUTDOWN_WATCHDOG)


# ---------------------------------------------------------------------- the calls


def _yield(domain: Domain, argument: int) -> int:
    domain.machine.engine.charge(YIELD_NS)
    domain.console.drain()
    return 0


def _block(domain: Domain, argument: int) -> int:
    domain.sched.block()
    return 0


def _shutdown(domain: Domain, argument: int) -> int:
    return domain.sched.shutdown(domain.read_u32(argument) & 0xFF)


def _poll(domain: Domain, argument: int) -> int:
    domain.sched.poll(*POLL.unpack(domain.read(argument, POLL.size)))
    return 0


def _remote_shutdown(domain: Domain, argument: int) -> int:
    domid = int.from_bytes(domain.read(argument, 8)[:2], "little")
    raise HypercallError(EPERM if domid in (DOM0, DOMAIN_ID) else ESRCH, "for control domains")


def _shutdown_code(domain: Domain, argument: int) -> int:
    code = domain.read_u32(argument) & 0xFF
    if domain.sched.shutdown_code is None:
        domain.sched.shutdown_code = code
    return 0


def _watchdog(domain: Domain, argument: int) -> int:
    number, seconds = struct.unpack("<II", domain.read(argument, 8))
    return domain.sched.watchdog(number, seconds)


def _pin_override(domain: Domain, argument: int) -> int:
    raise HypercallError(EPERM, "for the hardware domain")


COMMANDS: Mapping[int, Callable[[Domain, int], int]] = {
    SCHEDOP_YIELD: _yield,
    SCHEDOP_BLOCK: _block,
    SCHEDOP_SHUTDOWN: _shutdown,
    SCHEDOP_POLL: _poll,
    SCHEDOP_REMOTE_SHUTDOWN: _remote_shutdown,
    SCHEDOP_SHUTDOWN_CODE: _shutdown_code,
    SCHEDOP_WATCHDOG: _watchdog,
    SCHEDOP_PIN_OVERRIDE: _pin_override,
}


def sched_op(domain: Domain, command: int, argument: int) -> int:
    run = COMMANDS.get(command)
    if run is None:
        raise HypercallError(ENOSYS, f"sched_op {command}")
    return run(domain, argument)


def sched_op_compat(domain: Domain, command: int, argument: int) -> int:
    """The form of before 2005: the reason of a shutdown by value."""
    if command in (SCHEDOP_YIELD, SCHEDOP_BLOCK):
        return sched_op(domain, command, 0)
    if command == SCHEDOP_SHUTDOWN:
        return domain.sched.shutdown(argument & 0xFF)
    raise HypercallError(ENOSYS, f"sched_op {command}")
