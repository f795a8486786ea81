"""CPUID as a PV guest is to see it: the machine's, less what a guest cannot have, and Xen's own leaves.

A guest asks by forced emulation: ud2, "xen", cpuid. A plain CPUID is not intercepted and tells of the machine.

Ref: Xen public/arch-x86/cpuid.h; arch/x86/cpuid.c (guest_cpuid), arch/x86/traps.c (cpuid_hypervisor_leaves).
"""

from __future__ import annotations

from paravirt.api import cpuid
from paravirt_xen.platform.abi import XEN_VERSION
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.layout import PAGE

PREFIX, INSTRUCTION = b"\x0f\x0bxen", b"\x0f\xa2"
XEN_LEAVES, XEN_LEAVES_END = 0x40000000, 0x40000100
SIGNATURE = (0x566E6558, 0x65584D4D, 0x4D4D566E)  # "XenV" "MMXe" "nVMM"
MAX_XEN_LEAF = 5
PRESERVE_AD = 1  # MMU_PT_UPDATE_PRESERVE_AD is there
TSC_KHZ = 1_000_000
# Leaf 1 EDX that a guest cannot have: VME, PSE, SEP, MTRR, PGE, PSE36, TM1
HIDDEN_EDX = 1 << 1 | 1 << 3 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 29
HYPERVISOR = 1 << 31  # leaf 1 ECX
HYPERCALL_MSR = 0x40000000


def guest_cpuid(domain: Domain, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """(EAX, EBX, ECX, EDX) as forced emulation answers."""
    if XEN_LEAVES <= leaf < XEN_LEAVES_END:
        return _xen_leaf(domain, leaf - XEN_LEAVES, subleaf)
    a, b, c, d = cpuid.cpuid(leaf, subleaf)
    if leaf == 1:
        return a, b, c | HYPERVISOR, d & ~HIDDEN_EDX
    return a, b, c, d


def _xen_leaf(domain: Domain, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    if leaf == 0:
        return XEN_LEAVES + MAX_XEN_LEAF, *SIGNATURE
    if leaf == 1:
        return XEN_VERSION, 0, 0, 0
    if leaf == 2:
        return 1, HYPERCALL_MSR, PRESERVE_AD, 0
    if leaf == 3 and subleaf == 0:
        return 2, 0, TSC_KHZ, 0  # the TSC is the machine's, and safe to use
    if leaf == 3 and subleaf == 1:
        return 0, 0, 0x80000000, 1  # offset of time, then multiplier and shift of one nanosecond a tick
    if leaf == 3 and subleaf == 2:
        return TSC_KHZ, 0, 0, 0
    if leaf == 5 and subleaf == 0:
        return 0, (domain.machine_frames * PAGE - 1).bit_length(), 0, 0
    return 0, 0, 0, 0
