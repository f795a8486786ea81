"""Page-table entries, the TLB, announcements, lazy mode.

Entries under test are those of init_mm, each for the address that it belongs to: a platform may go by either. An
order of two stores shows when the second one faults: the entry is laid over the edge of a page that is not
mapped. A missing flush shows when an entry in memory has changed and the old page is still read.

Ref: paravirt/hookspecs/mmu.py, lazy.py; Intel SDM vol. 3A, 4.4 (PAE entries), 4.10.4 (invalidation).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from paravirt.conformance.bench import DATA, NX, PAGE, PAGE_OFFSET, Bench
from paravirt.conformance.case import case

PRESENT, RW, GLOBAL = 0x001, 0x002, 0x100
ACCESSED_DIRTY = 0x060
CPUID_PGE = 1 << 13
OLD, NEW = 0x0DD0DD0D, 0x4E4E4E4E
ENTRY = 0x40  # where in a page of the case's own an entry lies
LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH = range(4)
FILL = 0xEEEEEEEE_EEEEEEEE
ABSENT = 0x12345678_9ABCDE00  # not present, so all other bits are the kernel's own

AT = ("set_pte_at", "set_pte_present")
SETTERS = ("set_pte", "set_pte_at", "set_pte_atomic", "set_pte_present", "set_pmd", "set_pud")
CLEARERS = ("pte_clear", "pmd_clear")
UPPER = ("set_pmd", "set_pud", "pmd_clear")


class Place(NamedTuple):
    """An entry: the kernel address that it maps, and where it stands."""

    va: int
    at: int


def _place(bench: Bench) -> Place:
    """init_mm's entry for a page of the kernel's; for the upper levels, an entry of a table that nobody uses."""
    page = bench.page()
    if bench.name not in UPPER:
        return Place(page, bench.pte_at(page))
    for beside in (-8, 8):
        bench.set_quad(page + ENTRY + beside, FILL)
    return Place(PAGE_OFFSET, page + ENTRY)


def _arguments(bench: Bench, place: Place, value: int) -> tuple[int, ...]:
    """The arguments with which the op stores `value`."""
    mm = bench.symbol("init_mm")
    if bench.name in AT:
        return mm, place.va, place.at, value
    if bench.name == "pte_clear":
        return mm, place.va, place.at
    return (place.at,) if bench.name == "pmd_clear" else (place.at, value)


def _stored(bench: Bench, page: int, flags: int = DATA | NX) -> int:
    """An entry for a page, as it stands in a table of the op's level."""
    make = {"set_pmd": bench.ops.make_pmd, "set_pud": bench.ops.make_pgd}.get(bench.name, bench.ops.make_pte)
    return make((page - PAGE_OFFSET) | (flags if bench.name != "set_pud" else PRESENT))


def _neighbours(bench: Bench, at: int) -> tuple[int, int]:
    return bench.quad(at - 8) & ~ACCESSED_DIRTY, bench.quad(at + 8) & ~ACCESSED_DIRTY


def _clear(bench: Bench, place: Place) -> None:
    """The entry as it is before a page is mapped there."""
    if bench.name in UPPER:
        bench.set_quad(place.at, 0)
    else:
        bench.ops.pte_clear(bench.symbol("init_mm"), place.va, place.at)
        bench.ops.flush_tlb_single(place.va)


@case(*SETTERS)
def an_entry_is_stored(bench: Bench) -> None:
    """Both words: NX is a bit of the high one."""
    place = _place(bench)
    beside = _neighbours(bench, place.at)
    # set_pte is for entries that are not present, set_pte_present for those that are.
    between = bench.name != "set_pte_present"
    values = [_stored(bench, bench.page()) for _ in range(2)] + [ABSENT, 0] * between
    for value in values:
        if between:
            _clear(bench, place)
        bench.call(*_arguments(bench, place, value))
        bench.equal("the entry", bench.quad(place.at), value)
    bench.equal("its neighbours", _neighbours(bench, place.at), beside)


@case("set_pte", "set_pte_at", "set_pte_atomic", "set_pte_present")
def a_stored_entry_is_what_the_cpu_reads(bench: Bench) -> None:
    place = _place(bench)
    for number in (NEW, OLD):
        page = bench.page()
        bench.write(page, struct.pack("<I", number))
        if bench.name != "set_pte_present":
            _clear(bench, place)
        bench.call(*_arguments(bench, place, _stored(bench, page)))
        bench.ops.flush_tlb_single(place.va)
        bench.equal("the word behind the entry", bench.peek(place.va), number)


