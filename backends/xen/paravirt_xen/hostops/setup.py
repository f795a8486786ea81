"""The platform's set-up: what the hypervisor must know of the kernel, and the ops of the domain.

Ref: Linux 2.6.23, arch/i386/xen/setup.c (xen_arch_setup, xen_memory_setup), enlighten.c; Xen public/memory.h
(XENMEM_machphys_mapping), public/physdev.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from paravirt.api import hookimpl
from paravirt_xen.guestcode import code
from paravirt_xen.platform import abi

if TYPE_CHECKING:
    from paravirt_xen.table import XenOps

KERNEL_CS = 0x61
E820_RAM = 1
XENMEM_MACHPHYS_MAPPING = 12
PHYSDEVOP_SET_IOPL = 6
NOSEGNEG = 1 << 1  # of the vDSO's note: no negative offsets from a segment's base
PAGE, PAGE_OFFSET = 4096, 0xC0000000
NAME_WORD = 3
NR_PAGES, PT_BASE, MFN_LIST = 1, 8, 10  # in start_info, behind the magic


@hookimpl
def arch_setup(self: XenOps) -> None:
    """The hypervisor and the kernel get to know each other."""
    hypervisor, options = self.hypervisor, self.options
    info = start_info(self)
    hypervisor.set_variable(code.xen_mfn_list, info[MFN_LIST])
    hypervisor.set_variable(code.xen_nr_pages, info[NR_PAGES])
    hypervisor.set_variable(code.xen_cr3, info[PT_BASE] - PAGE_OFFSET)
    hypervisor.set_variable(code.xen_batch_limit, 32 if options.multicall else 1)
    hypervisor.set_variable(code.xen_place_vcpu_info, int(options.vcpu_info))

    for kind in (abi.VMASST_4GB_SEGMENTS, abi.VMASST_WRITABLE_PAGETABLES, abi.VMASST_PAE_EXTENDED_CR3):
        hypervisor.must("vm_assist", abi.VMASST_CMD_ENABLE, kind)
    buffer = hypervisor.scratch(bytes(12))
    hypervisor.must("memory_op", XENMEM_MACHPHYS_MAPPING, buffer)
    start, _, last = struct.unpack("<3I", hypervisor.vcpu.read(buffer, 12))
    hypervisor.set_variable(code.xen_m2p, start)
    hypervisor.set_variable(code.xen_m2p_entries, last + 1)

    for name, target in (("xen_do_upcall", code.xen_evtchn_do_upcall), ("xen_iret_start", code.xen_iret_start_crit),
                         ("xen_iret_end", code.xen_iret_end_crit)):
        hypervisor.vcpu.write_u32(hypervisor.symbol(name), hypervisor.address_of(target))
    hypervisor.must("set_callbacks", KERNEL_CS, hypervisor.symbol("xen_hypervisor_callback"),
                    KERNEL_CS, hypervisor.symbol("xen_failsafe_callback"))
    hypervisor.must("physdev_op", PHYSDEVOP_SET_IOPL, hypervisor.scratch(struct.pack("<I", 1)))

    note = hypervisor.symbol("vdso_note_mask")
    hypervisor.vcpu.write_u32(note, hypervisor.vcpu.read_u32(note) | NOSEGNEG)


@hookimpl
def memory_setup(self: XenOps) -> int:
    """One range, 0 to nr_pages, provided by "Xen"."""
    hypervisor = self.hypervisor
    entry = struct.pack("<QQI", 0, start_info(self)[NR_PAGES] * PAGE, E820_RAM)
    hypervisor.vcpu.write(hypervisor.symbol("e820_map"), entry)
    hypervisor.vcpu.write_u32(hypervisor.symbol("e820_count"), 1)
    return hypervisor.vcpu.read_u32(hypervisor.note.paravirt_ops + 4 * NAME_WORD)


def start_info(table: XenOps) -> tuple[int, ...]:
    """The words of start_info, its magic first."""
    hypervisor = table.hypervisor
    address = hypervisor.vcpu.read_u32(hypervisor.symbol("xen_start_info"))
    return abi.START_INFO.unpack(hypervisor.vcpu.read(address, abi.START_INFO.size))
