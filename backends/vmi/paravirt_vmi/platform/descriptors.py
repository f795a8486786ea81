"""Descriptor tables in ring 1: the guest's own tables are the CPU's, with the kernel's segments raised to DPL 1.

A guest writes DPL 0 into descriptors of its kernel. They become DPL 1 in its own memory, when the table is loaded
(SetGDT) and when an entry is written (WriteGDTEntry, in rom.S): so a guest that stores descriptors by itself still
runs. The IDT is used as it is: its gates name the kernel's code segment, whose DPL says which ring they lead to.

Ref: Intel SDM vol. 3A, 3.4.5 (segment descriptors), 3.5 (system descriptors), 7.2 (TSS); vol. 2A, LLDT, LTR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import GuestFault, Segment, layout
from paravirt_vmi.platform.layout import GUEST_RING, TSS, TSS_LIMIT

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

GP, NP = 13, 11
PRESENT, CODE_OR_DATA, DPL, DPL_GUEST, CODE = 1 << 15, 1 << 12, 3 << 13, GUEST_RING << 13, 1 << 11
TYPE_TSS, TYPE_TSS_BUSY, TYPE_LDT, TYPE_AVAILABLE_TSS = 0x9, 0xB, 0x2, 0x8900
DATA_REGISTERS = (layout.ES, layout.DS, layout.FS, layout.GS)


def raised(high: int) -> int:
    """The second word of a descriptor as the guest may have it: the kernel's segments are ring 1's."""
    if high & CODE_OR_DATA and not high & DPL:
        return high | DPL_GUEST
    return high


def _pseudo_descriptor(m: Monitor, pointer: int) -> tuple[int, int]:
    data = m.vcpu.read(pointer, 6)
    return int.from_bytes(data[2:], "little"), int.from_bytes(data[:2], "little")


def raise_table(m: Monitor, base: int, limit: int) -> None:
    """Raise the kernel's segments of a table in the guest's memory.

    :raises GuestFault: the table is not mapped.
    """
    vcpu = m.vcpu
    size = (limit + 1) & ~7
    table = bytearray(vcpu.read(base, size))
    for entry in range(0, size, 8):
        high = int.from_bytes(table[entry + 4 : entry + 8], "little")
        if raised(high) != high:
            vcpu.write_u32(base + entry + 4, raised(high))


def reload_segments(m: Monitor) -> None:
    """Load every segment register anew, as after a change of the table. What is not valid becomes null; CS and SS
    stay what they were."""
    vcpu = m.vcpu
    for register in (layout.CS, layout.SS, *DATA_REGISTERS):
        selector = vcpu.segment(register).selector & 0xFFFF
        fixed = register in (layout.CS, layout.SS)
        found = _segment(m, selector)
        if found is not None:
            vcpu.set_segment(register, found)
        elif not fixed:
            vcpu.set_segment(register, Segment(0, 0, 0, 0))


def _segment(m: Monitor, selector: int) -> Segment | None:
    if not selector & 0xFFFC:
        return None
    try:
        found = m.vcpu.descriptor(selector)
    except GuestFault:
        return None
    valid = found.high & PRESENT and found.high & CODE_OR_DATA and found.high >> 13 & 3 >= GUEST_RING
    return found if valid else None


def set_gdt(m: Monitor, pointer: int) -> None:
    base, limit = _pseudo_descriptor(m, pointer)
    if m.crosses(base, limit + 1):
        raise m.refuse("SetGDT", f"the table at {base:#x} with limit {limit:#x} leaves the address space")
    raise_table(m, base, limit)
    m.vcpu.set_table(layout.GDTR, Segment(0, base, limit, 0))
    reload_segments(m)


def set_idt(m: Monitor, pointer: int) -> None:
    base, limit = _pseudo_descriptor(m, pointer)
    m.vcpu.set_table(layout.IDTR, Segment(0, base, limit, 0))


def _system(m: Monitor, selector: int, *kinds: int) -> Segment:
    """A system descriptor of the GDT; the faults are those of LLDT and LTR."""
    if selector & 4:
        raise GuestFault(GP, selector & 0xFFFC)
    found = m.vcpu.descriptor(selector)
    if found.high & CODE_OR_DATA or found.high >> 8 & 0xF not in kinds:
        raise GuestFault(GP, selector & 0xFFFC)
    if not found.high & PRESENT:
        raise GuestFault(NP, selector & 0xFFFC)
    return found


def set_ldt(m: Monitor, selector: int) -> None:
    selector &= 0xFFFF
    if not selector & 0xFFFC:
        m.vcpu.set_table(layout.LDTR, Segment(0, 0, 0, 0))
        return
    m.vcpu.set_table(layout.LDTR, _system(m, selector, TYPE_LDT))


def set_tr(m: Monitor, selector: int) -> None:
    """The guest's TSS serves for its I/O bit map alone; the CPU keeps ours, under the guest's selector."""
    selector &= 0xFFFF
    if not selector & 0xFFFC:
        raise GuestFault(GP, 0)
    found = _system(m, selector, TYPE_TSS, TYPE_TSS_BUSY)
    m.tr = (selector, found.base, found.limit)
    load_own_tss(m)


def load_own_tss(m: Monitor) -> None:
    """Point the CPU's task register at the shared page. The type must be that of an available TSS: libunicorn takes
    the first way from ring 3 to ring 1 through a busy one for a nested task."""
    m.vcpu.set_table(layout.TR, Segment(m.tr[0], own_tss(m), TSS_LIMIT, TYPE_AVAILABLE_TSS))


def own_tss(m: Monitor) -> int:
    """Linear address of the CPU's TSS."""
    return m.base + m.page_at - m.rom_at + TSS


def _store(m: Monitor, pointer: int, table: int) -> None:
    found = m.vcpu.table(table)
    m.vcpu.write(pointer, found.limit.to_bytes(4, "little")[:2] + (found.base & 0xFFFFFFFF).to_bytes(4, "little"))


def get_gdt(m: Monitor, pointer: int) -> None:
    _store(m, pointer, layout.GDTR)


def get_idt(m: Monitor, pointer: int) -> None:
    _store(m, pointer, layout.IDTR)


def get_ldt(m: Monitor) -> int:
    return m.vcpu.table(layout.LDTR).selector & 0xFFFF


def get_tr(m: Monitor) -> int:
    return m.tr[0]


def write_segment(m: Monitor, table: int, index: int, low: int, high: int) -> None:
    _write_entry(m, table, index, low, raised(high))


def write_gate(m: Monitor, table: int, index: int, low: int, high: int) -> None:
    _write_entry(m, table, index, low, high)


def _write_entry(m: Monitor, table: int, index: int, low: int, high: int) -> None:
    m.vcpu.write((table + 8 * index) & 0xFFFFFFFF, low.to_bytes(4, "little") + high.to_bytes(4, "little"))


def update_kernel_stack(m: Monitor, selector: int, esp: int) -> None:
    m.set_word("esp1", esp)
    m.set_word("ss1", selector | GUEST_RING)
