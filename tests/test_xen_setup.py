"""How the reference kernel's own page tables and descriptor tables come into being on Xen.

What must hold: init_mm's tables begin as those of the domain builder, its middle directories copied and never shared;
pages that the builder mapped read-only stay so, with all other bits of their new entries; then the ordinary ops are in
their slots, shared_info is mapped, and the tables are pinned, in that order. The top of the address space is left to
the hypervisor. The GDT is read-only when the hypervisor gets it; gates become trap entries as their kind says, and task
gates none; an LDT is read-only as long as it is in use.

Ref: backends/xen/paravirt_xen/ops/setup.inc, pin.inc, descriptors.inc, hostops/; Linux 2.6.23, arch/i386/xen.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import pytest

from paravirt.conformance.bench import NX, PAGE, PAGE_OFFSET, Bench
from paravirt.machine.outcome import Outcome
from paravirt.options import BootOptions
from paravirt.testing.boots import InPlace, Stopped, boot_to_rest_init
from paravirt_xen.guestcode import code
from paravirt_xen.hostops.hypervisor import Hypervisor
from paravirt_xen.hostops.tables import traps
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import L1, L2, L3, PINNED, TYPE

MEMORY = 16 << 20
HYPERVISOR_START, FIXADDR_TOP = 0xF5800000, 0xF57FD000
FIX_PARAVIRT = FIXADDR_TOP - 2 * PAGE
PRESENT, RW = 1, 2
ADDRESS = 0x0000_000F_FFFF_F000
ON_XEN = BootOptions(backend="xen", memory=MEMORY)


def domain_of(stopped: Stopped) -> Domain:
    domain: Domain = stopped.backend.domain  # type: ignore[attr-defined]
    return domain


def on_xen(function: Callable[[Bench, Domain], None], *, ends: bool = False) -> Outcome:
    """Run a function at rest_init. :param ends: it does not come back, the run ends inside of it."""
    came_back: list[bool] = []

    def inspect(stopped: Stopped) -> None:
        function(Bench(stopped, "set_pte"), domain_of(stopped))
        came_back.append(True)

    outcome = boot_to_rest_init(inspect, ON_XEN)
    assert bool(came_back) != ends, outcome
    return outcome


def in_place_of(op: str, function: Callable[[Stopped, Domain, tuple[int, ...]], int]) -> None:
    """Run a function where start_kernel calls an op."""
    called: list[str] = []

    def instead(stopped: Stopped, arguments: tuple[int, ...]) -> int:
        called.append(op)
        return function(stopped, domain_of(stopped), arguments)

    outcome = boot_to_rest_init(lambda stopped: called.append("rest_init"), ON_XEN, in_place=InPlace(op, instead))
    assert called == [op, "rest_init"], outcome


class Tables(NamedTuple):
    """Frames of the page tables below a directory."""

    l3: int
    l2: list[int]
    l1: list[int]


def tables(domain: Domain, l3: int) -> Tables:
    """The guest's own: what the hypervisor has in its part of the address space is left out."""
    quads = domain.ram.quads
    l2 = [entry >> 12 & 0xFFFFFF for entry in quads[l3 * 512 : l3 * 512 + 4] if entry & PRESENT]
    l1 = [entry >> 12 & 0xFFFFFF for mfn in l2 for entry in quads[mfn * 512 : mfn * 512 + 512]
          if entry & PRESENT and domain.frames.owned(entry >> 12 & 0xFFFFFF)]
    return Tables(l3, l2, l1)


def call(stopped: Stopped, op: str, *arguments: int) -> int:
    return stopped.ops.run(stopped.ops.slots[op], arguments)


# ---------------------------------------------------------------------- page tables

