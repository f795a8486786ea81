"""The op table of bare hardware, in the order of struct paravirt_ops.

Ref: Linux 2.6.23 arch/i386/kernel/paravirt.c (struct paravirt_ops paravirt_ops = { ... }).
"""

from __future__ import annotations

from paravirt.api import NOP, NULL, OpTable, native


class NativeOps(OpTable):
    """Every op as the CPU and the PC do it themselves."""

    kernel_rpl = 0
    shared_kernel_pmd = 1
    paravirt_enabled = 0
    name = "bare hardware"

    patch = native.patch
    arch_setup = NOP
    memory_setup = native.memory_setup
    post_allocator_init = NULL
    init_IRQ = native.init_IRQ
    time_init = native.time_init
    pagetable_setup_start = NOP
    pagetable_setup_done = NOP
    banner = native.banner

    get_wallclock, set_wallclock = native.get_wallclock, native.set_wallclock
    sched_clock, get_cpu_khz = native.sched_clock, native.get_cpu_khz

    cpuid = native.cpuid
    get_debugreg, set_debugreg = native.get_debugreg, native.set_debugreg
    clts = native.clts
    read_cr0, write_cr0 = native.read_cr0, native.write_cr0
    read_cr2, write_cr2 = native.read_cr2, native.write_cr2
    read_cr3, write_cr3 = native.read_cr3, native.write_cr3
    read_cr4_safe, read_cr4, write_cr4 = native.read_cr4_safe, native.read_cr4, native.write_cr4
    wbinvd = native.wbinvd
    read_msr, write_msr = native.read_msr, native.write_msr
    read_tsc, read_pmc = native.read_tsc, native.read_pmc

    save_fl, restore_fl = native.save_fl, native.restore_fl
    irq_disable, irq_enable = native.irq_disable, native.irq_enable
    safe_halt, halt = native.safe_halt, native.halt

    load_tr_desc, store_tr = native.load_tr_desc, native.store_tr
    load_gdt, store_gdt = native.load_gdt, native.store_gdt
    load_idt, store_idt = native.load_idt, native.store_idt
    set_ldt, load_tls = native.set_ldt, native.load_tls
    write_ldt_entry = native.write_ldt_entry
    write_gdt_entry = native.write_gdt_entry
    write_idt_entry = native.write_idt_entry
    load_esp0 = native.load_esp0
    set_iopl_mask, io_delay = native.set_iopl_mask, native.io_delay

    activate_mm = dup_mmap = exit_mmap = NOP

    apic_write, apic_write_atomic, apic_read = native.apic_write, native.apic_write_atomic, native.apic_read
    setup_boot_clock = setup_secondary_clock = NOP  # the PIT is the clock; there is no local APIC
    startup_ipi_hook = NOP

    flush_tlb_user, flush_tlb_kernel = native.flush_tlb_user, native.flush_tlb_kernel
    flush_tlb_single = native.flush_tlb_single
    flush_tlb_others = NOP  # there is no other CPU

    alloc_pt = alloc_pd = alloc_pd_clone = release_pt = release_pd = NOP
    set_pte, set_pte_at, set_pmd = native.set_pte, native.set_pte_at, native.set_pmd
    pte_update = pte_update_defer = NOP
    kmap_atomic_pte = native.kmap_atomic_pte
    set_pte_atomic, set_pte_present = native.set_pte_atomic, native.set_pte_present
    set_pud, pte_clear, pmd_clear = native.set_pud, native.pte_clear, native.pmd_clear
    pte_val = pmd_val = pgd_val = native.identity
    make_pte = make_pmd = make_pgd = native.identity

    set_lazy_mode = NOP

    irq_enable_sysexit = native.irq_enable_sysexit
    iret = native.iret

    machine_restart, machine_halt = native.machine_restart, native.machine_halt
    machine_power_off, machine_shutdown = native.machine_power_off, native.machine_shutdown
    machine_crash_shutdown = native.machine_crash_shutdown
    machine_emergency_restart = native.machine_emergency_restart

    console_write, console_read = native.console_write, native.console_read

    smp_prepare_boot_cpu, smp_prepare_cpus = native.smp_prepare_boot_cpu, native.smp_prepare_cpus
    cpu_up, smp_cpus_done = native.cpu_up, native.smp_cpus_done
    smp_send_stop, smp_send_reschedule = native.smp_send_stop, native.smp_send_reschedule
    smp_call_function_mask = native.smp_call_function_mask
