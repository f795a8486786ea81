"""What the hypervisor and dom0 do for a domain beside its memory and its traps, put together.

Ref: Xen tools/libs/light/libxl_dom.c, tools/console/daemon, tools/xenstore (what serves a new domain).
"""

from __future__ import annotations

from collections.abc import Mapping

from paravirt_xen.platform.clock import GuestClock
from paravirt_xen.platform.console import ConsoleRing
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.events import Events
from paravirt_xen.platform.sched import Scheduler
from paravirt_xen.platform.storering import StoreRing
from paravirt_xen.platform.timers import Timers
from paravirt_xen.platform.vcpuop import hold_writable


def attach_services(domain: Domain, share: int = 0) -> None:
    """Serve a domain whose memory is built and accounted for.

    :param share: percent of the CPU that another domain takes.
    """
    machine = domain.machine
    for mfn in (domain.store_mfn, domain.console_mfn):
        hold_writable(domain, mfn)
    domain.events = events = Events(domain)
    domain.timers = Timers(domain)
    domain.clock = GuestClock(domain)
    domain.sched = Scheduler(domain, share)
    events.upcall_mask = True
    domain.store = StoreRing(domain, domain.store_mfn)
    domain.console = ConsoleRing(domain, domain.console_mfn)
    events.notify(domain.store.backend)  # they have just connected, so there may be something
    events.notify(domain.console.backend)
    domain.clock.set_wall_clock(domain.guest.epoch)
    domain.clock.renew()
    machine.entering = lambda: entering(domain)
    machine.device_state = lambda: state(domain)


def entering(domain: Domain) -> None:
    """The CPU is about to run the vcpu: time goes on, and what has come for it is delivered."""
    scheduled_in = domain.sched.entering()
    if scheduled_in or domain.events.pending_unmasked() or domain.traps.nmi_pending:
        vcpu = domain.vcpu
        vcpu.state.load()
        if scheduled_in:
            domain.traps.reload_segments()
        domain.traps.deliver_upcall()
        vcpu.state.store()


def state(domain: Domain) -> Mapping[str, object]:
    """What the services remember that is not in the domain's memory."""
    return {
        "channels": domain.events.state(),
        "grants": domain.grants.uses.state(),
        "timers": domain.timers.state(),
        "sched": domain.sched.state(),
        "console": domain.console.state(),
        "store": domain.store.state(),
    }
