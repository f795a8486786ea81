"""The op tables as the kernel lays them out: 32-bit words, in this order.

The index of a word is its number at call sites (`type` in ``.parainstructions``) and its offset in words from
the start of the table, data words included.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h (struct paravirt_ops with PAE, local APIC and HIGHPTE: 93 words),
include/asm-i386/reboot.h (struct machine_ops), include/asm-i386/smp.h (struct smp_ops). console_ops is the
reference kernel's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import NamedTuple


class TableLayout(NamedTuple):
    """A table and the names of its words, first to last."""

    name: str
    words: tuple[str, ...]


# Words of paravirt_ops that are values: the ring the kernel runs in, whether address spaces share the
# kernel's PMD page, whether this is not bare hardware, and a string that names the platform.
DATA_WORDS = ("kernel_rpl", "shared_kernel_pmd", "paravirt_enabled", "name")

_PARAVIRT_OPS = (
    *DATA_WORDS,
    # 4: code for a call site
    "patch",
    # 5: set-up
    "arch_setup", "memory_setup", "post_allocator_init", "init_IRQ", "time_init",
    "pagetable_setup_start", "pagetable_setup_done", "banner",
    # 13: time of day
    "get_wallclock", "set_wallclock",
    # 15: CPU registers
    "cpuid", "get_debugreg", "set_debugreg", "clts",
    "read_cr0", "write_cr0", "read_cr2", "write_cr2", "read_cr3", "write_cr3",
    "read_cr4_safe", "read_cr4", "write_cr4",
    # 28: interrupt flag
    "save_fl", "restore_fl", "irq_disable", "irq_enable", "safe_halt", "halt",
    # 34: caches, MSRs, counters
    "wbinvd", "read_msr", "write_msr", "read_tsc", "read_pmc", "sched_clock", "get_cpu_khz",
    # 41: descriptor tables
    "load_tr_desc", "load_gdt", "load_idt", "store_gdt", "store_idt", "set_ldt", "store_tr", "load_tls",
    "write_ldt_entry", "write_gdt_entry", "write_idt_entry", "load_esp0",
    # 53: port I/O
    "set_iopl_mask", "io_delay",
    # 55: life of an address space
    "activate_mm", "dup_mmap", "exit_mmap",
    # 58: local APIC
    "apic_write", "apic_write_atomic", "apic_read", "setup_boot_clock", "setup_secondary_clock",
    "startup_ipi_hook",
    # 64: TLB
    "flush_tlb_user", "flush_tlb_kernel", "flush_tlb_single", "flush_tlb_others",
    # 68: life of a page table
    "alloc_pt", "alloc_pd", "alloc_pd_clone", "release_pt", "release_pd",
    # 73: page-table entries
    "set_pte", "set_pte_at", "set_pmd", "pte_update", "pte_update_defer",
    # 78: HIGHPTE
    "kmap_atomic_pte",
    # 79: PAE
    "set_pte_atomic", "set_pte_present", "set_pud", "pte_clear", "pmd_clear",
    "pte_val", "pmd_val", "pgd_val", "make_pte", "make_pmd", "make_pgd",
    # 90: batching, and the ways back to user mode
    "set_lazy_mode", "irq_enable_sysexit", "iret",
)  # fmt: skip

_MACHINE_OPS = (
    "machine_restart", "machine_halt", "machine_power_off", "machine_shutdown", "machine_crash_shutdown",
    "machine_emergency_restart",
)  # fmt: skip

_SMP_OPS = (
    "smp_prepare_boot_cpu", "smp_prepare_cpus", "cpu_up", "smp_cpus_done", "smp_send_stop", "smp_send_reschedule",
    "smp_call_function_mask",
)  # fmt: skip

TABLES: Mapping[str, TableLayout] = MappingProxyType({
    "paravirt_ops": TableLayout("paravirt_ops", _PARAVIRT_OPS),
    "machine_ops": TableLayout("machine_ops", _MACHINE_OPS),
    "console_ops": TableLayout("console_ops", ("console_write", "console_read")),
    "smp_ops": TableLayout("smp_ops", _SMP_OPS),
})


@cache
def _slots() -> Mapping[str, tuple[str, int]]:
    return {word: (table.name, index) for table in TABLES.values() for index, word in enumerate(table.words)}


def slot(name: str) -> tuple[str, int]:
    """The table of a word and its index there, counted in words. Data words have slots too.

    :raises KeyError: when no table has a word of that name.
    """
    return _slots()[name]
