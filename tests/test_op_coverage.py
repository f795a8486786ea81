"""Every op is reached by the reference kernel, or covered by conformance with a reason; docs/op-coverage.md says so.

Why: an op that nothing calls may do anything. A reason that does not hold any more, because the kernel has come to
reach the op, is as wrong as a missing one.
"""

from __future__ import annotations

from functools import cache

import pytest

from paravirt.conformance.suite import cases_of
from paravirt.hookspecs import op_infos
from tools import op_coverage

# Ops with which Linux boots or runs processes; an op that moves from here to the reasons has lost its caller.
BOOT = """patch arch_setup memory_setup init_IRQ time_init pagetable_setup_start pagetable_setup_done banner
get_wallclock cpuid set_debugreg read_cr0 write_cr0 write_cr3 read_cr4 write_cr4 save_fl restore_fl
irq_disable irq_enable safe_halt read_msr write_msr read_tsc sched_clock get_cpu_khz load_tr_desc
load_gdt load_idt set_ldt load_tls write_gdt_entry write_idt_entry load_esp0 io_delay
flush_tlb_kernel flush_tlb_single alloc_pt alloc_pd set_pte set_pmd set_pud set_lazy_mode""".split()
PROGRAMS = """clts read_cr2 set_iopl_mask activate_mm dup_mmap exit_mmap flush_tlb_user release_pt release_pd
set_pte_at pte_update pte_update_defer kmap_atomic_pte set_pte_present pmd_clear write_ldt_entry
irq_enable_sysexit iret get_debugreg""".split()


@cache
def found() -> dict[str, str]:
    return op_coverage.reached()


@pytest.mark.parametrize("op", op_infos())
def test_an_op_is_reached_or_has_a_reason(op: str) -> None:
    assert (op in found()) != (op in op_coverage.REASONS), found().get(op, "nothing reaches it, and no reason is given")
    assert cases_of(op), "no case of the conformance suite"


def test_ops_are_reached_where_linux_has_them() -> None:
    assert [op for op in BOOT if found().get(op) != "boot"] == []
    assert [op for op in PROGRAMS if found().get(op) not in ("programs", "boot")] == []


def test_the_page_is_what_the_runs_give() -> None:
    assert op_coverage.PAGE.read_text() == op_coverage.page(found()), "`make pages` writes it anew"


def test_reasons_are_reasons() -> None:
    assert set(op_coverage.REASONS) <= set(op_infos())
    assert all(len(reason) > 15 for reason in op_coverage.REASONS.values())