@case(*CLEARERS)
def an_entry_is_cleared(bench: Bench) -> None:
    place = _place(bench)
    beside = _neighbours(bench, place.at)
    if bench.name in UPPER:
        bench.set_quad(place.at, ABSENT)
    bench.call(*_arguments(bench, place, 0))
    bench.equal("the entry", bench.quad(place.at), 0)
    bench.equal("its neighbours", _neighbours(bench, place.at), beside)


# ---------------------------------------------------------------------- one word after the other

STORES = "in how many stores an entry is written is the hypervisor's affair"


def _edge(bench: Bench, *, low_is_mapped: bool) -> Place:
    """An entry of which one word lies in a page that is not mapped."""
    bench.needs_ring_0(STORES)
    first = bench.page()
    while (second := bench.page()) != first + PAGE:
        first = second
    entry = second - 4
    bench.write(entry, struct.pack("<Q", FILL))
    gone = second if low_is_mapped else first
    bench.ops.pte_clear(bench.symbol("init_mm"), gone, bench.pte_at(gone))
    bench.ops.flush_tlb_single(gone)
    bench.write(_note(bench), struct.pack("<I", entry))
    return Place(PAGE_OFFSET, entry)


def _note(bench: Bench) -> int:
    """Where the address of the entry is kept for `_half`."""
    return bench.kernel.note.scratch


@case("set_pte", "set_pte_at", "set_pte_atomic", "set_pmd", "set_pud", ends=("crash",),
      after=lambda bench: _half(bench, 0, (FILL & 0xFFFFFFFF,)))
def the_high_word_is_stored_first(bench: Bench) -> None:
    bench.call(*_arguments(bench, _edge(bench, low_is_mapped=True), _stored(bench, bench.page())))


@case("set_pte_present", ends=("crash",), after=lambda bench: _half(bench, 0, (0, FILL & 0xFFFFFFFF)))
def the_entry_is_not_present_in_between(bench: Bench) -> None:
    bench.call(*_arguments(bench, _edge(bench, low_is_mapped=True), _stored(bench, bench.page())))


@case("set_pte_atomic", "set_pte_present", "set_pmd", "set_pud", ends=("crash",),
      after=lambda bench: _half(bench, 4, (FILL >> 32,)))
def the_high_word_is_not_stored_alone(bench: Bench) -> None:
    """Stored at once, or behind the clearing of the low word."""
    bench.call(*_arguments(bench, _edge(bench, low_is_mapped=False), _stored(bench, bench.page())))


@case(*CLEARERS, ends=("crash",), after=lambda bench: _half(bench, 4, (FILL >> 32,)))
def the_low_word_is_cleared_first(bench: Bench) -> None:
    bench.call(*_arguments(bench, _edge(bench, low_is_mapped=False), 0))


def _half(bench: Bench, offset: int, allowed: tuple[int, ...]) -> None:
    """One word of the entry that `_edge` made, when the other could not be stored."""
    got = bench.word(bench.word(_note(bench)) + offset)
    if got not in allowed:
        bench.equal(f"the {'high' if offset else 'low'} word, the other one not being mapped", got, allowed[0])


# ---------------------------------------------------------------------- conversions

@case("pte_val", "pmd_val", "pgd_val", "make_pte", "make_pmd", "make_pgd")
def make_and_val_undo_each_other(bench: Bench) -> None:
    level = bench.name.removesuffix("_val").removeprefix("make_")
    make, val = getattr(bench.ops, f"make_{level}"), getattr(bench.ops, f"{level}_val")
    frame = bench.page() - PAGE_OFFSET
    flags = (PRESENT,) if level == "pgd" else (DATA, 0x067, PRESENT, DATA | NX)
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
    bench.ops.set_pte(bench.pte_at(va), bench.call((other - PAGE_OFFSET) | DATA).result)
    bench.ops.flush_tlb_single(va)
    bench.equal("the word behind the entry", bench.peek(va), NEW)


