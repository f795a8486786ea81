"""Page-table entries, the TLB, announcements, lazy mode.

An order of two stores shows when the second one faults: the entry is laid over the edge of a page that is not
mapped. A missing flush shows when an entry in memory has changed and the old page is still read.

Ref: paravirt/hookspecs/mmu.py, lazy.py; Intel SDM vol. 3A, 4.4 (PAE entries), 4.10.4 (invalidation).
"""

from __future__ import annotations

import struct

from paravirt.conformance.bench import ADDRESS, NX, PAGE, Bench
from paravirt.conformance.case import case

DATA = 0x063  # present, writable, accessed, dirty
GLOBAL = 0x100
OLD, NEW = 0x0DD0DD0D, 0x4E4E4E4E
ENTRY = 0x40  # where in its page the entry under test lies
LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH = range(4)
FILL = 0xEEEEEEEE_EEEEEEEE

AT = ("set_pte_at", "set_pte_present")
SETTERS = ("set_pte", "set_pte_at", "set_pte_atomic", "set_pte_present", "set_pmd", "set_pud")
CLEARERS = ("pte_clear", "pmd_clear")


def _arguments(bench: Bench, at: int, value: int) -> tuple[int, ...]:
    """The arguments with which the op stores `value` at `at`."""
    mm = bench.kernel.symbol("init_mm")
    if bench.name in AT:
        return mm, 0xC0000000 + 5 * PAGE, at, value
    if bench.name == "pte_clear":
        return mm, 0xC0000000 + 5 * PAGE, at
    return (at,) if bench.name == "pmd_clear" else (at, value)


def _stored(bench: Bench, flags: int = DATA | NX) -> int:
    """An entry for a fresh page, as it stands in a table."""
    make = {"set_pmd": bench.ops.make_pmd, "set_pud": bench.ops.make_pgd}.get(bench.name, bench.ops.make_pte)
    return make((bench.page() - 0xC0000000) | (flags if bench.name != "set_pud" else 1))


@case(*SETTERS)
def an_entry_is_stored(bench: Bench) -> None:
    table = bench.page()
    at = table + ENTRY
    for beside in (-8, 8):
        bench.set_quad(at + beside, FILL)
    # Non-present entries, all of whose bits are the kernel's own: both words must arrive.
    for value in (_stored(bench), _stored(bench), 0x12345678_9ABCDE00, 0):
        bench.call(*_arguments(bench, at, value))
        bench.ops.set_lazy_mode(LAZY_FLUSH)
        bench.equal("the entry", bench.quad(at), value)
    bench.equal("its neighbours", (bench.quad(at - 8), bench.quad(at + 8)), (FILL, FILL))


@case(*CLEARERS)
def an_entry_is_cleared(bench: Bench) -> None:
    at = bench.page() + ENTRY
    for word in range(-1, 2):
        bench.set_quad(at + 8 * word, FILL)
    bench.call(*_arguments(bench, at, 0))
    bench.equal("the entry", bench.quad(at), 0)
    bench.equal("its neighbours", (bench.quad(at - 8), bench.quad(at + 8)), (FILL, FILL))


def _edge(bench: Bench, *, low_is_mapped: bool) -> int:
    """Address of an entry of which one word lies in a page that is not mapped."""
    first = bench.page()
    while (second := bench.page()) != first + PAGE:
        first = second
    entry = second - 4
    bench.write(entry, struct.pack("<Q", FILL))
    bench.set_entry(second if low_is_mapped else first, 0)
    return entry


@case("set_pte", "set_pte_at", "set_pte_atomic", "set_pmd", "set_pud", ends=("crash",),
      after=lambda bench: _half(bench, 0, (FILL & 0xFFFFFFFF,)))
def the_high_word_is_stored_first(bench: Bench) -> None:
    at = _edge(bench, low_is_mapped=True)
    bench.write(bench.frame + PAGE - 4, struct.pack("<I", at))
    bench.call(*_arguments(bench, at, _stored(bench)))


@case("set_pte_present", ends=("crash",), after=lambda bench: _half(bench, 0, (0, FILL & 0xFFFFFFFF)))
def the_entry_is_not_present_in_between(bench: Bench) -> None:
    at = _edge(bench, low_is_mapped=True)
    bench.write(bench.frame + PAGE - 4, struct.pack("<I", at))
    bench.call(*_arguments(bench, at, _stored(bench)))


