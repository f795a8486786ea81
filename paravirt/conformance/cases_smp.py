"""The local APIC and other CPUs, where the platform has them; what may be asked of a platform that has not.

Ref: paravirt/hookspecs/apic.py, smp.py; Intel SDM vol. 3A, 10.4.1 (register offsets).
"""

from __future__ import annotations

import struct

from paravirt.conformance.bench import PAGE, Bench, NotApplicable
from paravirt.conformance.case import case

TPR = 0x80
CPUID_APIC = 1 << 9
CPU_0 = 1


def _has_apic(bench: Bench) -> None:
    if not bench.variable("cpu_features") & CPUID_APIC:
        raise NotApplicable("CPUID says that there is no local APIC")


@case("apic_write", "apic_write_atomic", "apic_read")
def a_register_of_the_apic_keeps_its_value(bench: Bench) -> None:
    _has_apic(bench)
    for value in (0x20, 0x40, 0):
        if bench.name == "apic_read":
            bench.ops.apic_write(TPR, value)
            got = bench.call(TPR).result
        else:
            bench.call(TPR, value)
            got = bench.ops.apic_read(TPR)
        bench.equal("the task priority", got, value)


@case("smp_prepare_boot_cpu", "smp_prepare_cpus", "smp_cpus_done", "smp_send_stop", "smp_send_reschedule")
def this_cpu_goes_on(bench: Bench) -> None:
    bench.call(*(1 for _ in bench.slot.info.params))
    before = bench.ticks()
    bench.kernel.udelay(3000)
    bench.holds("ticks come", bench.ticks() > before)


@case("cpu_up")
def a_cpu_that_is_not_there_does_not_start(bench: Bench) -> None:
    bench.holds("a negative errno", bench.call(31).result < 0)


@case("smp_call_function_mask", "flush_tlb_others")
def a_mask_without_other_cpus_is_done_at_once(bench: Bench) -> None:
    page = bench.page()
    bench.write(page, struct.pack("<I", CPU_0 if bench.name == "smp_call_function_mask" else 0))
    if bench.name == "flush_tlb_others":
        bench.call(page, bench.kernel.symbol("init_mm"), 0xFFFFFFFF)
    else:
        bench.equal("the result", bench.call(page, 0, 0, 1).result, 0)
    bench.equal("the mask's page", bench.vcpu.read(page + 4, PAGE - 4), bytes(PAGE - 4))
