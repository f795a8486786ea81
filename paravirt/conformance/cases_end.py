"""How a machine stops, and pointers that fault.

A bad pointer must reach the kernel as the page fault that an instruction would have raised, CR2 set; the reference
kernel has no fix-up for these and panics. Where the kernel does not run in ring 0 it must end with a report all the
same.

Ref: paravirt/hookspecs/machine.py; Intel SDM vol. 3A, 6.15 (#PF).
"""

from __future__ import annotations

from paravirt.conformance.bench import Bench
from paravirt.conformance.case import case

BAD = 0x00BAD000


@case("machine_restart", "machine_emergency_restart", ends=("reboot",))
def the_machine_starts_again(bench: Bench) -> None:
    bench.call(*(0 for _ in bench.slot.info.params))


@case("machine_halt", ends=("halt", "poweroff"))
def the_machine_stands_still(bench: Bench) -> None:
    bench.call()


@case("machine_power_off", ends=("poweroff",))
def the_machine_turns_off(bench: Bench) -> None:
    bench.call()


@case("machine_crash_shutdown", ends=("crash",))
def the_crash_is_reported(bench: Bench) -> None:
    bench.call(0)


@case("machine_shutdown")
def the_machine_is_quiet(bench: Bench) -> None:
    bench.call()
    before = bench.ticks()
    bench.kernel.udelay(3000)
    bench.equal("ticks behind machine_shutdown", bench.ticks() - before, 0)


def _faulted(bench: Bench) -> None:
    text = bench.stopped.output.decode("latin-1")
    if bench.ring:  # an op that is a hypercall refuses the pointer itself
        bench.holds("the kernel reports it", "Kernel panic" in text or "BUG" in text, text[-300:])
        return
    bench.equal("CR2's page", bench.vcpu.cr(2) & ~0xFFF, BAD)
    told = "paging request" in text or "page fault" in text.lower()
    bench.holds("the kernel reports a page fault", told, text[-300:])


@case("load_gdt", "load_idt", "store_gdt", "store_idt", "write_ldt_entry", "write_gdt_entry", "write_idt_entry",
      "load_tls", "load_esp0", "cpuid", "read_msr", "set_pte", "set_pte_at", "set_pte_atomic", "set_pte_present",
      "set_pmd", "set_pud", "pte_clear", "pmd_clear", "console_write", ends=("crash",), after=_faulted)
def a_bad_pointer_is_a_page_fault(bench: Bench) -> None:
    good = bench.page()
    given = {"table": BAD, "desc": BAD, "thread": BAD, "tss": good, "err": BAD, "msr": 0x175, "ptep": BAD,
             "pmdp": BAD, "pudp": BAD, "s": BAD, "length": 4, "eax": BAD, "ebx": good, "ecx": good, "edx": good,
             "mm": bench.kernel.symbol("init_mm")}
    bench.call(*(given.get(param.name, 0) for param in bench.slot.info.params))
