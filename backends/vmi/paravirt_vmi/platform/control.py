"""Control and debug registers, model-specific registers, identification.

The guest reads CR0, CR2, CR3 and CR4 in the shared page. CR2 is stored there at every page fault.

Ref: Intel SDM vol. 3A, 2.5 (control registers), 17.2 (debug registers); vol. 2 (faults of MOV to and from CRn, RDMSR).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import GuestFault, layout

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

GP, UD = 13, 6
CR0_TS, CR0_PE, CR0_WP, CR0_PG = 8, 1, 1 << 16, 1 << 31
CR0_STICKY = CR0_PE | CR0_WP | CR0_PG
CR4_KNOWN = 0x7FF
CR4_PAE = 1 << 5
MSR_TSC, MSR_APIC_BASE = 0x10, 0x1B
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
MISC_ENABLE, PAT, EFER = 0x1A0, 0x277, 0xC0000080
APIC_BASE_DISABLED, APIC_ENABLED = 0xFEE00100, 0x800  # the boot CPU
STORED = frozenset({SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP, MISC_ENABLE, PAT, EFER})
FIXED = {0x17: 0, 0x2A: 0, 0x8B: 0, 0x1D9: 0}  # platform id, power-on configuration, microcode, debug control
EFER_KNOWN = 1 << 11
USER_CODE, USER_STACK = 16 | 3, 24 | 3  # from SYSENTER_CS on, where SYSEXIT finds its segments


def cpuid(m: Monitor, leaf: int, subleaf: int) -> int:
    eax, ebx, ecx, edx = m.machine.dispatcher.cpuid(leaf, subleaf)
    for register, value in ((layout.EBX, ebx), (layout.ECX, ecx), (layout.EDX, edx), (layout.EAX, eax)):
        m.vcpu.set_reg(register, value)
    return eax


def set_cr0(m: Monitor, value: int) -> None:
    """Protection, write protection and paging cannot be switched off again."""
    m.make_up()
    m.vcpu.set_cr(0, value | m.vcpu.cr(0) & CR0_STICKY)
    m.set_word("cr0", m.vcpu.cr(0))


def set_cr2(m: Monitor, value: int) -> None:
    m.set_word("cr2", value)


def set_cr3(m: Monitor, value: int) -> None:
    m.vcpu.set_cr(3, value)
    m.set_word("cr3", value)


def set_cr4(m: Monitor, value: int) -> None:
    """:raises GuestFault: a reserved bit, or PAE changed while paging is on."""
    old = m.vcpu.cr(4)
    if value & ~CR4_KNOWN or (value ^ old) & CR4_PAE:
        raise GuestFault(GP, 0)
    m.make_up()
    m.vcpu.set_cr(4, value)
    m.set_word("cr4", value)


def get_cr0(m: Monitor) -> int:
    return m.word("cr0")


def get_cr2(m: Monitor) -> int:
    return m.word("cr2")


def get_cr3(m: Monitor) -> int:
    return m.word("cr3")


def get_cr4(m: Monitor) -> int:
    return m.word("cr4")


def clts(m: Monitor) -> None:
    m.vcpu.set_cr(0, m.vcpu.cr(0) & ~CR0_TS)
    m.set_word("cr0", m.vcpu.cr(0))


def wbinvd(m: Monitor) -> None:
    """No cache to write back."""


def set_dr(m: Monitor, number: int, value: int) -> None:
    """Breakpoints fire where the engine has them."""
    if number > 7:
        raise GuestFault(GP, 0)
    m.vcpu.set_debug_register(_alias(number), value)


def get_dr(m: Monitor, number: int) -> int:
    if number > 7:
        raise GuestFault(GP, 0)
    return m.vcpu.debug_register(_alias(number))


def _alias(number: int) -> int:
    """DR4 and DR5 are DR6 and DR7."""
    return number + 2 if number in (4, 5) else number


def read_pmc(m: Monitor, counter: int) -> int:
    raise GuestFault(GP, 0)  # the CPU has no performance counters


def read_tsc(m: Monitor) -> int:
    return m.vcpu.tsc


def read_msr(m: Monitor, register: int) -> int:
    """:raises GuestFault: the CPU has no such register."""
    if register == MSR_TSC:
        return m.vcpu.tsc
    if register == MSR_APIC_BASE:
        return APIC_BASE_DISABLED if m.lapic is None else APIC_BASE_DISABLED | APIC_ENABLED
    if register in STORED:
        return m.vcpu.msr(register)
    if register in FIXED:
        return FIXED[register]
    raise GuestFault(GP, 0)


def write_msr(m: Monitor, register: int, low: int, high: int) -> None:
    """The time-stamp counter is what the VMI counters stand on, so writing it is without effect.

    :raises GuestFault: the CPU has no such register, or not these bits of EFER.
    """
    if register not in STORED and register not in FIXED and register not in (MSR_TSC, MSR_APIC_BASE):
        raise GuestFault(GP, 0)
    if register == EFER and (low & ~EFER_KNOWN or high):
        raise GuestFault(GP, 0)
    if register in STORED:
        m.vcpu.set_msr(register, low | high << 32)
    if register == SYSENTER_CS:
        set_sysexit_segments(m, low)


def set_sysexit_segments(m: Monitor, sysenter_cs: int) -> None:
    """What SYSEXIT loads, for the ROM's code."""
    m.set_word("sysexit_cs", (sysenter_cs & 0xFFFC) + USER_CODE)
    m.set_word("sysexit_ss", (sysenter_cs & 0xFFFC) + USER_STACK)
