"""Time as the guest sees it: the record from which it makes system time of its TSC, and the wall clock.

The TSC counts virtual nanoseconds, so the factor is 1 GHz and a record never goes out of date. It is renewed all the
same, as under Xen, whenever the vcpu gets the CPU.

Ref: Xen public/xen.h (struct vcpu_time_info, wc_*); arch/x86/time.c (__update_vcpu_system_time,
update_domain_wallclock_time).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import VCPU_TIME, VCPU_TIME_INFO, WC_NSEC, WC_SEC, WC_SEC_HI, WC_VERSION
from paravirt_xen.platform.errors import HypercallError

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

TSC_TO_SYSTEM_MUL, TSC_SHIFT = 0x80000000, 1  # (tsc << 1) * mul >> 32 = tsc: 1 GHz
TSC_STABLE = 1  # flags: one source for every vcpu
RENEW_NS = 1_000_000


class GuestClock:
    """The clock of a domain with one vcpu.

    :ivar area: virtual address of a second copy that the guest has asked for (register_vcpu_time_memory_area).
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.area: int | None = None
        self._renewed = 0

    def now(self) -> int:
        """System time, ns."""
        return self.domain.machine.engine.now()

    def set_wall_clock(self, epoch: int) -> None:
        """Say what the time was when system time was 0.

        :param epoch: seconds since 1970.
        """
        domain = self.domain
        version = domain.shared_u32(WC_VERSION)
        domain.set_shared_u32(WC_VERSION, (version | 1) & 0xFFFFFFFF)
        domain.set_shared_u32(WC_SEC, epoch & 0xFFFFFFFF)
        domain.set_shared_u32(WC_NSEC, 0)
        domain.set_shared_u32(WC_SEC_HI, epoch >> 32)
        domain.set_shared_u32(WC_VERSION, (version | 1) + 1 & 0xFFFFFFFF)

    def renew(self) -> None:
        """Write the time record; its version is odd while it is written, for readers on other CPUs."""
        domain = self.domain
        self._renewed = now = self.now()
        at = domain.vcpu_info + VCPU_TIME
        version = domain.ram.words[at >> 2] | 1
        tsc = domain.vcpu.tsc
        domain.ram.write_u32(at, version)
        record = VCPU_TIME_INFO.pack(
            version + 1 & 0xFFFFFFFF, 0, tsc & 0xFFFFFFFFFFFFFFFF, now, TSC_TO_SYSTEM_MUL, TSC_SHIFT, TSC_STABLE)
        domain.ram.write(at + 4, record[4:])
        domain.ram.write(at, record[:4])
        if self.area is not None:
            with contextlib.suppress(HypercallError):  # not mapped in this address space: the guest's affair
                domain.write(self.area, record)

    def renew_if_old(self) -> None:
        """Between two slices of a vcpu that keeps the CPU."""
        if self.now() - self._renewed >= RENEW_NS:
            self.renew()
