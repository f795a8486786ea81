"""The op table of a Xen domain, in the order of struct paravirt_ops.

Most of it is guest code (ops.S). Two slots change while init_mm's page tables are built, and six more once the
vcpu_info lies where code can name it: guest code says when, by the leaves at the end.

Ref: Linux 2.6.23, arch/i386/xen/enlighten.c (struct paravirt_ops xen_paravirt_ops = { ... }).
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from paravirt.api import NOP, NULL, BackendOptions, Guest, OpTable, leaf, machine_code, native
from paravirt_xen.guestcode import code
from paravirt_xen.hostops import setup, tables
from paravirt_xen.hostops.hypervisor import Hypervisor
from paravirt_xen.platform.domain import Domain

EAX, ECX, EDX = 1, 2, 4
DIRECT = {"save_fl": EAX, "restore_fl": 0, "irq_disable": 0, "irq_enable": 0, "read_cr2": EAX, "iret": 0}
zero = machine_code("31 c0", clobbers=EAX)


class XenOptions(BackendOptions):
    """What can be chosen: for the guest side, and about the host that the domain runs on."""

    multicall: bool = Field(True, description="make hypercalls in batches where the kernel is in a lazy mode")
    vcpu_info: bool = Field(True, description="place the vcpu_info where the flag ops need no pointer to it")
    steal: int = Field(0, ge=0, le=90, description="percent of the CPU that another domain takes; the guest sees it as "
                                                   "stolen time")


class XenOps(OpTable):
    """Every op as a paravirtual domain does it."""

    kernel_rpl = 1
    shared_kernel_pmd = 0
    paravirt_enabled = 1
    name = "Xen"

    patch = native.patch
    arch_setup = setup.arch_setup
    memory_setup = setup.memory_setup
    post_allocator_init = code.xen_post_allocator_init
    init_IRQ = code.xen_init_IRQ
    time_init = code.xen_time_init
    pagetable_setup_start = code.xen_pagetable_setup_start
    pagetable_setup_done = code.xen_pagetable_setup_done
    banner = code.xen_banner

    get_wallclock, set_wallclock = code.xen_get_wallclock, code("xen_set_wallclock", clobbers=EAX)
    sched_clock, get_cpu_khz = code.xen_sched_clock, code.xen_get_cpu_khz

    cpuid = code.xen_cpuid
    get_debugreg, set_debugreg = code.xen_get_debugreg, code.xen_set_debugreg
    clts = native.clts
    read_cr0, write_cr0 = native.read_cr0, native.write_cr0
    read_cr2, write_cr2 = code("xen_read_cr2", clobbers=EAX), code("xen_write_cr2", clobbers=EDX)
    read_cr3, write_cr3 = code("xen_read_cr3", clobbers=EAX), code.xen_write_cr3
    read_cr4_safe, read_cr4, write_cr4 = native.read_cr4_safe, native.read_cr4, code("xen_write_cr4", clobbers=EAX)
    wbinvd = native.wbinvd
    read_msr, write_msr = native.read_msr, native.write_msr
    read_tsc, read_pmc = native.read_tsc, native.read_pmc

    save_fl, restore_fl = code("xen_save_fl", clobbers=EAX), code("xen_restore_fl", clobbers=EDX)
    irq_disable, irq_enable = code("xen_irq_disable", clobbers=EAX), code("xen_irq_enable", clobbers=EAX)
    safe_halt, halt = code.xen_safe_halt, code.xen_halt

    load_tr_desc, store_tr = NOP, zero
    load_gdt, store_gdt = tables.load_gdt, native.store_gdt
    load_idt, store_idt = tables.load_idt, native.store_idt
    set_ldt, load_tls = code.xen_set_ldt, code.xen_load_tls
    write_ldt_entry = code.xen_write_ldt_entry
    write_gdt_entry = code.xen_write_gdt_entry
    write_idt_entry = tables.write_idt_entry
    load_esp0 = code.xen_load_esp0
    set_iopl_mask, io_delay = code.xen_set_iopl_mask, NOP

    activate_mm = dup_mmap = code.xen_pin_mm
    exit_mmap = code.xen_exit_mmap

    apic_write = apic_write_atomic = NOP
    apic_read = zero
    setup_boot_clock = setup_secondary_clock = NOP
    startup_ipi_hook = NOP

    flush_tlb_user = flush_tlb_kernel = code.xen_flush_tlb
    flush_tlb_single, flush_tlb_others = code.xen_flush_tlb_single, code.xen_flush_tlb_others

    alloc_pt, release_pt = code.xen_alloc_pt_init, code.xen_release_pt
    alloc_pd = alloc_pd_clone = release_pd = NOP
    set_pte = NULL
    set_pte_at, set_pmd = code.xen_set_pte_at, code.xen_set_upper
    pte_update = pte_update_defer = NOP
    kmap_atomic_pte = native.kmap_atomic_pte
    set_pte_atomic, set_pte_present = native.set_pte_atomic, code.xen_set_pte_at
    set_pud, pte_clear, pmd_clear = code.xen_set_upper, native.pte_clear, code.xen_pmd_clear
    pte_val = pmd_val = pgd_val = code("xen_entry_val", clobbers=EAX | ECX | EDX)
    make_pte = make_pmd = make_pgd = code("xen_make_entry", clobbers=EAX | ECX | EDX)

    set_lazy_mode = code.xen_set_lazy_mode

    irq_enable_sysexit = NULL
    iret = code("xen_iret", clobbers=0)

    machine_restart = machine_emergency_restart = code.xen_machine_restart
    machine_halt = machine_power_off = code.xen_machine_power_off
    machine_shutdown = code.xen_machine_shutdown
    machine_crash_shutdown = code.xen_machine_crash_shutdown

    console_write, console_read = code.xen_console_write, code.xen_console_read

    smp_prepare_boot_cpu, smp_prepare_cpus = code.xen_smp_prepare_boot_cpu, native.smp_prepare_cpus
    cpu_up, smp_cpus_done = native.cpu_up, native.smp_cpus_done
    smp_send_stop, smp_send_reschedule = native.smp_send_stop, native.smp_send_reschedule
    smp_call_function_mask = native.smp_call_function_mask

    def __init__(self, guest: Guest, domain: Callable[[], Domain], options: XenOptions) -> None:
        super().__init__(guest)
        self.options = options
        self.hypervisor = Hypervisor(guest, domain)
        self.idt = (0, 0)  # base and size of the table that was loaded last

    # ------------------------------------------------------------------ slots that change before call sites are patched

    @leaf
    def page_tables_begin(self) -> None:
        """What the domain builder has mapped read-only must stay so."""
        self.guest.ops.assign("set_pte", code.xen_set_pte_init)

    @leaf
    def page_tables_done(self) -> None:
        """From now on struct page says what is pinned."""
        self.guest.ops.assign("alloc_pt", code.xen_alloc_pt)
        self.guest.ops.assign("set_pte", code("xen_set_pte", clobbers=0))

    @leaf
    def vcpu_info_placed(self) -> None:
        """The vcpu_info has an address that code can name."""
        for name, clobbers in DIRECT.items():
            self.guest.ops.assign(name, code(f"xen_{name}_direct", clobbers=clobbers))
