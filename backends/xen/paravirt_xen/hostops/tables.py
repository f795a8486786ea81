"""Descriptor tables, given to the hypervisor: the GDT as frames that the kernel may not write any more, the IDT as a
list of handlers.

Ref: Xen public/xen.h (HYPERVISOR_set_gdt, struct trap_info); Intel SDM vol. 3A, 6.11 (gates); Linux 2.6.23,
arch/i386/xen/enlighten.c (xen_load_gdt, cvt_gate_to_trap).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paravirt.api import crash, hookimpl
from paravirt_xen.guestcode import code
from paravirt_xen.platform import abi

if TYPE_CHECKING:
    from paravirt_xen.hostops.hypervisor import Hypervisor
    from paravirt_xen.table import XenOps

PAGE, PAGE_SHIFT = 4096, 12
MAX_GDT = 0x10000
RW = 2
TABLE = struct.Struct("<HI")  # limit, base
GATE = struct.Struct("<II")
VECTORS = 256
INTERRUPT_GATE, TRAP_GATE = 0xE, 0xF


@hookimpl
def load_gdt(self: XenOps, desc: int) -> None:
    """The pages of the table become read-only, their frames go to the hypervisor."""
    hypervisor = self.hypervisor
    limit, base = TABLE.unpack(hypervisor.vcpu.read(desc, TABLE.size))
    size = limit + 1
    if base % PAGE or size > MAX_GDT or size % 8:
        raise crash(f"xen: a GDT of {size} bytes at {base:#x}; it must be page aligned and no more than 64 KiB")
    frames = []
    for va in range(base, base + size, PAGE):
        entry = read_pte(hypervisor, va)
        hypervisor.must("update_va_mapping", va, entry & ~RW, abi.UVMF_INVLPG)
        frames.append(entry >> PAGE_SHIFT & 0xFFFFFF)
    address = hypervisor.scratch(struct.pack(f"<{len(frames)}I", *frames))
    hypervisor.must("set_gdt", address, size // 8)
    hypervisor.set_variable(code.xen_gdt, base)


def read_pte(hypervisor: Hypervisor, va: int) -> int:
    """The entry that maps an address. A page that is not mapped faults, as it would if the kernel touched it."""
    hypervisor.vcpu.translate(va)
    address = hypervisor.domain.l1_entry_address(va)
    if address is None:
        raise crash(f"xen: a descriptor table at {va:#x}, in a page of the hypervisor's")
    return int(hypervisor.domain.ram.quads[address >> 3])


def traps(table: bytes, first: int = 0) -> Iterator[bytes]:
    """What the hypervisor is told of gates: those of interrupts and traps that are present. It has no task gates."""
    for vector, (low, high) in enumerate(GATE.iter_unpack(table[: GATE.size * (VECTORS - first)]), first):
        kind, address = high >> 8 & 0x1F, high & 0xFFFF0000 | low & 0xFFFF
        if high & 0x8000 and kind in (INTERRUPT_GATE, TRAP_GATE) and address:
            flags = high >> 13 & 3 | (abi.TRAP_MASK_EVENTS if kind == INTERRUPT_GATE else 0)
            yield abi.TRAP_INFO.pack(vector, flags, low >> 16, address)


def tell(hypervisor: Hypervisor, entries: list[bytes]) -> None:
    """Register handlers, in addition to those there are. An entry of zeroes ends the list."""
    end = bytes(abi.TRAP_INFO.size)
    if entries:
        hypervisor.must("set_trap_table", hypervisor.scratch(b"".join(entries) + end))


@hookimpl
def load_idt(self: XenOps, desc: int) -> None:
    """All gates of a table."""
    hypervisor = self.hypervisor
    limit, base = TABLE.unpack(hypervisor.vcpu.read(desc, TABLE.size))
    self.idt = base, limit + 1
    tell(hypervisor, list(traps(hypervisor.vcpu.read(base, (limit + 1) & ~7))))


@hookimpl
def write_idt_entry(self: XenOps, table: int, index: int, low: int, high: int) -> None:
    """Stored in any case; told if the table is the one in use."""
    hypervisor = self.hypervisor
    at, gate = table + 8 * index, GATE.pack(low, high)
    hypervisor.vcpu.write(at, gate)
    base, size = self.idt
    if base <= at and at + 8 <= base + min(size, 8 * VECTORS):
        tell(hypervisor, list(traps(gate, at - base >> 3)))