@case(*CLEARERS, ends=("crash",), after=lambda bench: _half(bench, 4, (FILL >> 32,)))
def the_low_word_is_cleared_first(bench: Bench) -> None:
    at = _edge(bench, low_is_mapped=False)
    bench.write(bench.frame + PAGE - 4, struct.pack("<I", at))
    bench.call(*_arguments(bench, at, 0))


def _half(bench: Bench, offset: int, allowed: tuple[int, ...]) -> None:
    """One word of the entry that `_edge` made, when the other could not be stored."""
    got = bench.word(bench.word(bench.frame + PAGE - 4) + offset)
    if got not in allowed:
        bench.equal(f"the {'high' if offset else 'low'} word, the other one not being mapped", got, allowed[0])


@case("pte_val", "pmd_val", "pgd_val", "make_pte", "make_pmd", "make_pgd")
def make_and_val_undo_each_other(bench: Bench) -> None:
    level = bench.name.removesuffix("_val").removeprefix("make_")
    make, val = getattr(bench.ops, f"make_{level}"), getattr(bench.ops, f"{level}_val")
    frame = bench.page() - 0xC0000000
    flags = (1,) if level == "pgd" else (DATA, 0x067, 0x001, DATA | NX)
    for view in (frame | each for each in flags):
        if bench.name.startswith("make_"):
            bench.equal(f"{level}_val({bench.name}(x))", val(bench.call(view).result), view)
        else:
            bench.equal(f"{bench.name}(make_{level}(x))", bench.call(make(view)).result, view)
    absent = 0x00000007_65432100
    bench.equal("an entry that is not present", bench.call(absent).result, absent)


@case("make_pte")
def make_pte_makes_what_the_cpu_reads(bench: Bench) -> None:
    """An entry made and set for a kernel address is the page that is read there."""
    va, other = bench.page(), bench.page()
    bench.write(other, struct.pack("<I", NEW))
    bench.ops.set_pte(_ptep(bench, va), bench.call((other - 0xC0000000) | DATA).result)
    bench.ops.flush_tlb_single(va)
    bench.equal("the word behind the entry", bench.peek(va), NEW)


def _ptep(bench: Bench, va: int) -> int:
    return bench.entries(va)[-1] + 0xC0000000


# ---------------------------------------------------------------------- TLB

def _stale(bench: Bench, flags: int = DATA) -> int:
    """A page whose entry in memory has changed under a translation in use: it still reads OLD, or already NEW."""
    va, other = bench.page(), bench.page()
    bench.write(va, struct.pack("<I", OLD))
    bench.write(other, struct.pack("<I", NEW))
    bench.set_entry(va, bench.entry(va) & ADDRESS | flags)
    bench.equal("the page before", bench.peek(va), OLD)
    bench.set_entry(va, bench.entry(other) & ADDRESS | flags, flush=False)
    return va


@case("flush_tlb_user")
def flush_tlb_user_drops_translations(bench: Bench) -> None:
    cr3, va = bench.ops.read_cr3(), _stale(bench)
    bench.call()
    bench.equal("the page through its new entry", bench.peek(va), NEW)
    bench.equal("CR3", bench.ops.read_cr3(), cr3)


@case("flush_tlb_kernel")
def flush_tlb_kernel_drops_global_ones(bench: Bench) -> None:
    cr4, local, shared = bench.ops.read_cr4(), _stale(bench), _stale(bench, DATA | GLOBAL)
    bench.call()
    bench.equal("the page through its new entry", bench.peek(local), NEW)
    bench.equal("the global page through its new entry", bench.peek(shared), NEW)
    bench.equal("CR4", bench.ops.read_cr4(), cr4)


@case("flush_tlb_single")
def flush_tlb_single_drops_one(bench: Bench) -> None:
    for flags, offset in ((DATA, 0), (DATA, 0xFFC), (DATA | GLOBAL, 8)):
        va = _stale(bench, flags)
        bench.call(va + offset)
        bench.equal("the page through its new entry", bench.peek(va), NEW)


# ---------------------------------------------------------------------- announcements

@case("alloc_pt", "alloc_pd", "release_pt", "release_pd", "alloc_pd_clone")
def an_announced_page_keeps_its_contents(bench: Bench) -> None:
    table = bench.page()
    bench.set_quad(table + ENTRY, bench.ops.make_pte((bench.page() - 0xC0000000) | DATA))
    before = bench.vcpu.read(table, PAGE)
    pfn = table - 0xC0000000 >> 12
    level = "pt" if bench.name.endswith("pt") else "pd"
    if bench.name.startswith("release"):
        getattr(bench.ops, f"alloc_{level}")(*((bench.kernel.symbol("init_mm"), pfn) if level == "pt" else (pfn,)))
    bench.call(*{"alloc_pt": (bench.kernel.symbol("init_mm"), pfn), "alloc_pd_clone": (pfn, pfn, 0, 0)}.get(
        bench.name, (pfn,)))
    bench.equal("the page's contents", bench.vcpu.read(table, PAGE), before)
    if not bench.name.startswith("release"):
        getattr(bench.ops, f"release_{level}")(pfn)
    bench.poke(table, NEW)
    bench.equal("a word stored when it is released", bench.peek(table), NEW)


