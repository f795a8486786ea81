"""The native implementations, for any table to name: ``clts = native.clts``.

Guest code is in native.S. What Linux writes in C and needs the kernel's own data for (the e820 map, the PIT)
is a function of the kernel, named by symbol as Linux's table does. Two are host functions: `patch`, which
knows what is in the slots, and `machine_crash_shutdown`, which ends the run.

Clobber masks say which registers the code changes, results included: EAX 1, ECX 2, EDX 4.
"""

from __future__ import annotations

from pathlib import Path

from paravirt.forms import GuestObject, MachineCode, OpTable, Slotted, hookimpl, kernel_function
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.patch import generate

code = GuestObject(Path(__file__).parent / "data" / "native.o")
EAX, ECX, EDX = 1, 2, 4

# init
memory_setup = kernel_function("native_memory_setup")
init_IRQ = kernel_function("native_init_IRQ")
time_init = kernel_function("native_time_init")
banner = kernel_function("native_banner")
# time
get_wallclock = kernel_function("native_get_wallclock")
set_wallclock = kernel_function("native_set_wallclock")
sched_clock = kernel_function("native_sched_clock")
get_cpu_khz = kernel_function("native_get_cpu_khz")
# irq
save_fl = code("native_save_fl", clobbers=EAX)
restore_fl = code("native_restore_fl", clobbers=0)
irq_disable = code("native_irq_disable", clobbers=0)
irq_enable = code("native_irq_enable", clobbers=0)
safe_halt = code("native_safe_halt", clobbers=0)
halt = code("native_halt", clobbers=0)
# cpu
cpuid = code.native_cpuid
get_debugreg, set_debugreg = code.native_get_debugreg, code.native_set_debugreg
clts = code("native_clts", clobbers=0)
read_cr0 = code("native_read_cr0", clobbers=EAX)
write_cr0 = code("native_write_cr0", clobbers=0)
read_cr2 = code("native_read_cr2", clobbers=EAX)
write_cr2 = code("native_write_cr2", clobbers=0)
read_cr3 = code("native_read_cr3", clobbers=EAX)
write_cr3 = code("native_write_cr3", clobbers=0)
read_cr4_safe = code.native_read_cr4_safe
read_cr4 = code("native_read_cr4", clobbers=EAX)
write_cr4 = code("native_write_cr4", clobbers=0)
wbinvd = code("native_wbinvd", clobbers=0)
read_msr, write_msr = code.native_read_msr, code.native_write_msr
read_tsc = code("native_read_tsc", clobbers=EAX | EDX)
read_pmc = code.native_read_pmc
load_tr_desc = code("native_load_tr_desc", clobbers=EAX)
load_gdt = code("native_load_gdt", clobbers=0)
load_idt = code("native_load_idt", clobbers=0)
store_gdt = code("native_store_gdt", clobbers=0)
store_idt = code("native_store_idt", clobbers=0)
set_ldt = code.native_set_ldt
store_tr = code("native_store_tr", clobbers=EAX)
load_tls = code.native_load_tls
write_ldt_entry = code.native_write_ldt_entry
write_gdt_entry = code.native_write_gdt_entry
write_idt_entry = code.native_write_idt_entry
load_esp0 = code.native_load_esp0
set_iopl_mask = code.native_set_iopl_mask
io_delay = code.native_io_delay
# apic
apic_write, apic_write_atomic = code.native_apic_write, code.native_apic_write_atomic
apic_read = code.native_apic_read
# mmu
flush_tlb_user = code("native_flush_tlb_user", clobbers=EAX)
flush_tlb_kernel = code.native_flush_tlb_kernel
flush_tlb_single = code("native_flush_tlb_single", clobbers=0)
set_pte, set_pte_at = code.native_set_pte, code.native_set_pte_at
set_pte_present, set_pte_atomic = code.native_set_pte_present, code.native_set_pte_atomic
set_pmd, set_pud = code.native_set_pmd, code.native_set_pud
pte_clear, pmd_clear = code.native_pte_clear, code.native_pmd_clear
kmap_atomic_pte = kernel_function("native_kmap_atomic_pte")
identity: Slotted = MachineCode(b"", clobbers=0)
"""*_val and make_*: an entry is what the CPU sees. The argument is in EDX:EAX, and so is the result."""
# the ways back to user mode
irq_enable_sysexit = code("native_irq_enable_sysexit", clobbers=0)
iret = code("native_iret", clobbers=0)
# machine
machine_restart = kernel_function("native_machine_restart")
machine_halt = kernel_function("native_machine_halt")
machine_power_off = kernel_function("native_machine_power_off")
machine_shutdown = kernel_function("native_machine_shutdown")
machine_emergency_restart = kernel_function("native_machine_emergency_restart")
# console
console_write = kernel_function("native_console_write")
console_read = kernel_function("native_console_read")
# smp: one CPU
smp_prepare_boot_cpu = kernel_function("native_smp_prepare_boot_cpu")
smp_prepare_cpus = kernel_function("native_smp_prepare_cpus")
cpu_up = kernel_function("native_cpu_up")
smp_cpus_done = kernel_function("native_smp_cpus_done")
smp_send_stop = kernel_function("native_smp_send_stop")
smp_send_reschedule = kernel_function("native_smp_send_reschedule")
smp_call_function_mask = kernel_function("native_smp_call_function_mask")


@hookimpl
def patch(self: OpTable, site_type: int, clobbers: int, buf: int, address: int, length: int) -> int:
    """Put guest code in place of a call where it fits, else a direct call (patch.py)."""
    guest = self.guest
    code = generate(guest.ops.slots, site_type, clobbers, address, length)
    if code is None:
        return length
    guest.machine.vcpu.write(buf, code)
    return len(code)


@hookimpl
def machine_crash_shutdown(self: OpTable) -> None:
    """The kernel has panicked: end the run with what it left in its end block."""
    message, eip = self.guest.panic()
    symbol = self.guest.machine.symbolize(eip)
    raise GuestExit(Outcome(End.CRASH, f"kernel panic: {message}", eip, symbol))
