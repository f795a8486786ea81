"""The hypercall table is literal and whole: every number of Xen's public header has a row with its answer.

Guests probe for calls. A number without a row answers ENOSYS, and one with a fixed answer gives the answer that a
domU gets from a real Xen, never an exception of the host.
"""

from __future__ import annotations

import pytest

from paravirt_xen.platform.errors import EPERM
from paravirt_xen.platform.hypercalls import HYPERCALLS, MAX_ARGUMENTS

# public/xen.h, enum hypercall_num, of Xen 4.17; 11 is free, 43 to 47 are not given out.
NUMBERS = {
    0: "set_trap_table", 1: "mmu_update", 2: "set_gdt", 3: "stack_switch", 4: "set_callbacks", 5: "fpu_taskswitch",
    6: "sched_op_compat", 7: "platform_op", 8: "set_debugreg", 9: "get_debugreg", 10: "update_descriptor",
    12: "memory_op", 13: "multicall", 14: "update_va_mapping", 15: "set_timer_op", 16: "event_channel_op_compat",
    17: "xen_version", 18: "console_io", 19: "physdev_op_compat", 20: "grant_table_op", 21: "vm_assist",
    22: "update_va_mapping_otherdomain", 23: "iret", 24: "vcpu_op", 25: "set_segment_base", 26: "mmuext_op",
    27: "xsm_op", 28: "nmi_op", 29: "sched_op", 30: "callback_op", 31: "xenoprof_op", 32: "event_channel_op",
    33: "physdev_op", 34: "hvm_op", 35: "sysctl", 36: "domctl", 37: "kexec_op", 38: "tmem_op", 39: "argo_op",
    40: "xenpmu_op", 41: "dm_op", 42: "hypfs_op", 48: "mca", 49: "paging_domctl_cont",
}  # fmt: skip


def test_every_number_of_the_public_header_has_a_row() -> None:
    assert {number: call.name for number, call in HYPERCALLS.items()} == NUMBERS


@pytest.mark.parametrize("name", ["platform_op", "sysctl", "domctl", "kexec_op"])
def test_privileged_calls_are_refused_as_for_a_domu(name: str) -> None:
    row, = (call for call in HYPERCALLS.values() if call.name == name)
    assert row.handler == -EPERM


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signature_fits_into_the_five_argument_registers(number: int) -> None:
    arguments = HYPERCALLS[number].arguments
    assert {argument.kind for argument in arguments} <= {"u32", "u64", "ptr"}
    assert sum(2 if argument.kind == "u64" else 1 for argument in arguments) <= MAX_ARGUMENTS