@case("pte_update", "pte_update_defer")
def an_announced_change_stays(bench: Bench) -> None:
    va = bench.page()
    changed = bench.entry(va) & ~2
    bench.set_entry(va, changed)
    bench.call(bench.kernel.symbol("init_mm"), va, _ptep(bench, va))
    bench.ops.flush_tlb_single(va)
    bench.equal("the entry, accessed bit aside", bench.entry(va) & ~0x60, changed & ~0x60)


@case("activate_mm", "dup_mmap", "exit_mmap")
def an_address_space_lives_and_ends(bench: Bench) -> None:
    init_mm, mm = bench.kernel.symbol("init_mm"), bench.kernel.mm_alloc()
    bench.holds("mm_alloc gives an address space", mm != 0)
    pgd = bench.word(mm)
    top = bench.vcpu.read(pgd, 32)
    if bench.name == "exit_mmap":
        bench.ops.activate_mm(init_mm, mm)
        bench.call(mm)
        bench.poke(pgd + 64, NEW)
        bench.equal("a word of the directory's page, stored behind exit_mmap", bench.peek(pgd + 64), NEW)
        return
    bench.call(init_mm, mm)
    bench.equal("the directory", bench.vcpu.read(pgd, 32), top)
    old = bench.ops.read_cr3()
    bench.ops.write_cr3(pgd - 0xC0000000)
    bench.equal("CR3", bench.ops.read_cr3(), pgd - 0xC0000000)
    bench.equal("the kernel, seen there", bench.word(mm), pgd)
    bench.ops.write_cr3(old)
    bench.ops.exit_mmap(mm)


@case("kmap_atomic_pte")
def kmap_atomic_pte_maps_the_page(bench: Bench) -> None:
    for _ in range(2):
        page = bench.page()
        bench.write(page, struct.pack("<I", NEW))
        mem_map = bench.word(bench.kernel.symbol("mem_map"))
        mapped = bench.call(mem_map + 8 * (page - 0xC0000000 >> 12), 3).result
        bench.equal("a page of low memory is at its usual address", mapped, page)
        bench.equal("its first word", bench.peek(mapped), NEW)


# ---------------------------------------------------------------------- lazy modes

@case("set_lazy_mode")
def a_batch_of_entries_takes_effect(bench: Bench) -> None:
    """In order: of two stores to one entry the later one stays. A flush keeps the mode."""
    table = bench.page()
    values = [bench.ops.make_pte((bench.page() - 0xC0000000) | DATA) for _ in range(40)]
    bench.call(LAZY_MMU)
    for number, value in enumerate(values):
        bench.ops.set_pte(table + 8 * number, value)
    bench.ops.set_pte(table, values[-1])
    bench.call(LAZY_FLUSH)
    expected = [values[-1], *values[1:]]
    bench.equal("the entries behind a flush", _entries(bench, table, len(values)), expected)
    bench.ops.set_pte(table, values[0])
    va = _stale(bench)
    bench.ops.flush_tlb_single(va)
    bench.call(LAZY_NONE)
    bench.equal("the entries behind the batch", _entries(bench, table, len(values)), values)
    bench.equal("a page flushed in the batch", bench.peek(va), NEW)


def _entries(bench: Bench, table: int, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}Q", bench.vcpu.read(table, 8 * count)))


@case("set_lazy_mode")
def a_context_switch_takes_effect(bench: Bench) -> None:
    bench.ops.irq_disable()
    mm, cr3 = bench.kernel.mm_alloc(), bench.ops.read_cr3()
    pgd = bench.word(mm)
    bench.ops.activate_mm(bench.kernel.symbol("init_mm"), mm)
    bench.call(LAZY_CPU)
    bench.ops.write_cr3(pgd - 0xC0000000)
    bench.ops.set_ldt(0, 0)
    bench.call(LAZY_NONE)
    bench.equal("CR3 behind the batch", bench.ops.read_cr3(), pgd - 0xC0000000)
    bench.ops.write_cr3(cr3)
