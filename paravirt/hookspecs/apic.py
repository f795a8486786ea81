# mypy: disable-error-code=empty-body
"""Ops of the local APIC, its timer, and the start of another CPU.

A platform without a local APIC hides it in cpuid; then the kernel reads and writes none, and these slots hold
functions that do nothing or return 0.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h, arch/i386/kernel/apic.c, arch/i386/kernel/smpboot.c;
Intel SDM vol. 3, chapter 10 (register offsets).
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import S32, U32, GuestAddr


@op(prototype="void (*apic_write)(unsigned long reg, unsigned long value)")
def apic_write(reg: U32, value: U32) -> None:
    """Write a register of the local APIC.

    Afterwards the register holds `value`, and what it triggers (an EOI, an IPI, the timer) is on its way.
    Called by interrupt acknowledgement, the APIC's set-up and the senders of IPIs.

    :param reg: byte offset of the register, 0x20 to 0x3f0, a multiple of 16.
    :param value: what to write.
    """


@op(prototype="void (*apic_write_atomic)(unsigned long reg, unsigned long value)")
def apic_write_atomic(reg: U32, value: U32) -> None:
    """Write a register of the local APIC with a locked access.

    It leaves what apic_write leaves. Called instead of it for CPUs whose APIC loses back-to-back writes.

    :param reg: byte offset of the register, 0x20 to 0x3f0, a multiple of 16.
    :param value: what to write.
    """


@op(prototype="unsigned long (*apic_read)(unsigned long reg)")
def apic_read(reg: U32) -> U32:
    """Read a register of the local APIC.

    No state changes. Called by the APIC's set-up and by the waits for an IPI's delivery.

    :param reg: byte offset of the register, 0x20 to 0x3f0, a multiple of 16.
    :returns: its value; 0 on a platform without a local APIC.
    """


@op(prototype="void (*setup_boot_clock)(void)")
def setup_boot_clock() -> None:
    """Set the boot CPU's own timer up.

    Afterwards the boot CPU has a local clock event device, or none where the platform's clock serves it already.
    Called once, by smp_prepare_cpus or, on one CPU, by APIC_init_uniprocessor.
    """


@op(prototype="void (*setup_secondary_clock)(void)")
def setup_secondary_clock() -> None:
    """Set the timer of a CPU that has just started up.

    Afterwards that CPU has a local clock event device. Called on that CPU, before it turns interrupts on.
    """


@op(prototype="void (*startup_ipi_hook)(int apicid, unsigned long eip, unsigned long esp)")
def startup_ipi_hook(apicid: S32, eip: GuestAddr, esp: GuestAddr) -> None:
    """Tell the platform where another CPU shall start.

    Afterwards a start-up IPI to that CPU begins at `eip` in the kernel's own mode, if the platform skips the
    real-mode trampoline; natively nothing happens. Called by the boot CPU just before it sends the IPI.

    :param apicid: physical APIC number of the CPU.
    :param eip: where it starts.
    :param esp: its stack.
    """
