"""Descriptor tables, the task register, TLS, and the kernel's stack.

Ref: paravirt/hookspecs/descriptors.py; Intel SDM vol. 3A, 3.4.5 (descriptors), 3.5.1 (GDTR, LDTR), 7.2 (TSS).
"""

from __future__ import annotations

import struct

from paravirt.conformance.bench import PAGE, Bench
from paravirt.conformance.case import case
from paravirt.machine.layout import GDTR, IDTR, LDTR, TR
from paravirt.machine.vcpu import Segment

TSS, LDT, TLS, FREE = 16, 17, 6, 28
BUSY = 1 << 9
TSS_ESP0, TSS_SS1 = 4, 16
THREAD_ESP0, THREAD_SYSENTER_CS = 24, 28
SYSENTER_CS = 0x174
FLAT = 0x00CFF3000000FFFF  # user data, 4 GiB
ENTRY_LOW, ENTRY_HIGH = 0x1234ABCD, 0x00CFF256


def _pointer(bench: Bench, limit: int, base: int) -> int:
    """Address of a table's six-byte description."""
    page = bench.page()
    bench.write(page, struct.pack("<HI", limit, base))
    return page


@case("load_tr_desc")
def load_tr_desc_loads_entry_16(bench: Bench) -> None:
    gdt, _ = bench.table_of(GDTR)
    address = gdt + 8 * TSS
    descriptor = bench.vcpu.descriptor(8 * TSS)
    bench.vcpu.write_u32(address + 4, bench.word(address + 4) & ~BUSY)
    bench.vcpu.set_table(TR, Segment(0, 0, 0, 0))
    bench.call()
    task = bench.vcpu.table(TR)
    bench.equal("TR", task.selector, 8 * TSS)
    bench.equal("TR's base and limit", (task.base, task.limit), (descriptor.base, descriptor.limit))
    bench.equal("the descriptor's busy bit", bench.word(address + 4) & BUSY, BUSY)


@case("store_tr")
def store_tr_gives_the_selector(bench: Bench) -> None:
    bench.equal("the selector", bench.call().result, 8 * TSS)


@case("load_gdt")
def load_gdt_takes_another_table(bench: Bench) -> None:
    gdt, limit = bench.table_of(GDTR)
    copy = bench.page()
    bench.write(copy, bench.vcpu.read(gdt, limit + 1))
    bench.set_quad(copy + 8 * FREE, FLAT)
    bench.call(_pointer(bench, limit, copy))
    bench.equal("GDTR", bench.table_of(GDTR), (copy, limit))
    bench.equal("FS from the new table", bench.load_fs(8 * FREE | 3), 8 * FREE | 3)


@case("load_idt")
def load_idt_takes_another_table(bench: Bench) -> None:
    idt, limit = bench.table_of(IDTR)
    copy = bench.page()
    bench.write(copy, bench.vcpu.read(idt, limit + 1))
    bench.call(_pointer(bench, limit, copy))
    bench.equal("IDTR", bench.table_of(IDTR), (copy, limit))
    before = bench.ticks()
    bench.kernel.udelay(3000)
    bench.holds("ticks come through the new table", bench.ticks() > before)


@case("store_gdt", "store_idt")
def the_table_in_use_is_stored(bench: Bench) -> None:
    page = bench.page()
    bench.write(page, b"\xee" * 16)
    bench.call(page + 4)
    base, limit = bench.table_of(GDTR if bench.name == "store_gdt" else IDTR)
    expected = b"\xee" * 4 + struct.pack("<HI", limit, base) + b"\xee" * 6
    bench.equal("the six bytes and their neighbours", bench.vcpu.read(page, 16).hex(" "), expected.hex(" "))


@case("set_ldt")
def set_ldt_loads_and_empties(bench: Bench) -> None:
    table = bench.page()
    bench.set_quad(table + 8, FLAT)
    for entries in (2, 512):
        bench.call(table, entries)
        bench.equal(f"LDTR with {entries} entries", bench.table_of(LDTR), (table, 8 * entries - 1))
        bench.equal("FS from the LDT", bench.load_fs(8 | 7), 8 | 7)
    bench.call(0, 0)
    bench.equal("LDTR without entries", bench.vcpu.table(LDTR).selector & 0xFFFC, 0)


@case("load_tls")
def load_tls_copies_three(bench: Bench) -> None:
    gdt, _ = bench.table_of(GDTR)
    thread = bench.page()
    wanted = [FLAT | number << 16 for number in (1, 2, 3)]
    for number, descriptor in enumerate(wanted):
        bench.set_quad(thread + 8 * number, descriptor)
    beside = [bench.quad(gdt + 8 * index) for index in (TLS - 1, TLS + 3)]
    bench.call(thread, 0)
    bench.equal("GDT entries 6 to 8", [bench.quad(gdt + 8 * (TLS + each)) for each in range(3)], wanted)
    bench.equal("entries 5 and 9", [bench.quad(gdt + 8 * index) for index in (TLS - 1, TLS + 3)], beside)
    bench.equal("FS of the second slot", bench.load_fs(0x3B), 0x3B)


@case("write_ldt_entry", "write_gdt_entry", "write_idt_entry")
def a_descriptor_is_written_in_its_place(bench: Bench) -> None:
    if bench.name == "write_ldt_entry":
        table, index = bench.page(), 5
    elif bench.name == "write_gdt_entry":
        table, index = bench.table_of(GDTR)[0], FREE
    else:
        table, index = bench.table_of(IDTR)[0], 0x95
    low, high = (ENTRY_LOW, ENTRY_HIGH) if bench.name != "write_idt_entry" else (0x00601230, 0xC0108E00)
    beside = bench.quad(table + 8 * (index - 1)), bench.quad(table + 8 * (index + 1))
    bench.call(table, index, low, high)
    bench.equal(f"entry {index}", bench.quad(table + 8 * index), high << 32 | low)
    bench.equal("its neighbours", (bench.quad(table + 8 * (index - 1)), bench.quad(table + 8 * (index + 1))), beside)
    bench.call(table, index, 0, 0)
    bench.equal(f"entry {index} cleared", bench.quad(table + 8 * index), 0)


@case("load_esp0")
def load_esp0_sets_the_kernel_stack(bench: Bench) -> None:
    thread, error = bench.page(), bench.page()
    tss = bench.vcpu.table(TR).base
    code = bench.user_page(b"\xcd\x91")
    bench.prepare_return(0)
    for sysenter_cs in (0x60, 0):
        stack = bench.page() + PAGE
        bench.write(thread + THREAD_ESP0, struct.pack("<II", stack, sysenter_cs))
        bench.call(tss, thread)
        bench.equal("MSR SYSENTER_CS", bench.ops.read_msr(SYSENTER_CS, error), sysenter_cs)
        back = bench.jump(bench.target(bench.ops.slots["iret"]), [0] * 8, [code, 0x73, 2, code + PAGE, 0x7B])
        bench.equal("the stack on which the kernel is entered", back.kernel_esp, stack - 20)
