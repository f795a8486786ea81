"""The op table of lguest: what needs the host is a hypercall, what can be a shared word is one, the rest is native.

Ref: Linux 2.6.23 drivers/lguest/lguest.c (lguest_init).
"""

from __future__ import annotations

from pathlib import Path

from paravirt.api import NOP, NULL, GuestObject, OpTable, native

code = GuestObject(Path(__file__).with_name("ops.o"))


class LguestOps(OpTable):
    """Every op, in the order of struct paravirt_ops."""

    kernel_rpl = 1
    shared_kernel_pmd = 1
    paravirt_enabled = 1
    name = "lguest"

    patch = native.patch
    arch_setup = code.lguest_init
    memory_setup = native.memory_setup
    post_allocator_init = NULL
    init_IRQ, time_init = native.init_IRQ, native.time_init
    pagetable_setup_start = pagetable_setup_done = NOP
    banner = native.banner

    get_wallclock, set_wallclock = native.get_wallclock, native.set_wallclock
    sched_clock, get_cpu_khz = native.sched_clock, native.get_cpu_khz

    cpuid = native.cpuid
    get_debugreg, set_debugreg = code.lguest_get_debugreg, code.lguest_set_debugreg
    clts = code.lguest_clts
    read_cr0, write_cr0 = code.lguest_read_cr0, code.lguest_write_cr0
    read_cr2, write_cr2 = code("lguest_read_cr2", clobbers=1), code("lguest_write_cr2", clobbers=0)
    read_cr3, write_cr3 = code("lguest_read_cr3", clobbers=1), code.lguest_write_cr3
    read_cr4_safe = read_cr4 = code.lguest_read_cr4
    write_cr4 = code.lguest_write_cr4
    wbinvd = NOP  # the host keeps its caches in order
    read_msr, write_msr = code.lguest_read_msr, code.lguest_write_msr
    read_tsc, read_pmc = native.read_tsc, native.read_pmc

    save_fl, restore_fl = code("lguest_save_fl", clobbers=1), code("lguest_restore_fl", clobbers=1)
    irq_disable, irq_enable = code("lguest_irq_disable", clobbers=0), code("lguest_irq_enable", clobbers=0)
    safe_halt, halt = code.lguest_safe_halt, code.lguest_halt

    load_tr_desc = NOP  # the TSS is the host's
    store_tr, store_gdt, store_idt = native.store_tr, native.store_gdt, native.store_idt
    load_gdt, load_idt, set_ldt = code.lguest_load_gdt, code.lguest_load_idt, code.lguest_set_ldt
    load_tls = native.load_tls
    write_ldt_entry, write_idt_entry = native.write_ldt_entry, native.write_idt_entry
    write_gdt_entry = code.lguest_write_gdt_entry
    load_esp0 = code.lguest_load_esp0
    set_iopl_mask, io_delay = code("lguest_set_iopl_mask", clobbers=0), NOP

    activate_mm = dup_mmap = exit_mmap = NOP

    apic_write, apic_write_atomic, apic_read = native.apic_write, native.apic_write_atomic, native.apic_read
    setup_boot_clock = setup_secondary_clock = startup_ipi_hook = NOP

    flush_tlb_user = flush_tlb_kernel = code.lguest_flush_tlb
    flush_tlb_single, flush_tlb_others = code.lguest_flush_tlb_single, NOP

    alloc_pt = alloc_pd = alloc_pd_clone = release_pt = release_pd = NOP
    set_pte, set_pte_at, set_pmd = native.set_pte, native.set_pte_at, native.set_pmd
    pte_update = pte_update_defer = NOP
    kmap_atomic_pte = native.kmap_atomic_pte
    set_pte_atomic, set_pte_present = native.set_pte_atomic, native.set_pte_present
    set_pud, pte_clear, pmd_clear = native.set_pud, native.pte_clear, native.pmd_clear
    pte_val = pmd_val = pgd_val = make_pte = make_pmd = make_pgd = native.identity

    set_lazy_mode = NOP

    irq_enable_sysexit = NULL  # there is no SYSENTER
    iret = code.lguest_iret

    machine_restart = machine_emergency_restart = code.lguest_restart
    machine_halt, machine_power_off = code.lguest_stop, code.lguest_power_off
    machine_shutdown, machine_crash_shutdown = native.machine_shutdown, native.machine_crash_shutdown

    console_write, console_read = code.lguest_console_write, code.lguest_console_read

    smp_prepare_boot_cpu, smp_prepare_cpus = native.smp_prepare_boot_cpu, native.smp_prepare_cpus
    cpu_up, smp_cpus_done = native.cpu_up, native.smp_cpus_done
    smp_send_stop, smp_send_reschedule = native.smp_send_stop, native.smp_send_reschedule
    smp_call_function_mask = native.smp_call_function_mask
