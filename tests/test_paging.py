"""The host's walk of page tables must see what an instruction of the guest sees, or host functions leak.

The CPU itself is the reference. Tables are made at random (two-level and PAE, small and large pages, all rights);
a guest touches pages through them, in ring 0 and 3, to read, write and execute, and the host asks `translate` and
`lookup` for the same. Both must agree on the fault with its error code and CR2, on the page that is reached, and on
accessed and dirty bits.

Ref: Intel SDM vol. 3A, 4.3 (32-bit paging), 4.4 (PAE paging), 4.6 (access rights), 4.7 (page-fault error code),
4.8 (accessed and dirty flags).
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.errors import GuestFault
from paravirt.machine.paging import Leaf, Mapping, Tables, lookup, mappings, translate
from paravirt.machine.ram import Ram
from tests.snippet import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, EFER_NX, NX, TABLES, Guest, start
from tests.snippet import Paging as Control

MEMORY = 16 << 20
BASE = 0x40000000  # what the tables map at random; below 4 MB everything is mapped at itself
DIRECTORY, LEAVES = TABLES + 0x2000, TABLES + 0x8000
FRAMES = [0x400000 + 0x5000 * n for n in range(1, 7)]
AT_READ, AT_WRITE = 0x800, 0x900
READ, WRITE, EXECUTE = range(3)
PROTECTION, WROTE, FROM_USER, FETCH, PF = 1, 2, 4, 16, 14
PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE, GLOBAL = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
DONE, BREAKPOINT = 0x80, 3
SKIP = (0, 0, 0, 0)


class Space(NamedTuple):
    """Entries at random, how to switch them on, and the pages worth a touch."""

    control: Control
    words: dict[int, int]  # physical address -> entry
    width: int
    pages: list[int]

    def fill(self, ram: Ram) -> None:
        """The snippet at itself, for every ring, and the entries over that."""
        form, count, top = ("Q", 512, 21) if self.width == 8 else ("I", 1024, 22)
        for table in range((4 << 20) >> top):
            ram.write(DIRECTORY + self.width * table, struct.pack(f"<{form}", LEAVES + 0x1000 * table | 7))
            rows = (table << top | n << 12 | 7 for n in range(count))
            ram.write(LEAVES + 0x1000 * table, struct.pack(f"<{count}{form}", *rows))
        for address, value in self.words.items():
            (ram.write_u64 if self.width == 8 else ram.write_u32)(address, value)
        for start_ in FRAMES:
            ram.write(start_, b"\xcc" * 4096)
            ram.write_u32(start_ + AT_READ, start_)

    @property
    def tables(self) -> Tables:
        return Tables(self.control.cr0 | 1, self.control.cr3, self.control.cr4)


def rights(nx: bool) -> st.SearchStrategy[int]:
    """Low bits of an entry, mostly present, and NX."""
    bits = st.tuples(
        st.sampled_from((PRESENT, PRESENT, PRESENT, 0)), st.sampled_from((0, WRITABLE)), st.sampled_from((0, USER)),
        st.sampled_from((0, ACCESSED)), st.sampled_from((0, DIRTY)), st.sampled_from((0, GLOBAL)),
        st.sampled_from((0, 0, NX) if nx else (0,)))
    return bits.map(sum)


@st.composite
def spaces(draw: st.DrawFn, pae: bool) -> Space:
    nx = pae and draw(st.booleans())
    large_pages = pae or draw(st.booleans())
    width, top = (8, 21) if pae else (4, 22)
    words: dict[int, int] = {}
    pages: list[int] = []
    directory, first, cr3 = DIRECTORY, BASE >> top, DIRECTORY
    if pae:
        cr3 = TABLES + 0x40  # the directory pointers need no page of their own
        present = draw(st.sampled_from((PRESENT,) * 4 + (0,)))
        words |= {cr3: DIRECTORY | PRESENT, cr3 + 8: (DIRECTORY + 0x1000) | present}
        directory, first = DIRECTORY + 0x1000, 0
    leaves = LEAVES + 0x4000
    for index in range(3):
        flags, base = draw(rights(nx)), BASE + (index << top)
        if draw(st.booleans()):  # a large page, unless CR4.PSE is clear: then bit 7 means nothing and this is a table
            frame = draw(st.sampled_from((0x400000, 0x800000))) if large_pages else leaves
            words[directory + width * (first + index)] = frame | flags | LARGE
            if large_pages:
                pages += [base + (at - 0x400000) for at in FRAMES if at - 0x400000 < 1 << top] + [base + 0x100000]
        else:
            words[directory + width * (first + index)] = leaves | flags
        if not large_pages or not words[directory + width * (first + index)] & LARGE:
            for slot in range(4):
                bit7 = draw(st.sampled_from((0, LARGE)))  # PAT in a page table entry
                words[leaves + width * slot] = draw(st.sampled_from(FRAMES)) | draw(rights(nx)) | bit7
                pages.append(base + 0x1000 * slot)
            leaves += 0x1000
    pages += [BASE + (3 << top), 0xC0000000]
    control = Control(
        CR0_PG | draw(st.sampled_from((0, CR0_WP))), cr3,
        (CR4_PAE if pae else 0) | (CR4_PSE if large_pages and not pae else 0), EFER_NX if nx else 0)
    return Space(control, words, width, pages)


@st.composite
def cases(draw: st.DrawFn, pae: bool) -> tuple[Space, list[tuple[int, int]]]:
    space = draw(spaces(pae))
    probes = st.tuples(st.sampled_from(space.pages), st.integers(0, 5))
    return space, draw(st.lists(probes, min_size=10, max_size=40))


def by_host(space: Space, ram: Ram, number: int, page: int, kind: int) -> tuple[int, int, int, int]:
    """What must come of a probe: vector, error code, CR2, result. Does to `ram` what the probe does."""
    access, user = kind % 3, kind >= 3
    error = FROM_USER if user else 0
    leaf = lookup(ram, space.tables, page)
    if access == EXECUTE:
        fetch = FETCH if space.control.efer and space.control.cr4 & CR4_PAE else 0
        if leaf is None or (user and not leaf.user) or not leaf.executable:
            return PF, error | fetch | (PROTECTION if leaf else 0), page, 0
        if ram.bytes[leaf.physical] != 0xCC:
            return SKIP  # who knows what its text would do
        translate(ram, space.tables, page, user=user)
        return BREAKPOINT, 0, 0, 0
    va = page + (AT_WRITE if access == WRITE else AT_READ)
    try:
        physical = translate(ram, space.tables, va, write=access == WRITE, user=user)
    except GuestFault as fault:
        assert fault.cr2 == va and fault.error & ~PROTECTION == error | (WROTE if access == WRITE else 0)
        return fault.vector, fault.error, va, 0
    assert leaf is not None and physical == leaf.physical + va - page
    if access == WRITE:
        ram.write_u32(physical, number)
        return DONE, 0, 0, 0
    return DONE, 0, 0, ram.words[physical >> 2]


def agree(engine: str, space: Space, probes: list[tuple[int, int]]) -> None:
    model = Ram(MEMORY)
    space.fill(model)
    wanted = []
    done: list[tuple[int, int]] = []
    for page, kind in probes:
        result = by_host(space, model, len(done), page, kind)
        if result != SKIP:
            wanted.append(result)
            done.append((page, kind))
    arguments = [len(done), *(word for probe in done for word in probe)]
    with start("probe", engine, memory=MEMORY, paging=space.control, arguments=arguments) as guest:
        space.fill(guest.ram)
        guest.finish()
        found = [
            (record.vector, record.error, record.cr2 if record.vector == PF else 0, guest.result(number))
            for number, record in enumerate(guest.log())]
        differing = [(hex(p), k, f, w) for (p, k), f, w in zip(done, found, wanted, strict=True) if f != w]
        assert not differing, f"(page, kind, found, host's): {differing}"
        for frame in FRAMES:
            assert guest.ram.read(frame, 4096) == model.read(frame, 4096), hex(frame)
        compare_tables(space, guest, model)
    model.close()


def compare_tables(space: Space, guest: Guest, model: Ram) -> None:
    """Entries above a leaf may be marked accessed by a walk that ended in a fault: the CPU may do that, the host
    does not."""
    for address, value in space.words.items():
        found = int.from_bytes(guest.ram.read(address, space.width), "little")
        wanted = int.from_bytes(model.read(address, space.width), "little")
        above = DIRECTORY <= address < LEAVES and not (value & LARGE and (space.width == 8 or space.control.cr4))
        ignored = ACCESSED if above else 0
        assert found | ignored == wanted | ignored, f"entry at {address:#x}: {found:#x}, host's {wanted:#x}"
        assert not wanted & ~found, f"entry at {address:#x}: what the host marks, the CPU marks"


HYPOTHESIS = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("engine", ["fast", "no-stores", "portable"])
@given(case=cases(pae=False))
@HYPOTHESIS
def test_two_level_tables(engine: str, case: tuple[Space, list[tuple[int, int]]]) -> None:
    agree(engine, *case)


@pytest.mark.parametrize("engine", ["fast", "no-stores", "portable"])
@given(case=cases(pae=True))
@HYPOTHESIS
def test_pae_tables(engine: str, case: tuple[Space, list[tuple[int, int]]]) -> None:
    agree(engine, *case)


def literal(pae: bool, entries: dict[int, int]) -> Ram:
    ram = Ram(1 << 20)
    for address, value in entries.items():
        (ram.write_u64 if pae else ram.write_u32)(address, value)
    return ram


TWO_LEVEL, PAE = Tables(CR0_PG | CR0_WP | 1, 0x1000, CR4_PSE), Tables(CR0_PG | CR0_WP | 1, 0x1020, CR4_PAE)


def test_without_paging_an_address_is_its_own() -> None:
    ram, off = Ram(1 << 20), Tables(1, 0xDEAD000, CR4_PAE)
    assert lookup(ram, off, 0x1_2345_6789) == Leaf(0x23456789, True, True, True, 4096)
    assert translate(ram, off, 0xFFFFFFFF, write=True, user=True) == 0xFFFFFFFF


def test_a_small_and_a_large_page() -> None:
    ram = literal(False, {0x1000: 0x2007, 0x2004: 0x5003, 0x1004: 0x00C000E5})
    assert lookup(ram, TWO_LEVEL, 0x1ABC) == Leaf(0x5ABC, True, False, True, 1 << 12)
    assert lookup(ram, TWO_LEVEL, 0x7FEDCB) == Leaf(0xFFEDCB, False, True, True, 1 << 22)
    assert lookup(ram, TWO_LEVEL, 0x2000) is None
    assert translate(ram, TWO_LEVEL, 0x1ABC, write=True) == 0x5ABC
    assert (ram.words[0x1000 >> 2], ram.words[0x2004 >> 2]) == (0x2027, 0x5063)


def test_pae_pages() -> None:
    ram = literal(True, {0x1038: 0x2001, 0x2000: 0x3007, 0x3000: NX | 0x6007, 0x2008: 0xE00087})
    assert lookup(ram, PAE, 0xC0000123) == Leaf(0x6123, True, True, False, 1 << 12)
    assert lookup(ram, PAE, 0xC03ABCDE) == Leaf(0xFABCDE, True, True, True, 1 << 21)
    assert lookup(ram, PAE, 0xC0400000) is None
    assert lookup(ram, PAE, 0x123) is None


@pytest.mark.parametrize(("write", "user", "error"), [(False, False, 0), (True, False, 2), (False, True, 4),
                                                      (True, True, 6)])
def test_the_error_code_of_a_page_that_is_not_there(write: bool, user: bool, error: int) -> None:
    with pytest.raises(GuestFault) as caught:
        translate(literal(False, {}), TWO_LEVEL, 0x8049ABC, write=write, user=user)
    assert (caught.value.vector, caught.value.error, caught.value.cr2) == (14, error, 0x8049ABC)


@pytest.mark.parametrize(("entry", "write", "user", "wp", "error"), [
    (5, True, True, True, 7), (5, True, False, True, 3), (5, True, False, False, None), (5, False, True, True, None),
    (3, False, True, True, 5), (3, True, True, False, 7), (3, True, False, True, None)])
def test_the_error_code_of_a_right_that_is_missing(
        entry: int, write: bool, user: bool, wp: bool, error: int | None) -> None:
    ram = literal(False, {0x1000: 0x2007, 0x2000: 0x5000 | entry})
    tables = TWO_LEVEL._replace(cr0=TWO_LEVEL.cr0 & ~(0 if wp else CR0_WP))
    if error is None:
        assert translate(ram, tables, 0x10, write=write, user=user) == 0x5010
        return
    with pytest.raises(GuestFault) as caught:
        translate(ram, tables, 0x10, write=write, user=user)
    assert (caught.value.error, caught.value.cr2) == (error, 0x10)
    assert ram.words[0x2000 >> 2] == 0x5000 | entry, "a refused access marks nothing"


def test_tables_outside_ram_map_nothing() -> None:
    ram = literal(False, {0x1000: 0xFFFFF007})
    assert lookup(ram, TWO_LEVEL, 0) is None
    assert lookup(ram, TWO_LEVEL._replace(cr3=0xFFFFF000), 0) is None
    assert lookup(ram, PAE._replace(cr3=0xFFFFFFE0), 0xFFFFFFFF) is None


def test_mappings_are_runs_of_equal_rights() -> None:
    entries = {0x1000: 0x2007, 0x1004: 0x00800087, 0x1FFC: 0x3007}
    entries |= {0x2000 + 4 * n: 0x9000 * n | 7 for n in (1, 2, 3)}  # frames need not be adjacent
    entries |= {0x2010: 0x5005, 0x2FFC: 0x7007, 0x3FFC: 0x4003}
    ram = literal(False, entries)
    found = mappings(ram, TWO_LEVEL, 0, 1 << 32)
    assert found == [
        Mapping(0x1000, 0x4000, True, True, True), Mapping(0x4000, 0x5000, False, True, True),
        Mapping(0x3FF000, 0x800000, True, True, True), Mapping(0xFFFFF000, 1 << 32, True, False, True)]
    assert mappings(ram, TWO_LEVEL, 0x2800, 0x401000) == [
        Mapping(0x2800, 0x4000, True, True, True), Mapping(0x4000, 0x5000, False, True, True),
        Mapping(0x3FF000, 0x401000, True, True, True)]


@given(space=st.one_of(spaces(pae=False), spaces(pae=True)))
@HYPOTHESIS
def test_mappings_say_what_lookup_says(space: Space) -> None:
    ram = Ram(MEMORY)
    space.fill(ram)
    runs = mappings(ram, space.tables, BASE, BASE + (16 << 20))
    assert all(first.end <= second.start for first, second in pairwise(runs))
    for page in {*space.pages, *range(BASE, BASE + (16 << 20), 0x40000)}:
        if page < BASE + (16 << 20):
            leaf = lookup(ram, space.tables, page)
            over = [run for run in runs if run.start <= page < run.end]
            assert [run[2:] for run in over] == ([] if leaf is None else [leaf[1:4]]), hex(page)
    ram.close()
