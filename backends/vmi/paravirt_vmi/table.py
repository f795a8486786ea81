"""The op table of a kernel that looks for a VMI ROM. It starts as native's.

`arch_setup` is guest code (ops.S): it finds the ROM, calls VMI_Init, asks GetRelocationInfo for each call and hands
every answer to the leaf `relocation`, which fills slots as the literal tables below say:

* FILL: the op's arguments are the call's, so the slot gets the ROM's code itself;
* WRAP: code of ops.S brings the arguments into the call's places;
* FETCH: as WRAP, and the call may be missing, or need another one;
* JUMP: the ways back to user mode.

Ref: Linux 2.6.23 arch/i386/kernel/vmi.c (activate_vmi: para_fill, para_wrap, vmi_get_function; vmi_patch).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from paravirt.api import NOP, NULL, Guest, GuestAddress, GuestObject, OpTable, crash, leaf, native
from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.layout import CALL_REL, JUMP_REL
from paravirt_vmi.platform.layout import NOP as ANSWER_NOP

code = GuestObject(Path(__file__).with_name("ops.o"))
EAX, ANY = 1, 7
NEAR_CALL_BYTES = 5

# call: ops, registers that the call's code may change
FILL: Mapping[str, tuple[str, int]] = MappingProxyType({
    "CLTS": ("clts", ANY),
    "GetDR": ("get_debugreg", ANY), "SetDR": ("set_debugreg", ANY),
    "GetCR0": ("read_cr0", ANY), "GetCR2": ("read_cr2", ANY), "GetCR3": ("read_cr3", ANY), "GetCR4": ("read_cr4", ANY),
    "SetCR0": ("write_cr0", ANY), "SetCR2": ("write_cr2", ANY), "SetCR3": ("write_cr3", ANY),
    "SetCR4": ("write_cr4", ANY),
    "GetInterruptMask": ("save_fl", EAX), "SetInterruptMask": ("restore_fl", 0),
    "DisableInterrupts": ("irq_disable", 0), "EnableInterrupts": ("irq_enable", 0),
    "WBINVD": ("wbinvd", ANY), "RDTSC": ("read_tsc", ANY),
    "SetGDT": ("load_gdt", ANY), "SetIDT": ("load_idt", ANY),
    "GetGDT": ("store_gdt", ANY), "GetIDT": ("store_idt", ANY), "GetTR": ("store_tr", ANY),
    "WriteLDTEntry": ("write_ldt_entry", ANY), "WriteGDTEntry": ("write_gdt_entry", ANY),
    "WriteIDTEntry": ("write_idt_entry", ANY),
    "SetIOPLMask": ("set_iopl_mask", ANY), "IODelay": ("io_delay", ANY),
    "InvalPage": ("flush_tlb_single", ANY),
    "APICWrite": ("apic_write apic_write_atomic", ANY), "APICRead": ("apic_read", ANY),
    "Halt": ("safe_halt", ANY),
})
WRAP: Mapping[str, Mapping[str, object]] = MappingProxyType({
    "CPUID": {"cpuid": code.vmi_cpuid},
    "SetTR": {"load_tr_desc": code.vmi_load_tr_desc},
    "SetLDT": {"set_ldt": code.vmi_set_ldt},
    "UpdateKernelStack": {"load_esp0": code.vmi_load_esp0},
    "SetLazyMode": {"set_lazy_mode": code.vmi_set_lazy_mode},
    "FlushTLB": {"flush_tlb_user": code.vmi_flush_tlb_user, "flush_tlb_kernel": code.vmi_flush_tlb_kernel},
})
# The calls that all of these need, and their ops.
FETCH: tuple[tuple[tuple[str, ...], Mapping[str, object]], ...] = (
    (("SetPxELong",), MappingProxyType({
        "set_pte": code.vmi_set_pte, "set_pte_at": code.vmi_set_pte_at, "set_pte_present": code.vmi_set_pte_present,
        "set_pmd": code.vmi_set_pmd, "set_pud": code.vmi_set_pud,
        "pte_clear": code.vmi_pte_clear, "pmd_clear": code.vmi_pmd_clear})),
    (("UpdatePxELong",), MappingProxyType({
        "pte_update": code.vmi_pte_update, "pte_update_defer": code.vmi_pte_update_defer,
        "set_pte_atomic": code.vmi_set_pte_atomic})),
    (("AllocatePage",), MappingProxyType({
        "alloc_pt": code.vmi_alloc_pt, "alloc_pd": code.vmi_alloc_pd, "alloc_pd_clone": code.vmi_alloc_pd_clone})),
    (("ReleasePage",), MappingProxyType({"release_pt": code.vmi_release_pt, "release_pd": code.vmi_release_pd})),
    (("GetCycleFrequency", "GetCycleCounter", "SetAlarm", "CancelAlarm", "GetWallclockTime"), MappingProxyType({
        "time_init": code.vmi_time_init, "sched_clock": code.vmi_sched_clock, "get_cpu_khz": code.vmi_get_cpu_khz,
        "get_wallclock": code.vmi_get_wallclock, "set_wallclock": code.vmi_set_wallclock})),
)
JUMP: Mapping[str, tuple[str, str]] = MappingProxyType({
    "IRET": ("iret", "vmi_iret"), "SYSEXIT": ("irq_enable_sysexit", "vmi_sysexit")})


class VmiOps(OpTable):
    """Bare hardware, until the ROM is found."""

    kernel_rpl = 0
    shared_kernel_pmd = 1
    paravirt_enabled = 0
    name = "bare hardware"

    patch = native.patch
    arch_setup = code.vmi_arch_setup
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
    setup_boot_clock = setup_secondary_clock = NOP  # the alarm's line is the 8254's; there is no local APIC
    startup_ipi_hook = NOP  # there is no other CPU

    flush_tlb_user, flush_tlb_kernel = native.flush_tlb_user, native.flush_tlb_kernel
    flush_tlb_single = native.flush_tlb_single
    flush_tlb_others = NOP  # there is no other CPU

    alloc_pt = alloc_pd = alloc_pd_clone = release_pt = release_pd = NOP
    set_pte, set_pte_at, set_pmd = native.set_pte, native.set_pte_at, native.set_pmd
    pte_update = pte_update_defer = NOP
    kmap_atomic_pte = native.kmap_atomic_pte  # low memory, which linear mapping 0 covers
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

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self._reached: set[str] = set()

    # ------------------------------------------------------------------ what arch_setup asks

    @leaf
    def relocation(self, number: int, address: int, kind: int) -> None:
        """One answer of GetRelocationInfo. NONE keeps what is in the slots."""
        name = CALLS[number].name if number < len(CALLS) else ""
        if kind == ANSWER_NOP and name in FILL:
            for op in FILL[name][0].split():
                self.guest.ops.assign(op, code("vmi_nop", clobbers=0))
        if kind not in (CALL_REL, JUMP_REL):
            return
        self._reached.add(name)
        if name in JUMP:
            self._jump(name, address, kind)
        elif kind == JUMP_REL and (name in FILL or name in WRAP or any(name in calls for calls, _ in FETCH)):
            raise crash(f"the VMI ROM answers call {name} with a jump, and the op is called")
        elif name in FILL:
            ops, clobbers = FILL[name]
            for op in ops.split():
                self.guest.ops.assign(op, GuestAddress(address, f"VMI {name}", clobbers))
        else:
            self._assign(WRAP.get(name, {}))

    @leaf
    def activated(self) -> None:
        """All answers are there."""
        for calls, ops in FETCH:
            if self._reached.issuperset(calls):
                self._assign(ops)
        self._assign({"load_tls": code.vmi_load_tls})

    def _assign(self, ops: Mapping[str, object]) -> None:
        for op, form in ops.items():
            self.guest.ops.assign(op, form)  # type: ignore[arg-type]

    def _jump(self, name: str, address: int, kind: int) -> None:
        """A jump goes to the ROM's code at once; for a call there is a CALL in ops.S, whose target is filled in."""
        op, symbol = JUMP[name]
        if kind == JUMP_REL:
            self.guest.ops.assign(op, GuestAddress(address, f"VMI {name}", clobbers=0))
            return
        at = self.guest.ops.linked.symbols[code.path, symbol]
        target = (address - at - NEAR_CALL_BYTES) & 0xFFFFFFFF
        self.guest.machine.vcpu.write_u32(at + 1, target)
        self.guest.ops.assign(op, code(symbol, clobbers=0))


__all__ = ["FETCH", "FILL", "JUMP", "WRAP", "VmiOps", "code"]
