"""Descriptor tables, the task register, TLS, and the kernel's stack.

A table is looked at through what it does: whether a selector loads, and with which base; where an interrupt goes;
on which stack the kernel is entered.

Ref: paravirt/hookspecs/descriptors.py; Intel SDM vol. 3A, 3.4.5 (descriptors), 3.5.1 (GDTR, LDTR), 7.2 (TSS).
"""

from __future__ import annotations

import struct

from paravirt.conformance.bench import PAGE, PATTERN, USER_CS, USER_DS, Bench, NotApplicable
from paravirt.conformance.case import case
from paravirt.machine.layout import GDTR, IDTR, LDTR, TR
from paravirt.machine.vcpu import Segment

TSS, LDT, TLS, DOUBLE_FAULT, FREE, ENTRIES = 16, 17, 6, 31, 28, 32
IDT_BYTES = 2048
ACCESSED, BUSY = 1 << 40, 1 << 9  # of the whole descriptor; of its high word
TSS_ESP0 = 4
THREAD_SYSENTER_CS = 28
EDI = 7
FLAT = 0x00CFF3000000FFFF  # user data, 4 GiB
ENTRY_LOW, ENTRY_HIGH, ENTRY_BASE = 0x1234ABCD, 0x00CFF256, 0x00561234
FREE_VECTOR = 0x95


def _pointer(bench: Bench, limit: int, base: int) -> int:
    """Address of a table's six-byte description."""
    page = bench.page()
    bench.write(page, struct.pack("<HI", limit, base))
    return page


def _enter_from_user(bench: Bench, stack: int) -> None:
    """User code enters the kernel; it must come in on `stack`."""
    code = bench.user_page(b"\xcd\x91")
    back = bench.jump(bench.target(bench.ops.slots["iret"]), [0] * 8, [code, USER_CS, 2, code + PAGE, USER_DS])
    bench.equal("the stack on which the kernel is entered", back.kernel_esp, stack - 20)


def _interrupt(bench: Bench, vector: int) -> None:
    """Kernel code raises a vector, whose gate must lead to the handler by which `jump` comes back."""
    code = bench.code - 16
    bench.write_code(code, bytes([0x47, 0xCD, vector]))  # inc edi; int
    back = bench.jump(code, PATTERN, [])
    bench.equal("edi behind the interrupt", back.registers[EDI], PATTERN[EDI] + 1)
    bench.equal("the place where it was raised", back.eip, code + 3)


# ---------------------------------------------------------------------- the task

def _make_available(bench: Bench) -> None:
    """The TSS's descriptor as it is before it is loaded."""
    table = bench.symbol("cpu_gdt_table")
    low, high = struct.unpack("<II", bench.vcpu.read(table + 8 * TSS, 8))
    bench.ops.write_gdt_entry(table, TSS, low, high & ~BUSY)


@case("load_tr_desc")
def load_tr_desc_loads_entry_16(bench: Bench) -> None:
    bench.needs_ring_0("the task register is not the kernel's")
    descriptor = bench.vcpu.descriptor(8 * TSS)
    _make_available(bench)
    bench.vcpu.set_table(TR, Segment(0, 0, 0, 0))
    bench.call()
    task = bench.vcpu.table(TR)
    bench.equal("TR", task.selector, 8 * TSS)
    bench.equal("TR's base and limit", (task.base, task.limit), (descriptor.base, descriptor.limit))
    high = bench.word(bench.symbol("cpu_gdt_table") + 8 * TSS + 4)
    bench.equal("the descriptor's busy bit", high & BUSY, BUSY)


@case("load_tr_desc")
def the_kernel_is_entered_on_its_stack(bench: Bench) -> None:
    stack = bench.kernel_stack()
    bench.prepare_return(stack)
    _make_available(bench)
    bench.call()
    _enter_from_user(bench, stack)


@case("store_tr")
def store_tr_gives_the_selector(bench: Bench) -> None:
    allowed = (8 * TSS, 0) if bench.ring else (8 * TSS,)
    got = bench.call().result
    bench.holds(f"the selector {8 * TSS:#x}, or 0 where the platform keeps no TSS", got in allowed, got)


@case("load_esp0")
def load_esp0_sets_the_kernel_stack(bench: Bench) -> None:
    bench.prepare_return()
    for _ in range(2):
        stack = bench.kernel_stack()
        bench.call(bench.symbol("cpu_tss"), bench.thread(stack))
        _enter_from_user(bench, stack)


@case("load_esp0")
def load_esp0_tells_sysenter(bench: Bench) -> None:
    """MSR 0x174 follows the thread: 0 takes SYSENTER away from one that runs in VM86 mode."""
    if not bench.variable("sysenter_cs"):
        raise NotApplicable("the platform keeps SYSENTER's registers to itself")
    bench.needs_ring_0("the MSR is not the kernel's")
    error = bench.page()
    for sysenter_cs in (0, 0x60):
        thread = bench.thread(bench.kernel_stack())
        bench.write(thread + THREAD_SYSENTER_CS, struct.pack("<I", sysenter_cs))
        bench.call(bench.symbol("cpu_tss"), thread)
        bench.equal("MSR SYSENTER_CS", bench.ops.read_msr(0x174, error), sysenter_cs)


# ---------------------------------------------------------------------- tables

@case("load_gdt")
def load_gdt_takes_another_table(bench: Bench) -> None:
    old = struct.unpack(f"<{ENTRIES}Q", bench.vcpu.read(bench.symbol("cpu_gdt_table"), 8 * ENTRIES))
    entries = [0 if number in (TSS, LDT, DOUBLE_FAULT) else entry for number, entry in enumerate(old)]
    entries[FREE] = FLAT
    copy = bench.page()
    bench.write(copy, struct.pack(f"<{ENTRIES}Q", *entries))
    bench.equal("a selector that the old table lacks", bench.segment(8 * FREE | 3), None)
    bench.call(_pointer(bench, 8 * ENTRIES - 1, copy))
    if not bench.ring:
        bench.equal("GDTR", bench.table_of(GDTR), (copy, 8 * ENTRIES - 1))
    bench.holds("a selector that only the new table has loads", bench.segment(8 * FREE | 3) is not None)


