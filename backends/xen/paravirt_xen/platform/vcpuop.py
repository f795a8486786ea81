"""vcpu_op: what a guest asks about its vcpus, of which there is one.

Ref: Xen public/vcpu.h (structures in their 32-bit layout); common/domain.c (common_vcpu_op, map_vcpu_info),
arch/x86/domain.c, x86_64/domain.c (compat_vcpu_op).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import SHUTDOWN_POWEROFF, VCPU_INFO_BYTES
from paravirt_xen.platform.channels import NR_VCPUS
from paravirt_xen.platform.errors import EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, ENXIO, ETIME, HypercallError
from paravirt_xen.platform.frames import WRITABLE
from paravirt_xen.platform.layout import HYPERVISOR_START, PAGE
from paravirt_xen.platform.runstate import RUNSTATE_INFO

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

VCPU_GUEST_CONTEXT_BYTES = 2800
LEAST_PERIOD, LONGEST_PERIOD = 1_000_000, (1 << 62) - 1
SINGLESHOT = struct.Struct("<QI")  # timeout_abs_ns, flags
FUTURE = 1
REGISTER_VCPU_INFO = struct.Struct("<QII")  # mfn, offset, reserved
TIME_INFO_BYTES = 32


def _initialise(domain: Domain, argument: int) -> int:
    domain.read(argument, VCPU_GUEST_CONTEXT_BYTES)
    raise HypercallError(EEXIST, "vcpu 0 was made with the domain")


def _up(domain: Domain, argument: int) -> int:
    return 0  # it is


def _down(domain: Domain, argument: int) -> int:
    return domain.sched.shutdown(SHUTDOWN_POWEROFF)  # the last one


def _is_up(domain: Domain, argument: int) -> int:
    return 1


def _get_runstate_info(domain: Domain, argument: int) -> int:
    domain.write(argument, domain.sched.runstate.as_of(domain.clock.now()))
    return 0


def _area(domain: Domain, argument: int, size: int) -> int:
    """Address of an area that the hypervisor is to renew; it need not be mapped now."""
    address = domain.read_u32(argument)
    if address + size > HYPERVISOR_START:
        raise HypercallError(EFAULT, f"{address:#x} is the hypervisor's")
    return address


def _register_runstate_memory_area(domain: Domain, argument: int) -> int:
    domain.sched.runstate_area = _area(domain, argument, RUNSTATE_INFO.size) or None
    domain.sched.store_runstate()
    return 0


def _register_vcpu_time_memory_area(domain: Domain, argument: int) -> int:
    domain.clock.area = _area(domain, argument, TIME_INFO_BYTES) or None
    domain.clock.renew()
    return 0


def _set_periodic_timer(domain: Domain, argument: int) -> int:
    period = int.from_bytes(domain.read(argument, 8), "little")
    if not LEAST_PERIOD <= period <= LONGEST_PERIOD:
        raise HypercallError(EINVAL, f"a period of {period} ns")
    domain.timers.set_period(period)
    return 0


def _stop_periodic_timer(domain: Domain, argument: int) -> int:
    domain.timers.set_period(0)
    return 0


def _set_singleshot_timer(domain: Domain, argument: int) -> int:
    when, flags = SINGLESHOT.unpack(domain.read(argument, SINGLESHOT.size))
    if flags & FUTURE and when < domain.clock.now():
        raise HypercallError(ETIME, f"{when} ns is past")
    domain.timers.set_single(when)
    return 0


def _stop_singleshot_timer(domain: Domain, argument: int) -> int:
    domain.timers.set_single(None)
    return 0


def hold_writable(domain: Domain, mfn: int) -> None:
    """Keep a frame of the domain's writable for good: the hypervisor or a backend writes it.

    :raises HypercallError: EINVAL: it is none, or a page table.
    """
    frames = domain.frames
    if not frames.owned(mfn) or frames.get_type(mfn, WRITABLE):
        raise HypercallError(EINVAL, f"frame {mfn:#x} is no page of data")


def _register_vcpu_info(domain: Domain, argument: int) -> int:
    mfn, offset, _ = REGISTER_VCPU_INFO.unpack(domain.read(argument, REGISTER_VCPU_INFO.size))
    if offset > PAGE - VCPU_INFO_BYTES or offset & 3:
        raise HypercallError(ENXIO, f"offset {offset:#x}")
    if domain.vcpu_info != domain.shared:
        raise HypercallError(EINVAL, "the vcpu_info has moved before")
    hold_writable(domain, mfn)
    address = mfn * PAGE + offset
    domain.ram.write(address, domain.ram.read(domain.vcpu_info, VCPU_INFO_BYTES))
    domain.move_vcpu_info(address)
    domain.events.select_all()  # the guest may have looked at the old one meanwhile
    domain.clock.renew()
    return 0


def _send_nmi(domain: Domain, argument: int) -> int:
    if argument:
        raise HypercallError(EINVAL, "an NMI takes no argument")
    domain.traps.nmi_pending = True
    domain.machine.engine.stop()  # it is delivered where the CPU goes on
    return 0


def _get_physid(domain: Domain, argument: int) -> int:
    raise HypercallError(EINVAL, "for a vcpu that is pinned to a CPU")


COMMANDS: Mapping[int, Callable[[Domain, int], int]] = {
    0: _initialise,
    1: _up,
    2: _down,
    3: _is_up,
    4: _get_runstate_info,
    5: _register_runstate_memory_area,
    6: _set_periodic_timer,
    7: _stop_periodic_timer,
    8: _set_singleshot_timer,
    9: _stop_singleshot_timer,
    10: _register_vcpu_info,
    11: _send_nmi,
    12: _get_physid,
    13: _register_vcpu_time_memory_area,
}


def vcpu_op(domain: Domain, command: int, vcpu: int, argument: int) -> int:
    if vcpu >= NR_VCPUS:
        raise HypercallError(ENOENT, f"there is no vcpu {vcpu}")
    run = COMMANDS.get(command)
    if run is None:
        raise HypercallError(ENOSYS, f"vcpu_op {command}")
    return run(domain, argument)
