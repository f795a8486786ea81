"""Model-specific registers as a PV guest finds them: some can be read, hardly any written.

Ref: Xen arch/x86/pv/emul-priv-op.c (read_msr, write_msr), arch/x86/msr.c; arch/x86/traps.c (wrmsr_hypervisor_regs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from paravirt_xen.platform.builder import hypercall_page
from paravirt_xen.platform.cpuid import HYPERCALL_MSR
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import WRITABLE
from paravirt_xen.platform.layout import PAGE

TSC, APIC_BASE, PLATFORM_ID, UCODE_REV = 0x10, 0x1B, 0x17, 0x8B
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
MISC_ENABLE, PAT, EFER = 0x1A0, 0x277, 0xC0000080
EFER_NXE = 1 << 11
PAT_VALUE = 0x0007_0406_0007_0406
MISC_UNAVAILABLE = 1 << 11 | 1 << 12 | 1 << 23  # BTS, PEBS; xTPR messages off

READABLE: Mapping[int, Callable[[Domain], int]] = {
    TSC: lambda domain: domain.vcpu.tsc,
    APIC_BASE: lambda domain: 0,
    PLATFORM_ID: lambda domain: 0,
    UCODE_REV: lambda domain: 0,
    SYSENTER_CS: lambda domain: 0,
    SYSENTER_ESP: lambda domain: 0,
    SYSENTER_EIP: lambda domain: 0,
    MISC_ENABLE: lambda domain: MISC_UNAVAILABLE,
    PAT: lambda domain: PAT_VALUE,
    EFER: lambda domain: EFER_NXE,
    HYPERCALL_MSR: lambda domain: 0,
}


def read_msr(domain: Domain, index: int) -> int | None:
    """The register's value; None: #GP."""
    read = READABLE.get(index)
    return None if read is None else read(domain)


def write_msr(domain: Domain, index: int, value: int) -> bool:
    """Whether it is accepted; what a guest may not change stays as it is. False: #GP."""
    if index == HYPERCALL_MSR:
        return _fill_hypercall_page(domain, value)
    return index in READABLE


def _fill_hypercall_page(domain: Domain, value: int) -> bool:
    mfn, page = value // PAGE, value % PAGE
    if page or domain.frames.get_type(mfn, WRITABLE):
        return False
    domain.ram.write(mfn * PAGE, hypercall_page())
    domain.frames.put_type(mfn)
    return True