@case("pte_val", "pmd_val", "pgd_val")
def the_tables_in_use_lead_to_the_page(bench: Bench) -> None:
    """From the directory in CR3, in the kernel's own view."""
    va = bench.page()
    pgd = bench.ops.pgd_val(bench.quad(bench.ops.read_cr3() + PAGE_OFFSET + 8 * (va >> 30)))
    pmd = bench.ops.pmd_val(bench.quad((pgd & ~(PAGE - 1)) + PAGE_OFFSET + 8 * (va >> 21 & 511)))
    table = (pmd & 0xFFFFF000) + PAGE_OFFSET
    bench.equal("where the entry stands", table + 8 * (va >> 12 & 511), bench.pte_at(va))
    level = bench.name.removesuffix("_val")
    raw = {"pgd": bench.quad(bench.ops.read_cr3() + PAGE_OFFSET + 8 * (va >> 30)),
           "pmd": bench.quad((pgd & ~(PAGE - 1)) + PAGE_OFFSET + 8 * (va >> 21 & 511)),
           "pte": bench.quad(bench.pte_at(va))}[level]
    expected = {"pgd": pgd, "pmd": pmd, "pte": va - PAGE_OFFSET}[level] & 0xFFFFF000
    bench.equal(f"the frame of the {level} entry", bench.call(raw).result & 0xFFFFF000, expected)


# ---------------------------------------------------------------------- TLB

def _stale(bench: Bench, flags: int = DATA) -> int:
    """A page whose entry in memory has changed under a translation in use: it still reads OLD, or already NEW."""
    va, other, usual = bench.page(), bench.page(), bench.page()
    bench.write(usual, struct.pack("<I", OLD))
    bench.write(other, struct.pack("<I", NEW))
    bench.map(va, usual, flags)
    bench.equal("the page before", bench.peek(va), OLD)
    bench.map(va, other, flags, flush=False)
    return va


def _global(bench: Bench) -> int:
    return DATA | (GLOBAL if bench.variable("cpu_features") & CPUID_PGE else 0)


@case("flush_tlb_user")
def flush_tlb_user_drops_translations(bench: Bench) -> None:
    cr3, va = bench.ops.read_cr3(), _stale(bench)
    bench.call()
    bench.equal("the page through its new entry", bench.peek(va), NEW)
    bench.equal("CR3", bench.ops.read_cr3(), cr3)


@case("flush_tlb_kernel")
def flush_tlb_kernel_drops_global_ones(bench: Bench) -> None:
    cr4, local, shared = bench.ops.read_cr4(), _stale(bench), _stale(bench, _global(bench))
    bench.call()
    bench.equal("the page through its new entry", bench.peek(local), NEW)
    bench.equal("the global page through its new entry", bench.peek(shared), NEW)
    bench.equal("CR4", bench.ops.read_cr4(), cr4)


@case("flush_tlb_single")
def flush_tlb_single_drops_one(bench: Bench) -> None:
    for flags, offset in ((DATA, 0), (DATA, 0xFFC), (_global(bench), 8)):
        va = _stale(bench, flags)
        bench.call(va + offset)
        bench.equal("the page through its new entry", bench.peek(va), NEW)


# ---------------------------------------------------------------------- announcements

@case("alloc_pt", "alloc_pd", "release_pt", "release_pd", "alloc_pd_clone")
def an_announced_page_keeps_its_contents(bench: Bench) -> None:
    table = bench.page()
    bench.set_quad(table + ENTRY, ABSENT)
    before = bench.vcpu.read(table, PAGE)
    pfn = table - PAGE_OFFSET >> 12
    level = "pt" if bench.name.endswith("pt") else "pd"
    if bench.name.startswith("release"):
        getattr(bench.ops, f"alloc_{level}")(*((bench.symbol("init_mm"), pfn) if level == "pt" else (pfn,)))
    bench.call(*{"alloc_pt": (bench.symbol("init_mm"), pfn), "alloc_pd_clone": (pfn, pfn, 0, 0)}.get(
        bench.name, (pfn,)))
    bench.equal("the page's contents", bench.vcpu.read(table, PAGE), before)
    if not bench.name.startswith("release"):
        getattr(bench.ops, f"release_{level}")(pfn)
    bench.poke(table, NEW)
    bench.equal("a word stored when it is released", bench.peek(table), NEW)


@case("pte_update", "pte_update_defer")
def an_announced_change_stays(bench: Bench) -> None:
    """The kernel takes a right away in place, as fork does."""
    va = bench.page()
    at = bench.pte_at(va)
    changed = bench.quad(at) & ~RW
    bench.poke(at, changed & 0xFFFFFFFF)
    bench.call(bench.symbol("init_mm"), va, at)
    bench.ops.flush_tlb_single(va)
    bench.equal("the entry, accessed and dirty bits aside", bench.quad(at) & ~ACCESSED_DIRTY,
                changed & ~ACCESSED_DIRTY)