def test_middle_directories_are_copied_and_what_was_read_only_stays() -> None:
    def look(stopped: Stopped, domain: Domain, arguments: tuple[int, ...]) -> int:
        builder = tables(domain, domain.l3_mfn)
        quads = domain.ram.quads
        result = call(stopped, "pagetable_setup_start", *arguments)
        now = tables(domain, domain.vcpu.cr(3) >> 12)
        swapper, = arguments
        assert domain.machine_address(swapper) >> 12 == now.l3 != builder.l3, "the kernel's directory is in use"
        assert not set(now.l2) & set(builder.l2), "middle directories are copies"
        assert now.l1 == builder.l1, "of the same page tables"
        for mfn in (now.l3, *now.l2):
            va = PAGE_OFFSET + (domain.m2p[mfn] << 12)
            assert not quads[(domain.l1_entry_address(va) or 0) >> 3] & RW, "they are read-only"
        assert stopped.ops.slots["set_pte"].where == "xen_set_pte_init ops.S"
        return result

    in_place_of("pagetable_setup_start", look)


def test_the_entry_of_a_read_only_page_keeps_all_but_the_right_to_write() -> None:
    def look(stopped: Stopped, domain: Domain, arguments: tuple[int, ...]) -> int:
        result = call(stopped, "pagetable_setup_start", *arguments)
        quads = domain.ram.quads
        table_va = PAGE_OFFSET + (domain.m2p[domain.l3_mfn] << 12)  # the builder's; read-only from the start
        plain_va = PAGE_OFFSET + 0x5000
        for va, writable in ((table_va, False), (plain_va, True)):
            at = domain.l1_entry_address(va) or 0
            ptep = PAGE_OFFSET + (domain.m2p[at >> 12] << 12) + at % PAGE
            call(stopped, "set_pte", ptep, quads[at >> 3] & ADDRESS | NX | 0x63)
            assert quads[at >> 3] & (NX | PRESENT) == NX | PRESENT
            assert bool(quads[at >> 3] & RW) == writable, hex(va)
        return result

    in_place_of("pagetable_setup_start", look)


def test_done_is_the_ordinary_ops_then_shared_info_then_the_pin() -> None:
    def look(stopped: Stopped, domain: Domain, arguments: tuple[int, ...]) -> int:
        made: list[tuple[str, str, str]] = []

        def note(name: str, words: object, result: int, inner: bool) -> None:
            slots = stopped.ops.slots
            made.append((name, slots["set_pte"].where, slots["alloc_pt"].where))
            assert result >= 0

        domain.dispatcher.on_call = note
        result = call(stopped, "pagetable_setup_done", *arguments)
        domain.dispatcher.on_call = None
        ordinary = ("xen_set_pte ops.S", "xen_alloc_pt ops.S")
        assert [each for each in made if each[0] != "multicall"] == [
            ("update_va_mapping", *ordinary), ("mmuext_op", *ordinary)]
        assert domain.machine_address(FIX_PARAVIRT) == domain.shared
        frames = domain.frames
        swapper = domain.machine_address(arguments[0]) >> 12
        assert frames.info[swapper] & TYPE == L3 and frames.info[swapper] & PINNED
        return result

    in_place_of("pagetable_setup_done", look)