@case("load_idt")
def load_idt_takes_another_table(bench: Bench) -> None:
    copy = bench.page()
    bench.write(copy, bench.vcpu.read(bench.symbol("idt_table"), IDT_BYTES))
    low, high = bench.gate(FREE_VECTOR, bench.back)
    bench.set_quad(copy + 8 * FREE_VECTOR, high << 32 | low)
    bench.call(_pointer(bench, IDT_BYTES - 1, copy))
    if not bench.ring:
        bench.equal("IDTR", bench.table_of(IDTR), (copy, IDT_BYTES - 1))
    before = bench.ticks()
    bench.kernel.udelay(3000)
    bench.holds("ticks come through the new table", bench.ticks() > before)
    _interrupt(bench, FREE_VECTOR)


@case("store_gdt", "store_idt")
def the_table_in_use_is_stored(bench: Bench) -> None:
    """The kernel's own; in another ring than 0 it may be the one that the CPU has from the hypervisor."""
    page = bench.page()
    bench.write(page, b"\xee" * 16)
    bench.call(page + 4)
    gdt = bench.name == "store_gdt"
    own = (bench.symbol("cpu_gdt_table"), 8 * ENTRIES - 1) if gdt else (bench.symbol("idt_table"), IDT_BYTES - 1)
    allowed = [own, bench.table_of(GDTR if gdt else IDTR)] if bench.ring else [own]
    around = bench.vcpu.read(page, 4) + bench.vcpu.read(page + 10, 6)
    bench.equal("the bytes around", around.hex(" "), (b"\xee" * 10).hex(" "))
    limit, base = struct.unpack("<HI", bench.vcpu.read(page + 4, 6))
    bench.holds(f"base and limit {own[0]:#x}, {own[1]:#x}", (base, limit) in allowed, f"{base:#x}, {limit:#x}")


@case("set_ldt")
def set_ldt_loads_and_empties(bench: Bench) -> None:
    for entries in (2, 512):
        table = bench.page()
        bench.set_quad(table + 8, FLAT | entries << 16)
        bench.call(table, entries)
        if not bench.ring:
            bench.equal(f"LDTR with {entries} entries", bench.table_of(LDTR), (table, 8 * entries - 1))
        segment = bench.segment(8 | 7)
        bench.equal("the base of entry 1", segment and segment.base, entries)
        bench.equal("entry 2, which is empty or beyond the end", bench.segment(16 | 7), None)
    bench.call(0, 0)
    bench.equal("entry 1 without a table", bench.segment(8 | 7), None)


@case("load_tls")
def load_tls_copies_three(bench: Bench) -> None:
    thread, table = bench.thread(0), bench.symbol("cpu_gdt_table")
    beside = [bench.quad(table + 8 * index) for index in (TLS - 1, TLS + 3)]
    for base in (0x10, 0x20):
        for number in range(3):
            bench.set_quad(thread + 8 * number, FLAT | base + number << 16)
        bench.call(thread, 0)
        found = [bench.segment(8 * (TLS + number) | 3) for number in range(3)]
        bench.equal("the bases of the three segments", [each and each.base for each in found],
                    [base, base + 1, base + 2])
    bench.equal("entries 5 and 9", [bench.quad(table + 8 * index) for index in (TLS - 1, TLS + 3)], beside)


# ---------------------------------------------------------------------- entries

@case("write_ldt_entry", "write_gdt_entry")
def a_descriptor_is_written_in_its_place(bench: Bench) -> None:
    if bench.name == "write_ldt_entry":
        table, index, table_indicator = bench.page(), 5, 4
        bench.ops.set_ldt(table, 8)
    else:
        table, index, table_indicator = bench.symbol("cpu_gdt_table"), FREE, 0
    selector = 8 * index | table_indicator | 3
    beside = bench.quad(table + 8 * (index - 1)), bench.quad(table + 8 * (index + 1))
    bench.call(table, index, ENTRY_LOW, ENTRY_HIGH)
    bench.equal(f"entry {index}", bench.quad(table + 8 * index) & ~ACCESSED, ENTRY_HIGH << 32 | ENTRY_LOW)
    segment = bench.segment(selector)
    bench.equal("the base of its segment", segment and segment.base, ENTRY_BASE)
    bench.equal("its neighbours", (bench.quad(table + 8 * (index - 1)), bench.quad(table + 8 * (index + 1))), beside)
    bench.call(table, index, 0, 0)
    bench.equal(f"entry {index} cleared", bench.quad(table + 8 * index), 0)
    bench.equal("its selector", bench.segment(selector), None)


@case("write_idt_entry")
def a_gate_takes_effect(bench: Bench) -> None:
    table, index = bench.symbol("idt_table"), FREE_VECTOR
    low, high = bench.gate(index, bench.back)
    beside = bench.quad(table + 8 * (index - 1)), bench.quad(table + 8 * (index + 1))
    bench.call(table, index, low, high)
    bench.equal(f"entry {index}", bench.quad(table + 8 * index), high << 32 | low)
    bench.equal("its neighbours", (bench.quad(table + 8 * (index - 1)), bench.quad(table + 8 * (index + 1))), beside)
    _interrupt(bench, index)
    bench.call(table, index, 0, 0)
    bench.equal(f"entry {index} cleared", bench.quad(table + 8 * index), 0)