@case("activate_mm", "dup_mmap", "exit_mmap")
def an_address_space_lives_and_ends(bench: Bench) -> None:
    init_mm, mm = bench.symbol("init_mm"), bench.kernel.mm_alloc()
    bench.holds("mm_alloc gives an address space", mm != 0)
    pgd = bench.word(mm)
    top = _frames(bench, pgd)
    if bench.name == "exit_mmap":
        bench.ops.activate_mm(init_mm, mm)
        bench.call(mm)
        bench.poke(pgd + 64, NEW)
        bench.equal("a word of the directory's page, stored behind exit_mmap", bench.peek(pgd + 64), NEW)
        return
    bench.call(init_mm, mm)
    bench.equal("the frames in the directory", _frames(bench, pgd), top)
    old = bench.ops.read_cr3()
    bench.ops.write_cr3(pgd - PAGE_OFFSET)
    bench.equal("CR3", bench.ops.read_cr3(), pgd - PAGE_OFFSET)
    bench.equal("the kernel, seen there", bench.word(mm), pgd)
    bench.ops.write_cr3(old)
    bench.ops.exit_mmap(mm)


def _frames(bench: Bench, pgd: int) -> list[int]:
    """Without the flags, to which a hypervisor may add."""
    return [entry & 0xFFFFF001 for entry in struct.unpack("<4Q", bench.vcpu.read(pgd, 32))]


@case("kmap_atomic_pte")
def kmap_atomic_pte_maps_the_page(bench: Bench) -> None:
    for _ in range(2):
        page = bench.page()
        bench.write(page, struct.pack("<I", NEW))
        mapped = bench.call(bench.variable("mem_map") + 8 * (page - PAGE_OFFSET >> 12), 3).result
        bench.equal("a page of low memory is at its usual address", mapped, page)
        bench.equal("its first word", bench.peek(mapped), NEW)


# ---------------------------------------------------------------------- lazy modes

@case("set_lazy_mode")
def a_batch_of_entries_takes_effect(bench: Bench) -> None:
    """In order: of two stores to one entry the later one stays. A flush keeps the mode."""
    table = bench.page()
    values = [bench.entry_for(bench.page()) for _ in range(40)]
    bench.call(LAZY_MMU)
    for number, value in enumerate(values):
        bench.ops.set_pte(table + 8 * number, value)
    bench.ops.set_pte(table, values[-1])
    bench.call(LAZY_FLUSH)
    expected = [values[-1], *values[1:]]
    bench.equal("the entries behind a flush", _entries(bench, table, len(values)), expected)
    bench.ops.set_pte(table, values[0])
    bench.call(LAZY_NONE)
    bench.equal("the entries behind the batch", _entries(bench, table, len(values)), values)


@case("set_lazy_mode")
def a_batch_of_mappings_takes_effect(bench: Bench) -> None:
    """For addresses in use, with the flush of the TLB among them."""
    first, second, other = bench.page(), bench.page(), bench.page()
    bench.write(other, struct.pack("<I", NEW))
    for va in (first, second):
        bench.equal("the page before", bench.peek(va), 0)
    ptes = {va: bench.pte_at(va) for va in (first, second)}
    value = bench.entry_for(other)
    bench.call(LAZY_MMU)
    for va, at in ptes.items():
        bench.ops.set_pte_at(bench.symbol("init_mm"), va, at, value)
        bench.ops.flush_tlb_single(va)
    bench.call(LAZY_NONE)
    for va in (first, second):
        bench.equal("the page behind the batch", bench.peek(va), NEW)


def _entries(bench: Bench, table: int, count: int) -> list[int]:
    return list(struct.unpack(f"<{count}Q", bench.vcpu.read(table, 8 * count)))


@case("set_lazy_mode")
def a_context_switch_takes_effect(bench: Bench) -> None:
    bench.ops.irq_disable()
    mm, cr3 = bench.kernel.mm_alloc(), bench.ops.read_cr3()
    pgd, thread = bench.word(mm), bench.thread(bench.kernel_stack())
    bench.set_quad(thread, 0x00CFF3001234FFFF)
    bench.ops.activate_mm(bench.symbol("init_mm"), mm)
    bench.call(LAZY_CPU)
    bench.ops.write_cr3(pgd - PAGE_OFFSET)
    bench.ops.set_ldt(0, 0)
    bench.ops.load_esp0(bench.symbol("cpu_tss"), thread)
    bench.ops.load_tls(thread, 0)
    bench.call(LAZY_NONE)
    bench.equal("CR3 behind the batch", bench.ops.read_cr3(), pgd - PAGE_OFFSET)
    segment = bench.segment(0x33)
    bench.equal("the base of the first TLS segment", segment and segment.base, 0x1234)
    bench.ops.write_cr3(cr3)