def test_every_table_in_use_has_its_type_and_is_read_only() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        found = tables(domain, domain.vcpu.cr(3) >> 12)
        for kind, mfns in ((L3, [found.l3]), (L2, found.l2), (L1, found.l1)):
            assert {domain.frames.info[mfn] & TYPE for mfn in mfns} == {kind}
        for mfn in (found.l3, *found.l2, *found.l1):
            assert not bench.quad(bench.pte_at(PAGE_OFFSET + (domain.m2p[mfn] << 12))) & RW
        mem_map = bench.variable("mem_map")
        pinned = {pfn for pfn in range(MEMORY // PAGE) if bench.word(mem_map + 8 * pfn) >> 16 & 1}
        assert pinned == {domain.m2p[mfn] for mfn in (found.l3, *found.l2, *found.l1)}, "struct page says the same"

    on_xen(look)


def test_the_top_of_the_address_space_is_the_hypervisors() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        assert bench.variable("__FIXADDR_TOP") == FIXADDR_TOP
        assert domain.hole.start == HYPERVISOR_START

    on_xen(look)


def test_a_frame_that_the_domain_has_not_is_not_mapped() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        assert bench.ops.make_pte(MEMORY | 0x63) == 0
        assert bench.ops.make_pte(0x7_FFFF_F000 | 0x63) == 0
        shared = domain.shared | 0x63
        assert bench.ops.pte_val(shared) & ADDRESS not in range(MEMORY), "a frame of the hypervisor's has no number"
        assert bench.ops.pte_val(shared) & 0xFFF == 0x63

    on_xen(look)


def test_a_page_of_a_pinned_address_space_is_pinned_with_it() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        mm, page = bench.kernel.mm_alloc(), bench.page()
        pfn = page - PAGE_OFFSET >> 12

        def writable() -> bool:
            return bool(bench.quad(bench.pte_at(page)) & RW)

        bench.ops.alloc_pt(mm, pfn)
        assert writable(), "nobody walks it yet"
        bench.ops.activate_mm(bench.symbol("init_mm"), mm)
        bench.ops.alloc_pt(mm, pfn)
        assert not writable()
        bench.ops.release_pt(pfn)
        assert writable()
        bench.ops.write_cr3(bench.word(mm) - PAGE_OFFSET)
        bench.vcpu.write_u32(bench.symbol("active_mm"), mm)
        bench.ops.exit_mmap(mm)
        assert bench.ops.read_cr3() == bench.kernel.pa(bench.symbol("swapper_pg_dir")), "it was left before"
        assert bench.variable("active_mm") == bench.symbol("init_mm")

    on_xen(look)


# ---------------------------------------------------------------------- descriptor tables

def test_gates_become_trap_entries_as_their_kind_says() -> None:
    gates = [(0x61 << 16 | 0x1234, 0xC0108E00), (0x61 << 16 | 0x5678, 0xC010EF00), (0xF8 << 16, 0x8500),
             (0x61 << 16 | 0x1234, 0xC0100E00), (0, 0)]
    table = b"".join(struct.pack("<II", *gate) for gate in gates)
    assert [struct.unpack("<BBHI", each) for each in traps(table, 3)] == [
        (3, 4, 0x61, 0xC0101234),  # an interrupt gate masks events
        (4, 3, 0x61, 0xC0105678),  # a trap gate of DPL 3 does not
    ], "task gates, gates that are not present and empty ones are none"


def test_system_calls_do_not_mask_events_and_page_faults_do() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        syscall, page_fault, double_fault = (domain.traps.gates[vector] for vector in (0x80, 14, 8))
        assert (syscall.dpl, syscall.masks) == (3, False) and page_fault.masks and not double_fault.eip

    on_xen(look)


def test_the_gdt_in_use_is_read_only_and_changes_through_the_hypervisor() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        gdt = bench.symbol("cpu_gdt_table")
        assert not bench.quad(bench.pte_at(gdt)) & RW
        before = [bench.quad(gdt + 8 * index) for index in (16, 17)]
        for index, high in ((16, 0xC0008900), (16, 0xC0008B00), (17, 0xC0008200)):
            bench.ops.write_gdt_entry(gdt, index, 0x00000067, high)
        assert [bench.quad(gdt + 8 * index) for index in (16, 17)] == before, "TSS and LDT are told by other calls"
        bench.ops.write_gdt_entry(gdt, 28, 0x0000FFFF, 0x00CF9200)
        assert bench.quad(gdt + 8 * 28) >> 32 & 0x6000 == 0x2000, "DPL 0 becomes 1"

    on_xen(look)


@pytest.mark.parametrize(("limit", "base", "said"), [
    (255, 0xC0123008, "a GDT of 256 bytes at 0xc0123008"),
    (0xFFFE, 0xC0123000, "a GDT of 65535 bytes at 0xc0123000"),
    (255, HYPERVISOR_START, "a descriptor table at 0xf5800000, in a page of the hypervisor's"),
    (255, 0xC0100000 + MEMORY, "load_gdt"),  # not mapped
])
def test_a_gdt_that_the_hypervisor_cannot_take_ends_the_kernel(limit: int, base: int, said: str) -> None:
    def look(bench: Bench, domain: Domain) -> None:
        page = bench.page()
        bench.write(page, struct.pack("<HI", limit, base))
        bench.ops.load_gdt(page)

    outcome = on_xen(look, ends=True)
    assert outcome.end.word == "crash" and said in outcome.reason


def test_an_idt_of_any_size_has_256_gates() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        page = bench.page()
        bench.write(page, struct.pack("<HI", 0xFFFF, bench.symbol("idt_table")))
        bench.ops.load_idt(page)
        gates = [(gate.eip, gate.dpl) for gate in domain.traps.gates]
        bench.ops.write_idt_entry(bench.symbol("idt_table"), 256 + 0x80, 0x00610000, 0xC0108E00)
        assert [(gate.eip, gate.dpl) for gate in domain.traps.gates] == gates

    on_xen(look)


def test_an_ldt_is_read_only_while_it_is_in_use() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        first, second = bench.page(), bench.page()

        def writable() -> tuple[bool, bool]:
            a, b = (bool(bench.quad(bench.pte_at(page)) & RW) for page in (first, second))
            return a, b

        bench.ops.set_ldt(first, 512)
        assert writable() == (False, True)
        bench.ops.write_ldt_entry(first, 3, 0x0000FFFF, 0x00CFF200)
        assert bench.quad(first + 24) >> 32 & 0xFFFFFE00 == 0x00CFF200, "accessed, perhaps"
        bench.ops.set_ldt(second, 512)
        assert writable() == (True, False)
        bench.ops.set_ldt(second, 512)
        assert writable() == (True, False)
        bench.ops.set_ldt(0, 0)
        assert writable() == (True, True)
        bench.poke(first, 1)
        bench.poke(second, 1)

    on_xen(look)


def test_a_descriptor_that_the_hypervisor_refuses_is_named() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        bench.ops.write_gdt_entry(bench.symbol("cpu_gdt_table"), 28, 0, 0x00408E00)  # an interrupt gate

    assert "batched call 1 of 1 failed: hypercall 10(" in on_xen(look, ends=True).reason


# ---------------------------------------------------------------------- host functions

def test_hypercalls_of_host_functions_go_the_way_of_the_guests() -> None:
    def look(stopped: Stopped, domain: Domain, arguments: tuple[int, ...]) -> int:
        seen: list[str] = []
        domain.dispatcher.on_call = lambda name, words, result, inner: seen.append(f"{name} {result}")
        before = dict(stopped.guest.all_counts())
        result = call(stopped, "arch_setup")
        domain.dispatcher.on_call = None
        assert seen == ["vm_assist 0", "vm_assist 0", "vm_assist 0", "memory_op 0", "set_callbacks 0", "physdev_op 0"]
        assert stopped.guest.all_counts()["xen.hypercall.vm_assist"] == before.get("xen.hypercall.vm_assist", 0) + 3
        assert domain.traps.event.eip == stopped.kernel.symbol("xen_hypervisor_callback")
        assert domain.traps.failsafe.eip == stopped.kernel.symbol("xen_failsafe_callback")
        return result

    in_place_of("arch_setup", look)


@pytest.mark.parametrize(("name", "arguments", "result"), [
    ("update_va_mapping", (PAGE_OFFSET, 0x1063, 0), -1),
    ("vm_assist", (0, 99), -22),
    ("update_descriptor", (0, 0), -22),
])
def test_a_host_functions_call_that_fails(name: str, arguments: tuple[int, ...], result: int) -> None:
    def look(bench: Bench, domain: Domain) -> None:
        hypervisor = Hypervisor(bench.guest, lambda: domain)
        assert hypervisor.call(name, *arguments) == result
        hypervisor.must(name, *arguments)

    said = ", ".join(f"{each:#x}" for each in arguments)
    assert on_xen(look, ends=True).reason == f"xen: {name}({said}) = {result}"


def test_symbols_that_the_table_names_are_all_linked() -> None:
    def look(bench: Bench, domain: Domain) -> None:
        symbol = code.xen_vcpu_info
        address = bench.ops.linked.symbols[symbol.object, symbol.symbol]
        assert domain.machine_address(address) == domain.vcpu_info, "where the flag ops look"

    on_xen(look)
