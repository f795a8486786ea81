# mypy: disable-error-code=empty-body
"""Ops of the descriptor tables: GDT, IDT, LDT, the task register, TLS, the kernel's stack for ring 3.

A descriptor table is passed to load_* and store_* as the CPU's own six-byte operand: limit u16, base u32.
Descriptors are two words, low and high.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h; callers in arch/i386/kernel/cpu/common.c (cpu_init), process.c,
traps.c. Intel SDM vol. 3, chapters 3.4.5 (descriptors), 7 (tasks).
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import S32, U32, GuestAddr


@op(prototype="void (*load_tr_desc)(void)")
def load_tr_desc() -> None:
    """Load the task register with the kernel's TSS selector (GDT entry 16).

    Afterwards a change to ring 0 or 1 takes its stack from there, or the platform knows it from load_esp0. The
    descriptor becomes busy. Called by cpu_init.
    """


@op(prototype="void (*load_gdt)(const struct Xgt_desc_struct *desc)")
def load_gdt(desc: GuestAddr) -> None:
    """Load the global descriptor table.

    Afterwards selectors are looked up there; loaded segment registers keep what they have. A hypervisor may
    make the pages read-only. Called by cpu_init and smp_prepare_boot_cpu.

    :param desc: limit (u16) and linear base (u32) of the table.
    """


@op(prototype="void (*load_idt)(const struct Xgt_desc_struct *desc)")
def load_idt(desc: GuestAddr) -> None:
    """Load the interrupt descriptor table.

    Afterwards exceptions and interrupts go through its gates, and later write_idt_entry calls on it take
    effect at once. Called by cpu_init, and with a limit of 0 for a reset by triple fault.

    :param desc: limit (u16) and linear base (u32) of the table.
    """


@op(prototype="void (*store_gdt)(struct Xgt_desc_struct *desc)")
def store_gdt(desc: GuestAddr) -> None:
    """Store limit and base of the global descriptor table.

    Afterwards the six bytes at `desc` describe the table in use. Called on suspend and by the double-fault task.

    :param desc: where to put limit (u16) and linear base (u32).
    """


@op(prototype="void (*store_idt)(struct Xgt_desc_struct *desc)")
def store_idt(desc: GuestAddr) -> None:
    """Store limit and base of the interrupt descriptor table.

    Afterwards the six bytes at `desc` describe the table in use. Called on suspend.

    :param desc: where to put limit (u16) and linear base (u32).
    """


@op(prototype="void (*set_ldt)(const void *desc, unsigned entries)")
def set_ldt(desc: GuestAddr, entries: U32) -> None:
    """Load the local descriptor table.

    Afterwards selectors with TI set are looked up there; with no entries every such selector faults. In lazy
    CPU mode this may wait for the end of the batch. Called by cpu_init, switch_mm and modify_ldt.

    :param desc: linear address of the table, page-aligned; NULL when it is empty.
    :param entries: descriptors of eight bytes, 0 to 8192.
    """


@op(prototype="unsigned long (*store_tr)(void)")
def store_tr() -> U32:
    """Read the task register.

    No state changes. Called on suspend.

    :returns: the selector; 0 where the platform keeps no TSS for the guest.
    """


@op(prototype="void (*load_tls)(struct thread_struct *thread, unsigned cpu)")
def load_tls(thread: GuestAddr, cpu: U32) -> None:
    """Copy a task's three TLS descriptors into GDT entries 6 to 8.

    Afterwards user selectors 0x33, 0x3b and 0x43 load the task's segments; in lazy CPU mode this may wait for
    the end of the batch. Called by __switch_to and set_thread_area.

    :param thread: the task's thread_struct; its tls_array has three descriptors of eight bytes.
    :param cpu: number of the CPU whose GDT it is.
    """


@op(prototype="void (*write_ldt_entry)(struct desc_struct *table, int index, u32 low, u32 high)")
def write_ldt_entry(table: GuestAddr, index: S32, low: U32, high: U32) -> None:
    """Write a descriptor of an LDT.

    Afterwards the table holds it and the next load of its selector uses it. Called by modify_ldt.

    :param table: linear address of the table.
    :param index: number of the entry.
    :param low: bits 0 to 31 of the descriptor.
    :param high: bits 32 to 63.
    """


@op(prototype="void (*write_gdt_entry)(struct desc_struct *table, int index, u32 low, u32 high)")
def write_gdt_entry(table: GuestAddr, index: S32, low: U32, high: U32) -> None:
    """Write a descriptor of a GDT.

    Afterwards the table holds it and the next load of its selector uses it; a platform that keeps TSS and LDT
    itself may ignore those. Called by cpu_init for the TSS (16) and the double-fault TSS (31).

    :param table: linear address of the table.
    :param index: number of the entry.
    :param low: bits 0 to 31 of the descriptor.
    :param high: bits 32 to 63.
    """


@op(prototype="void (*write_idt_entry)(struct desc_struct *table, int index, u32 low, u32 high)")
def write_idt_entry(table: GuestAddr, index: S32, low: U32, high: U32) -> None:
    """Write a gate of an IDT.

    Afterwards the table holds the gate and, if the table is loaded, its vector goes there; if it is not yet
    loaded, from load_idt on. Called by trap_init and init_IRQ.

    :param table: linear address of the table.
    :param index: the vector.
    :param low: bits 0 to 31 of the gate.
    :param high: bits 32 to 63.
    """


@op(prototype="void (*load_esp0)(struct tss_struct *tss, struct thread_struct *thread)")
def load_esp0(tss: GuestAddr, thread: GuestAddr) -> None:
    """Set the stack on which the kernel is entered from ring 3.

    Afterwards the next entry from user mode starts at the thread's esp0. Natively that is a word of the
    TSS, and the sysenter MSR for CS follows the thread's sysenter_cs. Called by __switch_to and cpu_init.

    :param tss: this CPU's TSS.
    :param thread: the task's thread_struct.
    """
